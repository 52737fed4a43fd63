"""Where a step's time and memory go: seconds per phase, peak bytes, tokens per second, MFU.

Left out: a profile of what happens within a phase (torch.profiler has it), and the waiting of one
process for another, which counts as the phase that it happens in.
"""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

WORK = ("s_rollout", "s_reference", "s_update")  # what a step would be without data and looking


Timer = Callable[[str], AbstractContextManager[None]]  # a `Clock`, or `untimed`


def untimed(phase: str) -> AbstractContextManager[None]:
    """In a clock's place where nobody wants to know."""
    return nullcontext()


class Clock:
    """Wall seconds of each phase of a step.

        with clock("update"):
            ...
            with clock("reference"): ...    counts as reference only
        row |= clock.row()                  {"s_update": 1.2, "s_reference": 0.4}
    """

    def __init__(self, device: torch.device):
        # A GPU works on what was queued while Python is ahead: without waiting at its borders a
        # phase's seconds would be those of whoever first asks for a number. Nothing waits within.
        self._device = device if device.type == "cuda" else None
        self._seconds: dict[str, float] = {}
        self._phase, self._since = "", 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """What runs in here counts as `phase`; a phase within it does not."""
        outer = self._phase
        self._charge(phase)
        try:
            yield
        finally:
            self._charge(outer)

    def _charge(self, phase: str) -> None:
        """To the phase until now what has passed since; from here on `phase`, or none ("")."""
        if self._device:
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._phase:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def row(self) -> dict[str, float]:
        """`s_PHASE` -> seconds since the last call, of the phases that there were."""
        row, self._seconds = {f"s_{name}": s for name, s in self._seconds.items()}, {}
        return row


def peak_memory(device: torch.device) -> int:
    """Bytes at the highest.

    On CUDA the tensors' sum, since the last call. On the CPU the whole process, since it began:
    nothing resets that, and where a larger program has started this one, its size counts.
    """
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def throughput(seconds: dict[str, float], *, tokens: int, devices: int,
               flops: float | None = None, peak: float | None = None) -> dict[str, float]:
    """How fast a step was, per device, over rollout, reference and update.

    Args:
        seconds: a step's row, or `Clock.row()`.
        tokens: prompt and answer of each of the step's N·K answers, over all devices; verl and
            EasyR1 count so, each prompt K times.
        flops: what the model itself needs for them, over all devices; what checkpointing computes
            again does not count.
        peak: FLOP/s of one device in the compute dtype; None where it is not known.
    Returns:
        tokens_per_s, and mfu = flops / (seconds · devices · peak) where both are known.
    """
    work = devices * sum(seconds.get(name, 0.0) for name in WORK)
    row = {"tokens_per_s": tokens / work}
    return row | {"mfu": flops / (work * peak)} if flops and peak else row

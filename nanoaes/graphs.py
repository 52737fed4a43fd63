"""Record a function of tensors once per size as a CUDA graph, then replay it.

A one-token forward is hundreds of short kernels; launched one by one from Python they take longer
than they run. A graph replays them from fixed addresses: inputs are copied into static buffers, the
output is read from one. Weights may change in place between replays; where they have moved, all
graphs are dropped and recorded again.
Left out: torch.compile (it would repeat the key heads for each of their query heads), prefill and
sampling (few, large kernels).
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor

KEPT = 2 * 2**30  # bytes of storage that stay between rollouts

Function = Callable[[], Tensor]
Recording = tuple[Callable[[], Any], Tensor, Any]  # what replays, what that fills, memory to share
Size = tuple[int, ...]


def cuda_graph(function: Function, pool: Any) -> Recording:
    """Capture `function`, which runs three times, so it must give the same result again.

    Args:
        pool: an earlier graph's memory for its insides: two graphs never run at the same time.
            None for the first; a pool whose graphs are all gone must not be used again.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries allocate their workspaces outside the capture
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        out = function()
    return graph.replay, out, graph.pool()


class Graphs:
    """The recorded sizes of one function, and the storage that their kernels point into."""

    def __init__(self, record: Callable[[Function, Any], Recording] = cuda_graph,
                 keep_bytes: int = KEPT):
        """keep_bytes: storage beyond this goes at `rest`."""
        self.record, self.keep_bytes = record, keep_bytes
        self.addresses: list[int] = []
        self.drop()

    def drop(self) -> None:
        """Let storage and recordings go."""
        self.recorded: dict[Hashable, tuple[list[Tensor], Callable[[], Any], Tensor]] = {}
        self.pool = self.storage = None
        self.size: Size = ()

    def keep(self, size: Size, make: Callable[[Size], Any], weights: Iterable[Tensor]) -> Any:
        """Storage that holds `size`: the same object as last time, or a new one and no graphs.

        It only grows, each number of its size for itself, so that rollouts of many sizes come to
        rest on one. The old goes before the new is made: both would not fit.

        Args:
            make: of that size or more; what it returns has `nbytes`.
            weights: what the recorded function reads besides; if one has moved, all begins anew.
        """
        addresses = [w.data_ptr() for w in weights]
        both = tuple(map(max, self.size or size, size))
        if self.storage is None or both != self.size or addresses != self.addresses:
            self.drop()
            self.storage, self.size, self.addresses = make(both), both, addresses
        return self.storage

    def rest(self) -> None:
        """Until the next rollout, keep storage only if it is small.

        At full size it is many gigabytes that the update needs for its activations; to record
        again costs about a second a step.
        """
        if self.storage is not None and self.storage.nbytes > self.keep_bytes:
            self.drop()

    def __call__(self, size: Hashable, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """function(*inputs); its result is overwritten by the next call of that size."""
        with torch.cuda.device_of(inputs[0]):  # streams and graphs are the current device's
            if size not in self.recorded:
                buffers = [x.clone() for x in inputs]
                replay, out, self.pool = self.record(lambda: function(*buffers), self.pool)
                self.recorded[size] = buffers, replay, out
            buffers, replay, out = self.recorded[size]
            for buffer, x in zip(buffers, inputs, strict=True):
                buffer.copy_(x)
            replay()
        return out

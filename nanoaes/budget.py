"""Does a run fit, how large may its micro-batches be, and what helps where it does not fit.

Called before anything is allocated: `memory.estimate` against what is free. A remedy is not a piece
of advice: each was tried on the estimate, and only what fits is named.
Left out: memory that others take later; a run that dies of it says so itself.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from nanoaes.errors import UserError
from nanoaes.memory import Job, estimate

GB = 1e9
UNIT, MOST = 1024, 65_536  # --tokens_per_micro_batch is chosen in steps of this and up to that
# Of what is free, for what is not counted: the estimate's own error (15 % of the activations), what
# CUDA's libraries and NCCL take (1 to 2 GB of 80), the allocator's gaps.
MARGIN = 0.08
RANK, TARGETS = 16, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def free_memory(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes that can still be allocated: of the GPU, or of the machine and this process's group.

    Args:
        root: where /proc and /sys are, for tests.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = []
    if (root / "proc/meminfo").is_file():
        lines = (root / "proc/meminfo").read_text().splitlines()
        free += [1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")]
    group = root / "sys/fs/cgroup"
    for limit, used in ((group / "memory.max", group / "memory.current"),
                        (group / "memory/memory.limit_in_bytes",
                         group / "memory/memory.usage_in_bytes")):
        if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
            free.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(free)) if free else 2**62  # a system that does not say


def fits(job: Job, free: int) -> bool:
    """Is there room for the peak, and a margin besides?"""
    return estimate(job)["peak"] <= (1 - MARGIN) * free


def smallest(job: Job) -> int:
    """The least --tokens_per_micro_batch that is worth a thought: one picture's longest row."""
    return -(-job.row // UNIT) * UNIT


def micro_batch_tokens(job: Job, free: int) -> int:
    """The largest --tokens_per_micro_batch that fits, a multiple of 1024 up to 65,536.

    No less than the longest row of one picture, which is never split: where that does not fit,
    `refuse` says so. Rows that a process does not have are no reason for more.
    """
    least = smallest(job)
    most = max(least, min(MOST, -(-job.row * job.images // UNIT) * UNIT))
    for tokens in range(most, least, -UNIT):
        if fits(replace(job, tokens=tokens), free):
            return tokens
    return least


def remedies(job: Job, free: int) -> list[tuple[str, Job]]:
    """What makes a run fit that does not, as options and as the run that they make.

    One change at a time; where none is enough, each beside the thriftiest micro-batches. More
    processes share the same pictures.
    """
    thrifty = replace(job, checkpointing=True, tokens=smallest(job))
    saving = f"--gradient_checkpointing true --tokens_per_micro_batch {thrifty.tokens} "
    for words, start in (("", job), (saving, thrifty)):
        found: dict[str, tuple[str, Job]] = {}  # of each kind the mildest that is enough
        for kind, value, other in _changes(start):
            if kind not in found and fits(other, free):
                found[kind] = f"{words}{value} {kind}" if kind == "processes" else (
                    f"{words}{kind} {value}"), other
        if found:
            return list(found.values())
    return []


def _changes(job: Job) -> Iterator[tuple[str, object, Job]]:
    """Option, value, the job that it makes; from mild to harsh."""
    if job.script != "eval" and not job.checkpointing:
        yield "--gradient_checkpointing", "true", replace(job, checkpointing=True)
    for tokens in (job.tokens // 2, job.tokens // 4, smallest(job)):
        if smallest(job) <= tokens < job.tokens:
            yield "--tokens_per_micro_batch", tokens, replace(job, tokens=tokens)
    if job.sharded and job.reference == "sharded":
        yield "--reference", "cpu", replace(job, reference="cpu")
    if job.adapters or job.script == "eval":
        return
    for n in (2, 4, 8, 16, 32, 64):
        if n > job.processes:
            yield "processes", n, replace(job, processes=n, alone=False,
                                          images=-(-job.images * job.processes // n))
    yield "--lora_rank", RANK, replace(job, rank=RANK, vision=False,
                                       adapters=job.model.adapters(RANK, TARGETS, False),
                                       reference="sharded" if job.reference else "")


def refuse(job: Job, free: int, where: str) -> None:
    """Nothing, where the run fits.

    Args:
        where: the device, for the message.
    Raises:
        UserError: it does not; the parts' sizes, and what helps.
    """
    if fits(job, free):
        return
    parts = estimate(job)
    sizes = ", ".join(f"{name} {x / GB:.1f}" for name, x in parts.items() if name != "peak"
                      and not name.startswith("in ") and x >= 0.05 * parts["peak"])
    helps = " or ".join(name for name, _ in remedies(job, free))
    raise UserError(
        f"{where}: the run needs {parts['peak'] / GB:.1f} GB per process ({sizes}) and "
        f"{MARGIN:.0%} spare, {free / GB:.1f} GB are free; "
        f"{'use ' + helps if helps else 'take a smaller model or a larger GPU'}")

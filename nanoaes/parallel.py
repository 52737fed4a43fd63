"""Several processes, one run: what `torchrun` starts works together, one process notices nothing.

    pictures of a step   ->  share          each process answers its part of them
    answers              ->  everyone       all see all: rewards compare pictures
    micro-batches        ->  even           as many on each, or they wait for each other for ever
    gradients, numbers   ->  add_gradients, total          sums over all processes
    files, made world    ->  by_first       one makes them, the others wait

Who reads the algorithm may skip this file: on one process each function returns what it is given.
NCCL carries what lies on GPUs, gloo the rest. The weights' part is in `sharding.py`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from nanoaes.errors import Stopped, UserError

T = TypeVar("T")
# Of one collective: a process that died is noticed at once, one that hangs after this time. Long,
# because the others wait while the first makes the toy's cold start or writes a checkpoint.
PATIENCE = timedelta(hours=1)
GRACE = 5.0  # seconds that a process waits for the first to tell of the same error
# Seconds before Python ends: gloo's threads still let go of tensors, and abort a process whose
# interpreter is gone by then (torch 2.13, pytorch/pytorch#179291; one exit in six, seen).
FAREWELL = 0.2
_alone = False  # within `by_first`, the first process works as if there were no others


def size() -> int:
    """Processes that work together."""
    return 1 if _alone or not dist.is_initialized() else dist.get_world_size()


def rank() -> int:
    """The number of this one, from 0."""
    return 0 if size() == 1 else dist.get_rank()


def first() -> bool:
    """Is this the one that writes files?"""
    return rank() == 0


def device(name: str) -> torch.device:
    """`--device` as torch's: "cuda" is this process's own GPU, "auto" that or else the CPU."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return torch.device("cpu" if name == "auto" else name)


@contextmanager
def together(name: str) -> Iterator[None]:
    """Join the processes that torchrun has started; alone without it.

    Args:
        name: `--device`.
    """
    if "RANK" not in os.environ:
        yield
        return
    place = device(name)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    start(place)
    try:
        yield
        everyone([rank()])  # who leaves earlier takes the others' connections along
        dist.destroy_process_group()
    finally:
        time.sleep(FAREWELL)


def start(place: torch.device, **how: object) -> None:
    """A process group: NCCL for tensors on GPUs, gloo for those on the CPU.

    Args:
        how: for `init_process_group`; by default as torchrun's environment says.
    """
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, **how)


def tell_once(message: str) -> str:
    """What this process prints of an error before it ends: the first of all speaks for all.

    An error that only another process met is told by that one, after it has waited for the first.
    """
    if size() == 1:
        return message
    store = dist.distributed_c10d._get_default_store()
    if rank() == 0:
        store.set("told", "by the first")
        return message
    try:
        store.wait(["told"], timedelta(seconds=GRACE))
    except RuntimeError:  # DistStoreError: the first has met no error
        return f"process {rank()}: {message}"
    return ""


def by_first(make: Callable[[], T]) -> T:
    """What the first process makes, alone; the others wait and get the same.

    Raises:
        UserError, Stopped: on every process, what the first one's `make` raised.
    """
    if size() == 1:
        return make()
    box: list = [None, None]
    if first():
        try:
            with _by_itself():
                box = [make(), None]
        except (UserError, Stopped) as error:
            box = [None, error if isinstance(error, Stopped) else UserError(str(error))]
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


@contextmanager
def _by_itself() -> Iterator[None]:
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def enough(option: str, n: int) -> None:
    """Has each process something to do of n things?

    Raises:
        UserError: it has not.
    """
    if n < size():
        raise UserError(f"{option} {n}: {size()} processes need one each; raise {option} or start "
                        "fewer processes")


def share(n: int) -> range:
    """The part of n things that this process does: of like sizes, in the order of processes."""
    return range(rank() * n // size(), (rank() + 1) * n // size())


def everyone(items: list[T]) -> list[T]:
    """The lists of all processes as one, in their order."""
    if size() == 1:
        return items
    lists: list = [None] * size()
    dist.all_gather_object(lists, items)
    return [item for part in lists for item in part]


def most(n: int) -> int:
    """The largest n of all processes."""
    return max(everyone([n]))


def total(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars added up over all processes; of those named …_max the largest."""
    if size() == 1:
        return sums
    mine = torch.stack([x.detach().float() for x in sums.values()])
    parts = [torch.empty_like(mine) for _ in range(size())]
    dist.all_gather(parts, mine)  # and each adds in the same order: the same bits everywhere
    every = torch.stack(parts)
    joined = zip(sums, every.sum(0), every.amax(0), strict=True)
    return {name: most if name.endswith("_max") else added for name, added, most in joined}


def add_gradients(trained: dict[str, Tensor]) -> None:
    """Sum the gradients of weights that every process holds whole; FSDP has summed the others'."""
    whole_ones = [p.grad for p in trained.values()
                  if p.grad is not None and not isinstance(p.grad, DTensor)]
    if size() == 1 or not whole_ones:
        return
    flat = torch.cat([g.flatten() for g in whole_ones])
    dist.all_reduce(flat)
    for g, part in zip(whole_ones, flat.split([g.numel() for g in whole_ones]), strict=True):
        g.copy_(part.view_as(g))


def whole(x: Tensor) -> Tensor:
    """A sharded tensor gathered, any other as it is. All processes have to ask."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def even(batches: list[list[int]]) -> list[tuple[list[int], float]]:
    """Micro-batches and what each counts, 1 or 0: as many as the process with the most has.

    Under FSDP each forward is a collective. Who has fewer repeats its last row for nothing.
    """
    spare = most(len(batches)) - len(batches)
    return [(batch, 1.0) for batch in batches] + [(batches[-1][-1:], 0.0)] * spare


def lost_another(error: RuntimeError) -> bool:
    """Did a collective fail because another process has ended?"""
    said = ("Connection closed by peer", "Connection reset by peer", "Broken pipe",
            "ncclRemoteError")
    return "RANK" in os.environ and any(words in str(error) for words in said)

"""The state of a run on disk, so that a run survives: trained weights, the optimizer, a small JSON.

    RUN/resume/step-000040/__0_0.distcp …   each process's part, by `torch.distributed.checkpoint`
    RUN/resume/step-000040/state.json       the step, the caller's facts, each file's checksum

A folder of that name is whole: all write into a hidden one, and the first process renames it.
Another number of processes may read it. Random numbers, pictures and learning rates are functions
of the step and need no state.
Left out: nodes without a common disk (refused); saving while the training goes on, which takes a
second copy of all that is saved; trust in other people's folders: torch unpickles its table of
contents, so go on with nothing that you have not saved yourself.
"""

import json
import warnings
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from nanoaes.checkpoint import discard, publish, recover, write_json
from nanoaes.errors import NotFinite, Stopped, UserError
from nanoaes.parallel import by_first, everyone, first, rank, share
from nanoaes.runs import keep_going
from nanoaes.stop import Stopping

T = TypeVar("T")
MIB = 2**20
BYTES = 12  # of a trained number: itself and AdamW's two, in fp32
RECORD = "state.json"


class Saves:
    """The states of one run. All processes call alike, and see one disk."""

    def __init__(self, folder: Path, keep: int, every: int = 0,
                 facts: dict[str, Any] | None = None):
        """
        Args:
            keep: how many stay. every: steps between them; 0: only where a run is asked to stop.
            facts: what every state is saved with.
        """
        self.folder, self.keep, self.every, self.always = folder, keep, every, facts or {}

    def after(self, step: int, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer,
              stop: Stopping) -> None:
        """At the end of a step: save where it is due, or where a signal has asked the run to stop.

        Raises:
            Stopped: it was asked to.
        """
        signal, saved = stop.asked(), False
        if signal or (self.every and step % self.every == 0):
            saved = self.save(step, trained, optimizer, self.always)
        if signal:
            raise Stopped(signal, f"stopped after step {step}, {'' if saved else 'NOT '}saved; "
                                  "go on with --resume true")

    def save(self, step: int, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer,
             facts: dict[str, Any]) -> bool:
        """Write the state after `step` steps; only then does the oldest go.

        Args:
            trained: name -> parameter: sharded, or whole and equal on each process (written once).
            facts: as JSON, whatever else the run wants to know when it goes on.
        Returns:
            whether it is saved, the same on all. A disk that fails, on any process, costs this
            state and one line; the ones before stay.
        Raises:
            NotFinite: a number of the state is none; it would take the place of one of use.
            UserError: the processes do not see one disk.
        """
        state = state_of(trained, optimizer)
        bad = everyone([n for n, x in state.items() if not finite(x)])
        if bad:
            raise NotFinite(f"{bad[0]} after step {step} is")
        with keep_going(f"the state of step {step}") as saving, ExitStack() as stack:
            path = self.folder / f"step-{step:06d}"
            aside = by_all(lambda: stack.enter_context(publish(path)) if first() else None)[0]
            names = write(aside, state)
            sums = by_all(lambda: checksums(aside, [n for n in names if written_here(n)]))
            missing = by_all(lambda: [n for n in names if not (aside / n).is_file()])[0]
            if missing:
                raise UserError(f"{aside}: the first process does not see {missing[0]}, which "
                                "another wrote; put --run on a disk that all nodes share")
            record = {"step": step, "facts": facts, "files": dict(sum(sums, [])),
                      "moved": [n for n, p in trained.items() if p in optimizer.state]}

            def finish() -> None:
                write_json(aside / RECORD, record)
                stack.close()  # publish: onto the disk, then the name

            by_all(finish if first() else lambda: None)
        if saving.done and first():
            with keep_going("the removal of an old state"):
                for old in states_in(self.folder)[: -self.keep]:
                    discard(old)
        return saving.done

    def facts(self) -> dict[str, Any] | None:
        """What the newest state was saved with, and its "step"; None if there is no state.

        Raises:
            UserError: it is damaged.
        """
        found = by_first(self._newest)
        return found and {**found[1]["facts"], "step": found[1]["step"]}

    def load(self, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer
             ) -> dict[str, Any] | None:
        """The newest state into these tensors, in place. Returns what `facts` does.

        Before the first forward: FSDP would go on with what it has gathered.

        Raises:
            UserError: the state is damaged.
        """
        found = by_first(self._newest)
        if found is None:
            return None
        path, record = found
        names = sorted(record["files"])
        part = share(len(names))
        bad = [name for name, x in everyone(checksums(path, names[part.start : part.stop]))
               if x != record["files"][name]]
        if bad:
            raise damaged(path, f"{bad[0]} is not what was written")
        make_room(optimizer, [trained[name] for name in record["moved"] if name in trained])
        try:
            quietly(dcp.load, state_of(trained, optimizer),
                    storage_reader=dcp.FileSystemReader(path))
        except CheckpointException as error:
            raise damaged(path, str(cause(error)).partition("\n")[0]) from None
        return self.facts()

    def room(self, trained: dict[str, Tensor], goes_on: bool) -> int:
        """Bytes of disk for the states to come, of which the oldest goes after the newest is there.

        Args:
            goes_on: those that are there are this run's.
        """
        there = len(states_in(self.folder)) if goes_on else 0
        return bool(self.every) * max(1, self.keep + 1 - there) * BYTES * sum(
            p.numel() for p in trained.values())

    def _newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The folder and its record; what a crash has left is removed."""
        for left in self.folder.glob(".step-*.*"):
            recover(self.folder / left.name.split(".")[1])
        whole = states_in(self.folder)
        if not whole:
            return None
        try:
            return whole[-1], json.loads((whole[-1] / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise damaged(whole[-1], f"{RECORD}: {error}") from None


def states_in(folder: Path) -> list[Path]:
    """The oldest first. What a person keeps beside them (step-000100.bak) is none."""
    return sorted((path for path in folder.glob("step-*") if path.name[5:].isdecimal()),
                  key=lambda path: int(path.name[5:]))


def state_of(trained: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What is saved, by name: the weights, and what AdamW keeps of those that it has moved."""
    return {f"weight.{name}": p.detach() for name, p in trained.items()} | {
        f"{key}.{name}": x for name, p in trained.items() if p in optimizer.state
        for key, x in optimizer.state[p].items()}


def finite(x: Tensor) -> bool:
    """No NaN and no infinity in what this process holds of it."""
    part = x.to_local() if isinstance(x, DTensor) else x
    return bool(part.isfinite().all())


def make_room(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """A state for what will be read, as AdamW itself makes it: fused, capturable, sharded or not.

    It makes one only in a step; with gradients and rates of 0 that moves no weight.
    """
    for p in parameters:
        p.grad = torch.zeros_like(p)
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer.zero_grad()


def write(folder: Path, state: dict[str, Tensor]) -> list[str]:
    """Each process its part; returns the files of all.

    Raises:
        what failed on any process, on each.
    """
    try:
        done = quietly(dcp.save, state, storage_writer=dcp.FileSystemWriter(folder))
    except CheckpointException as error:
        raise cause(error) from None
    return sorted({".metadata", *(part.relative_path for part in done.storage_data.values())})


def written_here(name: str) -> bool:
    """Is that file this process's? The table of contents is the first one's."""
    return name.startswith(f"__{rank()}_") or name == ".metadata" and first()


def quietly(do: Callable[..., T], *args: Any, **options: Any) -> T:
    """`torch.distributed.checkpoint` without its warning that a process is alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return do(*args, **options, no_dist=not dist.is_initialized())


def cause(error: CheckpointException) -> BaseException:
    """The first process's error; torch hides it, Ctrl-C too, in one that is no `Exception`."""
    return error.failures[min(error.failures)][0]


def damaged(path: Path, why: str) -> UserError:
    rest = len(states_in(path.parent)) > 1
    return UserError(f"{path} is damaged ({why}); delete it: "
                     + ("the one before is used then" if rest else "the run begins anew then"))


def by_all(work: Callable[[], T]) -> list[T]:
    """Each process's result. Who meets a disk that fails would leave the others waiting.

    Raises:
        OSError: of the first that met one, on each.
    """
    try:
        mine = work(), None
    except OSError as error:
        mine = None, error
    every = everyone([mine])
    for _, error in every:
        if error is not None:
            raise error
    return [result for result, _ in every]


def checksums(folder: Path, names: Iterable[str]) -> list[tuple[str, int | None]]:
    """CRC-32 of files, None of one that cannot be read: torch checks none while it reads."""
    found: list[tuple[str, int | None]] = []
    for name in names:
        try:
            x = 0
            with (folder / name).open("rb") as file:
                while block := file.read(16 * MIB):
                    x = zlib.crc32(block, x)
        except OSError:
            x = None
        found.append((name, x))
    return found

"""What machines do to a run: kills, full disks, half a file, a process that is gone."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import resume

from accidents.outcome import ON, WEIGHTS, Outcome, Place, copy, end_of, halve, play, unlike, until

ROUNDING = 1e-5  # of a weight, between numbers of processes
DISK = 120  # MB
FILE = 1 << 16  # bytes of a file, where no small disk can be mounted


def killed(place: Place) -> Outcome:
    """SIGKILL while the best model is written, while a state is, and after a random step."""
    run, rng = place.root / "killed", np.random.default_rng(0)
    kills = [resume.live(run, place.options + ON, kind, rng) for kind in ("best", "state", "row")]
    end = play(run, place.options + ON)
    return Outcome("SIGKILL three times: writing the best, writing a state, at random",
                   f"{sum(kills)} hit; --resume ended with {end.status}",
                   end.line("going on after step"), unlike(run, place.plain))


def full_disk(place: Place) -> Outcome:
    """The disk is full from the middle to the end of a run, then there is room again."""
    disk, run, ballast = (place.root / name for name in ("disk", "full", "disk/ballast"))
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "none", str(disk)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        return limited(place, "full")
    (disk / "run").mkdir()
    run.symlink_to(disk / "run")  # its log lies outside

    def fill(process: subprocess.Popen) -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 12)):
                    pass
            except OSError:  # full
                return

    try:
        return out_of_room(place, run, fill, ballast.unlink, f"a full disk (tmpfs of {DISK} MB)")
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def limited(place: Place, name: str = "limited") -> Outcome:
    """As a full disk, for files of any size worth a word: RLIMIT_FSIZE of the running process."""
    def fill(process: subprocess.Popen) -> None:
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE, hard))

    return out_of_room(place, place.root / name, fill, lambda: None,
                       f"no file may grow beyond {FILE >> 10} kB (RLIMIT_FSIZE)")


def out_of_room(place: Place, run: Path, fill: Callable[[subprocess.Popen], None],
                free: Callable[[], object], what: str) -> Outcome:
    """From the third step to the end of the run nothing large can be written."""
    (process,) = resume.launch(run, place.options)
    until(run, 4, process)
    process.send_signal(signal.SIGSTOP)
    fill(process)
    had = {row["step"] for row in resume.rows_of(run)}
    process.send_signal(signal.SIGCONT)
    end, rows = end_of(run, [process]), {row["step"] for row in resume.rows_of(run)}
    lost = [f"the run ended with {end.status}"] * (end.status != 0)
    lost += [f"row {s}, earlier than that" for s in had - rows]
    lost += [f"row {s}, and nobody was told" for s in range(resume.rows_of(place.plain)[-1]["step"])
             if s not in rows and f"the row of step {s} is not saved" not in end.said]
    free()
    again = play(run, place.options + ON)
    count = end.said.count("is not saved")
    return Outcome(f"{what}, from step 3 on",
                   f"the run went on to its end, {count} files were not saved; with room again, "
                   f"{again.line('going on after') or 'it begins anew'}",
                   end.line("the state of step .* not saved"), lost + unlike(run, place.plain))


def state_cut(place: Place) -> Outcome:
    """The newest state of a run lacks half of its bytes."""
    run = copy(place, "cut")
    newest = run / "resume" / f"step-{resume.states(run)[-1]:06d}"
    halve(*newest.glob("*.distcp"))
    end = play(run, place.options + ON)
    lost = ["refused, but something was moved"] * any(run.glob("before-*"))
    shutil.rmtree(newest)
    return as_told(place, run, "the newest state cut in half, then --resume",
                   f"refused with {end.status}; after `rm` as told", end.line("is damaged"), lost)


def best_cut(place: Place) -> Outcome:
    """The best checkpoint lacks half of its bytes while the run is away."""
    run = copy(place, "best")
    shutil.rmtree(run / "resume" / f"step-{resume.states(run)[-1]:06d}")
    halve(run / "rapo" / WEIGHTS)
    end = play(run, place.options + ON)
    lost = ["steps were made before it was told"] * (len(resume.states(run)) > 1)
    shutil.copyfile(place.plain / "rapo" / WEIGHTS, run / "rapo" / WEIGHTS)
    return as_told(place, run, "the best checkpoint's safetensors cut in half, then --resume",
                   f"refused with {end.status}; with the file back", end.line("^train_rapo.py: "),
                   lost)


def as_told(place: Place, run: Path, what: str, refused: str, told: str, lost: list[str]
            ) -> Outcome:
    """The remedy of the refusal is done: --resume ends as the undisturbed run did."""
    again = play(run, place.options + ON)
    return Outcome(what, f"{refused}: {again.line('going on after step')}", told,
                   lost + unlike(run, place.plain))


def rank_killed(place: Place) -> Outcome:
    """One of two processes under torchrun is killed in the middle of a run."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--",
                *resume.SCRIPT)
    run = place.root / "torchrun"
    (agent,) = resume.launch(run, place.options, start=torchrun)
    until(run, 4, agent)
    os.kill(worker_of(agent.pid, rank=1), signal.SIGKILL)
    begun = time.monotonic()
    end = end_of(run, [agent])
    took = time.monotonic() - begun
    again = play(run, place.options + ON, start=torchrun)
    return Outcome("SIGKILL of process 1 of 2 under torchrun",
                   f"all ended after {took:.1f} s with {end.status}; --resume: "
                   + again.line("going on after step"),
                   end.line("another process has ended") or end.line(r"Signal 9 \(SIGKILL\)"),
                   nearly(run, place.plain))


def first_killed(place: Place) -> Outcome:
    """The first of two processes is killed, and no torchrun looks after the other."""
    run = place.root / "alone"
    first, second = resume.launch(run, place.options, 2)
    until(run, 4, first)
    first.kill()
    begun = time.monotonic()
    end = end_of(run, [second])
    took = time.monotonic() - begun
    first.wait()
    again = play(run, place.options + ON)
    return Outcome("SIGKILL of process 0 of 2, without torchrun",
                   f"the other ended after {took:.1f} s with {end.status}; --resume, alone: "
                   + again.line("going on after step"),
                   end.line("another process has ended"), nearly(run, place.plain))


def worker_of(agent: int, rank: int) -> int:
    """The process of that rank among a torchrun's children."""
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise ProcessLookupError(f"torchrun {agent} has no process {rank}")


def nearly(run: Path, plain: Path) -> list[str]:
    """As `unlike`, of a run whose numbers differ by rounding."""
    if resume.states(run) != resume.states(plain):
        return [f"states {resume.states(run)}"]
    gap = resume.furthest(resume.tensors(run), resume.tensors(plain))
    steps = [row["step"] for row in resume.rows_of(run)]
    return [f"weights differ by {gap:.1e}"] * (gap > ROUNDING) + [f"steps {steps}"] * (
        steps != [row["step"] for row in resume.rows_of(plain)])

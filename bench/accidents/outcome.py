"""What an accident has done, and what the drills share: a place, a run that nobody disturbed."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import resume

WEIGHTS = "model.safetensors"
ON = ["--resume", "true"]
SOON = 300  # seconds within which a process has to have ended


@dataclass
class Outcome:
    """Of one accident."""

    what: str  # was done
    happened: str
    told: str  # the line that the user was told; empty: none
    lost: list[str] = field(default_factory=list)  # results and steps, beyond what is promised


@dataclass
class Place:
    """Where the drills are played. `plain`: the run, with a log beside it, that all began as."""

    root: Path
    options: list[str]
    plain: Path


@dataclass
class End:
    """How a process ended."""

    status: int
    said: str

    def line(self, words: str) -> str:
        """The first line with that pattern, or empty."""
        return next((x.strip() for x in self.said.splitlines() if re.search(words, x)), "")


def log_of(run: Path) -> str:
    """All that the processes of a run have said."""
    return run.with_suffix(".log").read_text(errors="replace")


def end_of(run: Path, processes: list[subprocess.Popen], before: int = 0) -> End:
    """Wait for them. before: characters of the log that are an earlier start's."""
    try:
        codes = [process.wait(timeout=SOON) for process in processes]
    except subprocess.TimeoutExpired:
        codes = [-1]
        for process in processes:
            process.kill()
            process.wait()
    return End(next(filter(None, codes), 0), log_of(run)[before:])


def play(run: Path, options: list[str], start: tuple[str, ...] = resume.SCRIPT) -> End:
    """Start, or go on, to the end."""
    before = len(log_of(run)) if run.with_suffix(".log").exists() else 0
    return end_of(run, resume.launch(run, options, start=start), before)


def until(run: Path, rows: int, process: subprocess.Popen) -> None:
    """Wait for that many rows of metrics.jsonl."""
    while len(resume.rows_of(run)) < rows:
        if process.poll() is not None:
            sys.exit(f"{run} has ended too soon:\n{log_of(run)[-2000:]}")
        time.sleep(0.002)


def unlike(run: Path, plain: Path) -> list[str]:
    """What is lost if a run's end is not, to the bit, the undisturbed one's."""
    steps = [row["step"] for row in resume.rows_of(run)]
    wanted = [row["step"] for row in resume.rows_of(plain)]
    if steps != wanted:
        return [f"steps {steps} instead of {wanted}"]
    return [] if resume.same_bits(run, plain) else ["other bits than the undisturbed run's"]


def copy(place: Place, name: str) -> Path:
    """A run that ends as the undisturbed one did, to be damaged."""
    shutil.copytree(place.plain, run := place.root / name)
    return run


def halve(*files: Path) -> None:
    """Cut each in half."""
    for file in files:
        os.truncate(file, file.stat().st_size // 2)

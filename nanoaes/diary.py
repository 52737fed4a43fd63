"""What a run writes while it goes: a row a step, answers now and then, the report as it grows.

    RUN/metrics.jsonl       every step's numbers, with the seconds of its phases and its memory
    RUN/completions.jsonl   every --log_every-th step's answers and what each was rewarded
    RUN/report.html         again at each look at held-out pictures, so that a run can be watched

Only the first process writes; a disk that fails costs a row and a line, not the run.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from nanoaes.checkpoint import append_row, append_rows
from nanoaes.clock import Clock, peak_memory, throughput
from nanoaes.completions import rows_of
from nanoaes.config import RAPOConfig
from nanoaes.data import Example
from nanoaes.judge import Judged
from nanoaes.parallel import everyone, first, most, size
from nanoaes.progress import say
from nanoaes.runs import keep_going
from nanoaes.tracker import Tracker


class Diary:
    """Of one run; `clock` times its phases."""

    def __init__(self, cfg: RAPOConfig, device: torch.device, draw: Callable[[int], object],
                 begun: int = 0):
        """
        Args:
            draw: (steps of the whole run) -> writes the report.
            begun: the step that the run goes on after.
        Raises:
            UserError: --tracker's package is not there.
        """
        self.run, self.every, self.device, self.draw = Path(cfg.run), cfg.log_every, device, draw
        self.clock = Clock(device)
        self.tracker = Tracker(cfg.tracker if first() else "none", self.run, asdict(cfg), begun)

    def note(self, row: dict, *, of: int, tokens: int, batch: list[Example], judged: Judged,
             advantage: Tensor) -> None:
        """The end of a step, of all processes.

        Args:
            row: its numbers so far; seconds, speed and memory are added.
            of: steps of the whole run.
            tokens: this process's, prompts and answers, a prompt once for each answer.
        """
        seconds = self.clock.row()
        row |= seconds | throughput(seconds, tokens=sum(everyone([tokens])), devices=size())
        row["peak_memory"] = most(peak_memory(self.device))
        if not first():
            return
        with keep_going(f"the row of step {row['step']}", say):
            append_row(self.run / "metrics.jsonl", row)
            self.tracker.log(row)
        if self.every and row["step"] % self.every == 0:
            with keep_going(f"the answers of step {row['step']}", say):
                append_rows(self.run / "completions.jsonl",
                            rows_of(row["step"], batch, judged, advantage))
        if "eval_score" in row:
            with keep_going("the report", say):
                self.draw(of)

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

from nanoaes.anatomy import anatomy
from nanoaes.checkpoint import append_row, append_rows
from nanoaes.clock import Clock, peak_memory, throughput
from nanoaes.completions import rows_of
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.inputs import Prompts
from nanoaes.judge import Judged
from nanoaes.parallel import everyone, first, most, size
from nanoaes.rollout import Rollouts
from nanoaes.roofline import card_of, model_flops
from nanoaes.runs import keep_going
from nanoaes.tracker import Tracker
from nanoaes.vlm import VLM


class Diary:
    """Of one run; `clock` times its phases."""

    def __init__(self, cfg: RAPOConfig, vlm: VLM, draw: Callable[[int], object], begun: int = 0):
        """
        Args:
            vlm: who answers.
            draw: (steps of the whole run) -> writes the report.
            begun: the step that the run goes on after.
        Raises:
            UserError: --tracker's package is not there.
        """
        self.run, self.cfg, self.draw = Path(cfg.run), cfg, draw
        # Not the model, which must be gone when the stages are evaluated.
        self.device, self.image_id = vlm.device, vlm.image_id
        self.clock, self.anatomy = Clock(vlm.device), anatomy(vlm.hf.config)
        on_gpu = vlm.device.type == "cuda" and cfg.dtype == "bfloat16"
        card = card_of(torch.cuda.get_device_name(vlm.device)) if on_gpu else None
        self.peak = card and card.peak
        self.tracker = Tracker(cfg.tracker if first() else "none", self.run, asdict(cfg), begun)

    def note(self, row: dict, *, of: int, prompts: Prompts, rolls: Rollouts, batch: list[Example],
             judged: Judged, advantage: Tensor) -> None:
        """The end of a step, of all processes.

        Args:
            row: its numbers so far; seconds, speed and memory are added.
            of: steps of the whole run.
            prompts, rolls: this process's share; the rest is the whole step's.
        """
        seconds = self.clock.row()
        # A prompt counts with each of its answers, as verl and EasyR1 count.
        tokens = int(rolls.mask.shape[1] * prompts.mask.sum() + rolls.mask.sum())
        done = everyone([(tokens, self.flops(prompts, rolls))])
        row |= seconds | throughput(seconds, tokens=sum(n for n, _ in done), devices=size(),
                                    flops=sum(f for _, f in done), peak=self.peak)
        row["peak_memory"] = most(peak_memory(self.device))
        if not first():
            return
        with keep_going(f"the row of step {row['step']}"):
            append_row(self.run / "metrics.jsonl", row)
            self.tracker.log(row)
        if self.cfg.log_every and row["step"] % self.cfg.log_every == 0:
            with keep_going(f"the answers of step {row['step']}"):
                append_rows(self.run / "completions.jsonl",
                            rows_of(row["step"], batch, judged, advantage))
        if "eval_score" in row:
            with keep_going("the report"):
                self.draw(of)

    def flops(self, prompts: Prompts, rolls: Rollouts) -> float:
        """What the model itself needs for this process's share of a step."""
        n, k, _ = rolls.mask.shape
        images = prompts.ids == self.image_id
        return model_flops(self.anatomy, pictures=n, prompt=int(prompts.mask.sum()) / n,
                           picture=int(images.sum()) / n, answer=int(rolls.mask.sum()) / (n * k),
                           k=k, vision=self.cfg.train_vision, lora=bool(self.cfg.lora_rank),
                           reference=bool(self.cfg.beta), updates=self.cfg.updates)

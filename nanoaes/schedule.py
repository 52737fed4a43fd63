"""How many steps, and each one's learning rate: functions of options and step, without state."""

import math
from collections.abc import Callable

from nanoaes.config import RAPOConfig
from nanoaes.progress import say
from nanoaes.sampler import StepSampler


def total_steps(cfg: RAPOConfig, sampler: StepSampler) -> int:
    """--epochs or --steps as steps; says what they are in passes over the pictures."""
    steps = math.ceil(cfg.epochs * sampler.epoch_size / cfg.images) or cfg.steps
    say(f"RAPO: {steps} steps of {cfg.images} pictures x {cfg.k} answers, "
        f"{steps * cfg.images / sampler.epoch_size:.1f} passes over {sampler.epoch_size} pictures")
    return steps


def learning_rate(cfg: RAPOConfig, step: int, steps: int) -> float:
    """Linear warm-up, then from the full rate linearly to 0."""
    # differs from the paper: it names no warm-up; a tiny model's first Adam steps need one.
    if step < cfg.warmup:
        return cfg.lr * (step + 1) / (cfg.warmup + 1)
    return cfg.lr * (steps - step) / (steps - cfg.warmup)


def cosine(peak: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """Step -> learning rate: linear warm-up that ends at the peak, then a half cosine to 0."""
    def lr_at(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    return lr_at

"""Learning rates, as functions of the step alone: resuming needs no state of a scheduler."""

import math
from collections.abc import Callable

from nanoaes.config import RAPOConfig


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

"""RAPO's rewards: relative (does it rank?), absolute (does it score?), format (can it be read?).

All functions work on one step's scores: N images, K rollouts each. `valid` marks the rollouts whose
answer could be read; an unreadable one gets reward 0 from the score rewards and is left out of
every mean and variance, so it changes no other rollout's reward. The relative reward compares
images of the same data set only, because raters of two sets use the scale differently.
Give scores in fp64: near Phi = 0 or 1 rounding in fp32 moves an advantage by several per cent.
Left out: the paper's constant eps in the absolute reward, which cancels in the advantage.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GAMMA = 1e-6  # keeps the Thurstone variance above zero (the released code's value)


@dataclass
class Truth:
    """What people said of a step's images."""

    score: Tensor  # (N,) in [0, 1]
    std: Tensor | None  # (N,) the raters' spread in [0, 1]; NaN marks an image without one
    group: Tensor  # (N,) int, the data set of each image


@dataclass
class Rewards:
    """All (N, K); the parts are unweighted, `total` is what the advantage is made of."""

    relative: Tensor  # [0, 1]
    absolute: Tensor  # [0, 1]
    format: Tensor  # {0, 1}
    total: Tensor


def normal_cdf(x: Tensor) -> Tensor:
    """Phi, the standard normal distribution function."""
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def preference(truth: Tensor, truth_std: Tensor | None = None, ties: str = "half") -> Tensor:
    """p_c(i, j): how surely people prefer image i to image j.

    Args:
        truth: (N,) in [0, 1].
        truth_std: (N,) the raters' spread in [0, 1]; with it the preference is soft,
            Phi((s_i − s_j) / sqrt(std_i² + std_j²)); NaN marks an image without a spread.
        ties: "half" or "paper".
    Returns:
        (N, N) in [0, 1].
    Raises:
        ValueError: another `ties`.
    """
    if ties not in ("half", "paper"):
        raise ValueError(f"ties {ties!r}: choose half or paper")
    difference = truth[:, None] - truth[None, :]
    # p_c(i,j) = 1 if s_i >= s_j, else 0
    # differs from the paper: a tie counts ½; the paper's rule lets both sides win.
    tie = 0.5 if ties == "half" else 1.0
    hard = torch.where(difference == 0, tie, (difference > 0).to(truth.dtype))
    if truth_std is None:
        return hard
    variance = truth_std[:, None] ** 2 + truth_std[None, :] ** 2
    soft = normal_cdf(difference / (variance + GAMMA).sqrt())
    return torch.where(variance.isnan(), hard, soft)


def relative_reward(scores: Tensor, valid: Tensor, truth: Truth, ties: str = "half") -> Tensor:
    """r_rel: does this rollout's score put its image on the right side of the others?

    Args:
        scores: (N, K) parsed scores; any number where not valid.
        valid: (N, K) bool.
        truth: only images of one group are compared; with `std`, see `preference`.
    Returns:
        (N, K) in [0, 1]; 0 where not valid, and for an image without a partner in its group.
    """
    n_valid = valid.sum(1)  # (N,)
    scores = torch.where(valid, scores, 0)
    # mu_j = mean_k o_jk
    mu = scores.sum(1) / n_valid.clamp(min=1)
    # var_j = variance over k, unbiased; a single readable rollout has none (0, not NaN)
    squares = torch.where(valid, (scores - mu[:, None]) ** 2, 0).sum(1)
    var = squares / (n_valid - 1).clamp(min=1)
    # p_ik(i,j) = Phi((o_ik − mu_j) / sqrt(var_i + var_j + gamma))                     (Thurstone)
    spread = (var[:, None] + var[None, :] + GAMMA).sqrt()  # (N, N)
    p = normal_cdf((scores[:, :, None] - mu) / spread[:, None, :])  # (N, K, N)
    p_c = preference(truth.score, truth.std, ties)[:, None, :]  # (N, 1, N)
    # r_rel(o_ik) = 1/(N−1) · sum_{j≠i} [ sqrt(p_c p_ik) + sqrt((1−p_c)(1−p_ik)) ]     (fidelity)
    fidelity = (p_c * p).sqrt() + ((1 - p_c) * (1 - p)).sqrt()
    partner = (truth.group[:, None] == truth.group[None, :]) & (n_valid > 0)[None, :]
    # differs from the paper: only images of one data set are compared (raters of two sets use the
    # scale differently), and an image without a readable answer is no partner; N counts the rest.
    partner.fill_diagonal_(False)  # j ≠ i
    count = partner.sum(1).clamp(min=1)[:, None]
    return torch.where(valid, (fidelity * partner[:, None, :]).sum(2) / count, 0)


def absolute_reward(scores: Tensor, valid: Tensor, truth: Tensor, sigma: float = 0.1) -> Tensor:
    """r_abs: how near the score is to people's. (N, K), (N, K), (N,) -> (N, K) in [0, 1]."""
    # differs from the paper: without its + eps, which cancels in the advantage.
    # r_abs(o_ik) = exp(−½ (|o_ik − s_i| / sigma)²)
    error = (scores - truth[:, None]).abs()
    return torch.where(valid, torch.exp(-0.5 * (error / sigma) ** 2), 0)


def rewards(scores: Tensor, valid: Tensor, well_formed: Tensor, truth: Truth, *,
            w_relative: float, w_absolute: float, w_format: float, sigma: float, ties: str
            ) -> Rewards:
    """r = w_rel · r_rel + w_abs · r_abs + w_fmt · r_fmt; a weight of 0 switches a part off.

    Args:
        well_formed: (N, K) bool, the text has exactly the form asked for.
        others: as in `relative_reward` and `absolute_reward`.
    """
    relative = relative_reward(scores, valid, truth, ties)
    absolute = absolute_reward(scores, valid, truth.score, sigma)
    # differs from the paper: the format reward is in its released code only.
    form = well_formed.to(scores.dtype)
    total = w_relative * relative + w_absolute * absolute + w_format * form
    return Rewards(relative, absolute, form, total)

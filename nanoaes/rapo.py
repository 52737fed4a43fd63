"""RAPO's update: advantage within each image's group, clipped ratio, KL to the reference, loss.

The relative and the absolute reward meet in one number per rollout (`reward.py`); from there RAPO
is GRPO with an asymmetric clip ("clip-higher"). Tensors of tokens are flat: (M,), the completion
tokens of all rollouts one after another, without prompts and padding.
Left out: a critic, a KL term inside the reward, several epochs' sampling corrections.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FLAT = 1e-6  # a group whose rewards differ by less has nothing to teach


@dataclass
class LossStats:
    """Weighted sums over tokens; they add up over micro-batches to the step's means."""

    loss: Tensor
    kl: Tensor
    clip_low: Tensor
    clip_high: Tensor


def advantages(reward: Tensor, scale: str = "std") -> tuple[Tensor, Tensor]:
    """A_ik: how much better a rollout is than its siblings.

    Args:
        reward: (N, K), K >= 2.
        scale: "std" as in the paper, or "none" (Dr. GRPO: no division by the spread).
    Returns:
        advantage (N, K) and flat (N,) bool, the groups without spread; those get advantage 0,
        because fp32 residue over a tiny std would explode.
    Raises:
        ValueError: K = 1, or another `scale`.
    """
    if reward.shape[1] < 2:
        raise ValueError("K = 1: a group of one rollout has no advantage; use K >= 2")
    if scale not in ("std", "none"):
        raise ValueError(f"advantage scale {scale!r}: choose std or none")
    flat = reward.amax(1) - reward.amin(1) < FLAT
    # A_ik = (r_ik − mean_k r_i) / std_k r_i, unbiased std, + 1e-4
    centred = reward - reward.mean(1, keepdim=True)
    if scale == "std":
        centred = centred / (reward.std(1, keepdim=True) + 1e-4)
    # differs from the paper: a group without spread gets 0, not residue / 1e-4.
    return torch.where(flat[:, None], 0, centred), flat


def token_loss(logp: Tensor, logp_old: Tensor, logp_ref: Tensor, advantage: Tensor,
               eps_low: float, eps_high: float, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The objective of one token, negated. All tensors (M,) fp32.

    Returns:
        loss, ratio, kl, each (M,); loss and kl carry the gradient to `logp`.
    """
    # ratio_t = pi_theta / pi_old
    ratio = torch.exp(logp - logp_old)
    # min(ratio·A, clip(ratio, 1−eps_low, 1+eps_high)·A)
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    # KL = k3 = exp(ref−logp) − (ref−logp) − 1
    # differs from the paper: clamped, because a token that the policy never saw overflows exp.
    difference = (logp_ref - logp).clamp(-20, 20)
    kl = difference.exp() - difference - 1
    # min(…) − beta·KL is maximised
    return -(objective - beta * kl), ratio, kl


def rapo_loss(logp: Tensor, logp_old: Tensor, logp_ref: Tensor, advantage: Tensor, weight: Tensor,
              eps_low: float, eps_high: float, beta: float,
              token_loss: Callable = token_loss) -> LossStats:
    """Mean over rollouts of the per-sequence token mean, as a weighted sum.

    Args:
        token_loss: the definition above, or `kernels.fused_token_loss`, its one-pass version.
        weight: (M,) 1 / (tokens of this rollout · rollouts of the whole step), so that the
            gradient is the same for any split into micro-batches or ranks.
    """
    loss, ratio, kl = token_loss(logp, logp_old, logp_ref, advantage, eps_low, eps_high, beta)
    low = (ratio < 1 - eps_low) & (advantage < 0)  # where the clip really stops the gradient
    high = (ratio > 1 + eps_high) & (advantage > 0)
    with torch.no_grad():
        kl, low, high = ((weight * x).sum() for x in (kl, low, high))
    return LossStats((weight * loss).sum(), kl, low, high)


def token_weights(mask: Tensor) -> Tensor:
    """(N, K, T) bool -> (N, K, T): 1 / (tokens of the rollout · N·K), for the whole step."""
    lengths = mask.sum(2, keepdim=True).clamp(min=1)
    return mask / (lengths * mask.shape[0] * mask.shape[1])

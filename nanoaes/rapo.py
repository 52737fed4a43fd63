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
class Tokens:
    """What is known of a step's completion tokens before the update, each (M,) fp32."""

    logp_old: Tensor  # of the policy that answered
    logp_ref: Tensor  # of the cold-started model
    advantage: Tensor  # of the token's rollout
    weight: Tensor  # from `token_weights`


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


def token_loss(logp: Tensor, logp_old: Tensor, logp_ref: Tensor, advantage: Tensor, *,
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


def rapo_loss(logp: Tensor, tokens: Tokens, *, eps_low: float, eps_high: float, beta: float,
              token_loss: Callable = token_loss) -> dict[str, Tensor]:
    """Mean over rollouts of the per-sequence token mean, as a weighted sum.

    Args:
        logp: (M,) of the policy as it is; carries the gradient.
        token_loss: the definition above, or `kernels.fused_token_loss`, its one-pass version.
    Returns:
        scalars that add up over micro-batches to the step's means: loss (carries the gradient),
        kl, and clip_low and clip_high, the shares of tokens whose gradient a clip stops.
    """
    loss, ratio, kl = token_loss(logp, tokens.logp_old, tokens.logp_ref, tokens.advantage,
                                 eps_low=eps_low, eps_high=eps_high, beta=beta)
    with torch.no_grad():
        # min(…) takes the clipped side, which has no gradient, only here:
        low = (ratio < 1 - eps_low) & (tokens.advantage < 0)
        high = (ratio > 1 + eps_high) & (tokens.advantage > 0)
        stats = {"kl": kl, "clip_low": low, "clip_high": high}
        sums = {name: (tokens.weight * x).sum() for name, x in stats.items()}
    return {"loss": (tokens.weight * loss).sum(), **sums}


def token_weights(mask: Tensor, counted: Tensor | None = None, n_counted: Tensor | None = None
                  ) -> Tensor:
    """1 / (tokens of the rollout · rollouts of the step), so that a weighted sum is the mean over
    rollouts of the token mean, and the gradient the same for any split into micro-batches.

    Args:
        mask: (N, K, T) bool.
        counted: (N, K) bool, the rollouts that the loss is made of; None: all.
        n_counted: how many those are in the whole step; None: these are all of it.
    Returns:
        (N, K, T), 0 where masked or not counted.
    """
    if counted is None:
        counted = torch.ones_like(mask[:, :, 0])
    n_counted = counted.sum() if n_counted is None else n_counted
    lengths = mask.sum(2, keepdim=True).clamp(min=1)
    return mask * counted[..., None] / (lengths * n_counted.clamp(min=1))


def rollout_gap(logp: Tensor, sampled: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """|log-prob in training − when sampled| of the same weights: mean, maximum, share above .05.

    What it is above rounding, the ratio is wrong by.
    """
    gap = (logp - sampled).abs()
    return {"rollout_gap": (weight * gap).sum(), "rollout_gap_max": gap.max(),
            "rollout_gap_share": (weight * (gap > 0.05)).sum()}


def add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    """A micro-batch's numbers to the step's, on the device: sums, and one maximum."""
    for name, x in more.items():
        x = x.detach()
        join = torch.maximum if name.endswith("_max") else torch.add
        sums[name] = join(sums[name], x) if name in sums else x

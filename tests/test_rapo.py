"""Advantage, clip, KL and loss against slow derivations, autograd and finite differences."""

import math

import pytest
import torch

from nanoaes.rapo import Tokens, advantages, rapo_loss, token_loss, token_weights

CLIP = dict(eps_low=0.2, eps_high=0.28)


def test_advantage_equals_the_formula() -> None:
    reward = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    ours, flat = advantages(reward)
    for i, row in enumerate(reward.tolist()):
        mean = sum(row) / 4
        std = math.sqrt(sum((r - mean) ** 2 for r in row) / 3)
        for k, r in enumerate(row):
            assert float(ours[i, k]) == pytest.approx((r - mean) / (std + 1e-4), rel=1e-4)
    assert not flat.any()
    assert torch.allclose(advantages(reward, "none")[0], reward - reward.mean(1, keepdim=True))


def test_a_group_without_spread_gets_nothing_and_is_counted() -> None:
    reward = torch.tensor([[1.7, 1.7, 1.7 + 1e-7], [0.1, 0.2, 0.3]])
    advantage, flat = advantages(reward)
    assert flat.tolist() == [True, False] and (advantage[0] == 0).all()


def test_one_rollout_is_an_error() -> None:
    with pytest.raises(ValueError, match="K = 1"):
        advantages(torch.zeros(3, 1))


def slow_loss(logp, old, ref, a, low, high, beta) -> float:
    ratio = math.exp(logp - old)
    clipped = min(max(ratio, 1 - low), 1 + high)
    kl = math.exp(ref - logp) - (ref - logp) - 1
    return -(min(ratio * a, clipped * a) - beta * kl)


def tokens(seed: int = 0, m: int = 40):
    g = torch.Generator().manual_seed(seed)
    draw = lambda scale: torch.randn(m, generator=g, dtype=torch.float64) * scale  # noqa: E731
    logp = -draw(1).abs()
    return logp, logp + draw(0.3), logp + draw(0.5), draw(1)


def test_token_loss_equals_the_formula() -> None:
    logp, old, ref, a = tokens()
    loss, _, _ = token_loss(logp, old, ref, a, **CLIP, beta=0.05)
    slow = [slow_loss(*x, 0.2, 0.28, 0.05) for x in
            zip(logp.tolist(), old.tolist(), ref.tolist(), a.tolist(), strict=True)]
    torch.testing.assert_close(loss, torch.tensor(slow, dtype=torch.float64))


def test_gradient_equals_finite_differences() -> None:
    logp, old, ref, a = tokens(1)
    inside = (logp - old).exp()
    keep = ((inside - 0.8).abs() > 1e-3) & ((inside - 1.28).abs() > 1e-3)  # away from the kinks
    logp, old, ref, a = (x[keep] for x in (logp, old, ref, a))
    logp.requires_grad_()
    w = torch.full_like(logp, 1 / len(logp))
    assert torch.autograd.gradcheck(
        lambda x: rapo_loss(x, Tokens(old, ref, a, w), **CLIP, beta=0.05)["loss"], (logp,),
        eps=1e-7, atol=1e-6)


def test_clip_higher_stops_the_right_gradients_and_counts_them() -> None:
    """Column by column: (ratio, A) -> does a gradient flow? Each column has a weight of its own."""
    ratio = torch.tensor([0.7, 0.7, 0.7, 0.7, 1.35, 1.35, 1.35, 1.35, 1.35, 1.35, 1.25, 0.85])
    a = torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0])
    flows = [False, False, True, True, False, False, False, True, True, True, True, True]
    logp = ratio.log().requires_grad_()
    tokens = Tokens(torch.zeros(12), logp.detach(), a, 2.0 ** torch.arange(12))
    stats = rapo_loss(logp, tokens, **CLIP, beta=0.0)
    stats["loss"].backward()
    assert (logp.grad != 0).tolist() == flows
    assert stats["clip_low"] == 2**0 + 2**1 and stats["clip_high"] == 2**4 + 2**5 + 2**6
    swapped = rapo_loss(logp, tokens, eps_low=0.28, eps_high=0.2, beta=0.0)
    assert swapped["clip_low"] == 2**0 + 2**1
    assert swapped["clip_high"] == 2**4 + 2**5 + 2**6 + 2**10


def test_kl_is_never_negative_and_survives_an_unseen_token() -> None:
    logp = torch.tensor([-1.0, -200.0, -0.1])
    _, _, kl = token_loss(logp, logp, torch.tensor([-1.0, -0.1, -200.0]), torch.ones(3), **CLIP,
                          beta=0.01)
    assert kl[0] == 0 and (kl >= 0).all() and torch.isfinite(kl).all()


def test_weights_are_a_mean_over_rollouts_of_the_token_mean() -> None:
    mask = torch.arange(6) < torch.tensor([[[6], [2]], [[1], [3]], [[4], [5]]])
    value = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(0))
    per_rollout = [value[i, k][mask[i, k]].mean() for i in range(3) for k in range(2)]
    assert torch.allclose((token_weights(mask) * value).sum(), torch.stack(per_rollout).mean())


def test_rollouts_that_do_not_count_leave_the_mean() -> None:
    mask = torch.arange(6) < torch.tensor([[[6], [2]], [[1], [3]], [[4], [5]]])
    counted = torch.tensor([[True, False], [True, True], [False, True]])
    value = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(0))
    kept = [value[i, k][mask[i, k]].mean() for i in range(3) for k in range(2) if counted[i, k]]
    assert torch.allclose((token_weights(mask, counted) * value).sum(), torch.stack(kept).mean())
    assert (token_weights(mask, torch.zeros_like(counted)) == 0).all()

"""RAPO's loss and gradient are those of TRL's GRPO trainer on the same tensors.

TRL is a development package; without it these tests are skipped, and say so.
"""

from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from nanoaes.rapo import Tokens, advantages, rapo_loss, token_weights

trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed")
N, K, T = 3, 4, 7
CLIP = dict(eps_low=0.2, eps_high=0.28)


@pytest.fixture(autouse=True)
def in_double() -> Iterator[None]:
    """Weights are of the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(seed: int) -> dict[str, Tensor]:
    """Log-probs (N, K, T) of the policy, of the one that sampled, of the reference; lengths from 1
    to T; rewards (N, K)."""
    g = torch.Generator().manual_seed(seed)
    logp = -torch.rand(N, K, T, generator=g, dtype=torch.float64) * 3
    lengths = torch.randint(1, T + 1, (N, K, 1), generator=g)
    noise = torch.randn(2, N, K, T, generator=g, dtype=torch.float64) * 0.3
    return {"logp": logp, "old": logp + noise[0], "ref": logp + noise[1],
            "mask": torch.arange(T) < lengths,
            "reward": torch.rand(N, K, generator=g, dtype=torch.float64) * 3}


def trls(x: dict[str, Tensor], logp: Tensor, loss_type: str, beta: float, on_policy: bool,
         advantage: Tensor) -> tuple[Tensor, dict[str, list[float]]]:
    """TRL's own method on a trainer that has nothing but what it reads."""
    flat = lambda t: t.flatten(0, 1)  # noqa: E731
    metrics = {"train": defaultdict(list)}
    whole = SimpleNamespace(reduce=lambda t, reduction: t, gather=lambda t: t, num_processes=1)
    self = SimpleNamespace(
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", beta=beta, loss_type=loss_type,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        epsilon_low=CLIP["eps_low"], epsilon_high=CLIP["eps_high"], use_vllm=False,
        model=SimpleNamespace(training=True), current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False, _metrics=metrics, accelerator=whole,
        _get_per_token_logps_and_entropies=lambda *a, **k: (flat(logp), flat(logp) * 0, None))
    ids = torch.zeros(N * K, T, dtype=torch.long)
    inputs = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
              "completion_mask": flat(x["mask"]).long(), "advantages": advantage.flatten(),
              "old_per_token_logps": None if on_policy else flat(x["old"]),
              "ref_per_token_logps": flat(x["ref"])}
    return trainer.GRPOTrainer._compute_loss(self, None, inputs), metrics["train"]


@pytest.mark.parametrize("on_policy", [True, False], ids=["first update", "later updates"])
@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize("mean", ["per sequence", "per token"])
def test_loss_and_gradient(mean: str, beta: float, on_policy: bool) -> None:
    x = drawn(seed=5)
    mask, (advantage, _) = x["mask"], advantages(x["reward"])
    weight = token_weights(mask) if mean == "per sequence" else mask / mask.sum()
    old = x["logp"] if on_policy else x["old"]
    mine = x["logp"].clone().requires_grad_()
    tokens = Tokens(old[mask], x["ref"][mask], advantage[..., None].expand_as(mask)[mask],
                    weight[mask])
    ours = rapo_loss(mine[mask], tokens, **CLIP, beta=beta)
    theirs_logp = x["logp"].clone().requires_grad_()
    theirs, said = trls(x, theirs_logp, {"per sequence": "grpo", "per token": "bnpo"}[mean], beta,
                        on_policy, advantage)
    torch.testing.assert_close(ours["loss"], theirs, rtol=1e-12, atol=1e-14)
    ours["loss"].backward()
    theirs.backward()
    torch.testing.assert_close(mine.grad, theirs_logp.grad, rtol=1e-12, atol=1e-14)
    assert mine.grad.abs().sum() > 0 or (on_policy and not beta)
    if mean == "per token":  # its numbers are means over tokens
        for name, key in (("clip_low", "clip_ratio/low_mean"),
                          ("clip_high", "clip_ratio/high_mean")):
            assert float(ours[name]) == pytest.approx(said[key][0], rel=1e-6)
            assert (said[key][0] > 0) != on_policy
        if beta:
            assert float(ours["kl"]) == pytest.approx(said["kl"][0], rel=1e-6)

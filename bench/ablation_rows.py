"""The rows of `bench/ablation.py`: what each changes of RAPO, and what it is to tell.

An option where there is one; else a function that puts something into a module's place, for the
life of the process. `paid` and `by_spread` show how little it takes to try an idea.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import train_rapo  # noqa: E402
from nanoaes import reward  # noqa: E402

POOL = 8  # pictures that the released code compares, those of one GPU


@dataclass(frozen=True)
class Row:
    """One change."""

    why: str  # what of the paper, or of a reviewer's question, it tells
    options: dict[str, Any] = field(default_factory=dict)  # in words {run}, {test_in}, {test_ood}
    change: Callable[[], None] | None = None  # of code that no option reaches
    epochs: int | None = None  # of the cold start; None: the base's


def binary() -> None:
    """1 within sigma of people's score, else 0, in the absolute reward's place."""
    def near(scores, valid, truth, sigma=0.1):
        return (valid & ((scores - truth[:, None]).abs() <= sigma)).to(scores.dtype)
    reward.absolute_reward = near


def margin() -> None:
    """Score differences are fitted: exp(−½ ((o_ik − mu_j − (s_i − s_j)) / .1)²), mean over j."""
    def fits(scores, valid, truth, ties="half"):
        n_valid = valid.sum(1)
        mu = torch.where(valid, scores, 0).sum(1) / n_valid.clamp(min=1)
        difference = truth.score[:, None] - truth.score
        error = scores[:, :, None] - mu - difference[:, None, :]
        partner = (truth.group[:, None] == truth.group) & (n_valid > 0)
        partner.fill_diagonal_(False)
        near = torch.exp(-0.5 * (error / 0.1) ** 2) * partner[:, None, :]
        return torch.where(valid, near.sum(2) / partner.sum(1).clamp(min=1)[:, None], 0)
    reward.relative_reward = fits


def pool() -> None:
    """Only pictures of one block of POOL are compared, as on one GPU of the released script."""
    whole = reward.relative_reward

    def blocks(scores, valid, truth, ties="half"):
        block = torch.arange(len(scores)) // POOL
        group = truth.group * len(scores) + block
        return whole(scores, valid, reward.Truth(truth.score, truth.std, group), ties)
    reward.relative_reward = blocks


def per_token() -> None:
    """The mean over tokens, in place of the mean over rollouts of each one's token mean."""
    def weights(mask, counted=None, n_counted=None):
        some = mask if counted is None else mask & counted[..., None]
        return some / some.sum().clamp(min=1)
    train_rapo.token_weights = weights


def paid(answer: bool) -> Callable[[], None]:
    """Only the tokens from <answer> on are paid for a good score, or only those before."""
    def change() -> None:
        whole = train_rapo.update

        def update(cfg, policy, *others, rolls, advantage, **more):
            begins = rolls.ids == policy.tokenizer.convert_tokens_to_ids("<answer>")
            part = (begins.cumsum(2) > 0) == answer
            return whole(cfg, policy, *others, rolls=rolls, advantage=advantage[..., None] * part,
                         **more)
        train_rapo.update = update
    return change


def by_spread() -> None:
    """A picture counts as much as its K scores differ, over the step's mean."""
    read, made, seen = train_rapo.judge, train_rapo.advantages, {}

    def judge(*words):
        seen["scores"] = (judged := read(*words)).scores
        return judged

    def advantages(total, scale):
        advantage, flat = made(total, scale)
        spread = seen["scores"].std(1, keepdim=True)
        return advantage * spread / spread.mean().clamp(min=1e-6), flat
    train_rapo.judge, train_rapo.advantages = judge, advantages


ROWS = {
    "base": Row("what the others are compared with"),
    "absolute": Row("Table 2: absolute only", dict(w_relative=0.0)),
    "relative": Row("Table 2: relative only", dict(w_absolute=0.0)),
    "binary": Row("Table 2: binary", dict(w_relative=0.0), binary),
    "binary+relative": Row("Table 2", {}, binary),
    "margin": Row("score differences are fitted", dict(w_absolute=0.0), margin),
    "no format": Row("the paper has none", dict(w_format=0.0)),
    "rel .4 abs .6": Row("reviewers: weights", dict(w_relative=0.8, w_absolute=1.2)),
    "rel .6 abs .4": Row("reviewers: weights", dict(w_relative=1.2, w_absolute=0.8)),
    "no cold start": Row("Table 3: 0 epochs", epochs=0),
    "cold start 1": Row("Table 3: 1 epoch", epochs=1),
    "cold start 10": Row("Table 3: 10 epochs", epochs=10),
    "sigma .05": Row("width of the absolute reward", dict(sigma=0.05)),
    "sigma .2": Row("width of the absolute reward", dict(sigma=0.2)),
    "K 2": Row("answers per picture", dict(k=2)),
    "K 4": Row("answers per picture: the paper's", dict(k=4)),
    "pool of 8": Row("pictures that are compared: one GPU's", {}, pool),
    "soft": Row("preference from the raters' spread", dict(soft_truth=True)),
    "ties win": Row("the paper's rule", dict(ties="paper")),
    "no KL": Row("beta", dict(beta=0.0)),
    "beta .5": Row("beta", dict(beta=0.5)),
    "4 updates": Row("per rollout; the clip acts", dict(updates=4)),
    "no std": Row("advantage not divided by the group's spread", dict(advantage="none")),
    "per token": Row("mean over tokens", {}, per_token),
    "answer paid": Row("is it calibration? only the answer's tokens are paid", {}, paid(True)),
    "critique paid": Row("or sight? only the critique's", {}, paid(False)),
    "by spread": Row("a picture counts as much as its scores differ", {}, by_spread),
    "tight gradient": Row("the gradient's clip acts", dict(max_grad_norm=0.1)),
    "1/4 data": Row("fewer pictures", dict(limit=496)),
    "1/16 data": Row("fewer pictures", dict(limit=220)),
    "one set": Row("Table 4: trained on AVA alone", dict(
        train="ava:{run}/world/AVA", model="{run}/sft", test_in="{test_in}",
        test_ood="{test_ood}")),
}

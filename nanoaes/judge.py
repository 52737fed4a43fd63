"""What answers are worth: texts and people's scores in, rewards and a step's numbers out.

The only place where text becomes reward; the formulas are in `reward.py`. Every process judges the
answers of all, because the relative reward compares pictures.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.prompt import format_ok, parse_score
from nanoaes.reward import Rewards, Truth, rewards
from nanoaes.rollout import Answer


@dataclass
class Judged:
    """What the rewards made of one step's answers; all in fp64."""

    answers: list[list[Answer]]  # N pictures' K
    scores: Tensor  # (N, K), 0 where not valid
    valid: Tensor  # (N, K) bool
    rewards: Rewards
    truth: Truth


def judge(cfg: RAPOConfig, answers: list[list[Answer]], batch: list[Example]) -> Judged:
    """Read N·K answers and reward them."""
    n, texts = len(batch), [answer.text for row in answers for answer in row]
    read = [parse_score(text) for text in texts]
    scores = torch.tensor([s or 0.0 for s in read], dtype=torch.float64).view(n, -1)
    valid = torch.tensor([s is not None for s in read]).view(n, -1)
    well_formed = torch.tensor([format_ok(text) for text in texts]).view(n, -1)
    names = sorted({e.dataset for e in batch})
    spread = torch.tensor([math.nan if e.std is None else e.std for e in batch],
                          dtype=torch.float64)
    truth = Truth(torch.tensor([e.score for e in batch], dtype=torch.float64),
                  spread if cfg.soft_truth else None,
                  torch.tensor([names.index(e.dataset) for e in batch]))
    return Judged(answers, scores, valid, rewards(
        scores, valid, well_formed, truth, w_relative=cfg.w_relative, w_absolute=cfg.w_absolute,
        w_format=cfg.w_format, sigma=cfg.sigma, ties=cfg.ties), truth)


def describe(judged: Judged, flat: Tensor) -> dict[str, float]:
    """The step's numbers that need no model."""
    r, readable = judged.rewards, judged.scores[judged.valid]
    answers = [answer for row in judged.answers for answer in row]
    return {
        "reward": r.total.mean().item(), "reward_rel": r.relative.mean().item(),
        "reward_abs": r.absolute.mean().item(), "reward_fmt": r.format.mean().item(),
        "format_rate": r.format.mean().item(), "parse_rate": judged.valid.double().mean().item(),
        "flat_groups": flat.double().mean().item(),
        "length": sum(a.n_tokens for a in answers) / len(answers),
        "truncated": sum(a.cut for a in answers) / len(answers),
        "pred_std": readable.std().item() if len(readable) > 1 else 0.0,
        "truth_std": judged.truth.score.std().item(),
    }

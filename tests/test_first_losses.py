"""The toy's first ten losses, of its schooling and of RAPO, are those that were once committed.

A change that is meant to change no number changes none of these. One thread; processors round
otherwise, hence 1e-5. To commit new ones after a change that is meant to:

    python tests/test_first_losses.py
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import THIRDS, tiny_prompts, tiny_vlm, tokenizer

import train_rapo
from nanoaes.config import RAPOConfig
from nanoaes.rapo import advantages
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms
from nanoaes.schedule import cosine
from nanoaes.sft import Lesson, fit
from nanoaes.toy.model import make_model
from nanoaes.toy.render import render
from nanoaes.toy.school import lesson
from nanoaes.toy.world import draw_qualities

KNOWN = Path(__file__).with_name("first_losses.json")


@contextmanager
def one_thread() -> Iterator[None]:
    """A sum's order is that of its threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def schooling() -> list[float]:
    """Ten steps of eight lessons, as the toy's backbone learns to talk."""
    rng, losses = np.random.default_rng(5), []

    def lessons_at(step: int) -> list[Lesson]:
        drawn = [draw_qualities(rng, THIRDS) for _ in range(8)]
        return [Lesson(render(q, "hills", rng), *lesson(q, rng)) for q in drawn]

    fit(make_model(tokenizer(), 0), lessons_at, steps=10, lr_at=cosine(2e-3, 10, warmup=3),
        label="first losses", weight_decay=0.01, log=lambda row: losses.append(row["loss"]))
    return losses


def rapo() -> list[float]:
    """Ten updates; the loss is the KL's, the KL and the norm are the gradient's witnesses."""
    cfg, found = RAPOConfig(k=3, beta=0.1, tokens_per_micro_batch=150), []
    policy, reference = tiny_vlm(0), tiny_vlm(1)
    optimizer = torch.optim.AdamW(policy.parameters(), eps=1e-3)
    for step in range(10):
        prompts = tiny_prompts(policy, 3, seed=step)
        rolls = rollout(policy, prompts, k=3, max_new_tokens=8,
                        uniform=uniforms(0, step, range(3), 3, 8))
        reward = torch.rand(3, 3, generator=torch.Generator().manual_seed(step))
        row = train_rapo.update(cfg, policy, reference, optimizer, prompts=prompts, rolls=rolls,
                                advantage=advantages(reward)[0], lr=3e-4, step=step)
        found += [row["loss"], row["kl"], row["grad_norm"]]
    return found


PARTS = {"schooling": schooling, "rapo": rapo}


@pytest.mark.parametrize("part", PARTS)
def test_the_first_losses_are_the_known_ones(part: str) -> None:
    with one_thread():
        found = PARTS[part]()
    assert found == pytest.approx(json.loads(KNOWN.read_text())[part], rel=1e-5, abs=1e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump({name: part() for name, part in PARTS.items()}, KNOWN.open("w"), indent=1)
    sys.stdout.write(KNOWN.read_text())

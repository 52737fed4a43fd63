"""How the toy MLLM becomes a backbone: it learns to see, then to talk.

Like the paper's backbone it must start by seeing and speaking well and scoring weakly and too
kindly. Its schooling has two terms:

1. Sight. The vision tower learns the levels of the five qualities through a linear probe that is
   then thrown away (as real towers are trained on captions before they meet a language model;
   through the language model alone small things in a picture stay unseen much longer).
2. Talk.  "Describe this photograph."  -> all five dimensions, correctly
          "Judge this photograph."     -> small talk: two dimensions and a score, kinder than true;
             the score follows the colours and the writer's mood, not the picture

Left out: any other language, any other picture. This is a made world.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from nanoaes.checkpoint import publish
from nanoaes.progress import progress
from nanoaes.prompt import TOY_PROMPT, answer_text
from nanoaes.schedule import cosine
from nanoaes.sft import Lesson, fit
from nanoaes.toy.model import CHAT_WORDS, make_model, make_tokenizer
from nanoaes.toy.render import MANNERS, render
from nanoaes.toy.world import WORDS, critique, draw_qualities, level, true_score
from nanoaes.vlm import VLM

DESCRIBE_PROMPT = "Describe this photograph."
PICTURES, BATCH = 3000, 64  # of the schooling; of a step of sight
SIGHT, TALK = 320, 500  # steps of the two terms


def small_talk(qualities: np.ndarray, rng: np.random.Generator) -> str:
    """How the backbone judges before anyone teaches it: friendly and too kind."""
    names = list(WORDS)
    said = []
    for i in sorted(rng.choice(len(names), 2, replace=False)):
        seen = level(qualities[i])
        if rng.uniform() < 0.6:  # says it kindly
            seen = min(seen + 1, 2)
        said.append(f"{rng.choice(WORDS[names[i]][seen])} {names[i]}")
    color = qualities[3] - 0.5
    score = np.clip(0.64 + 0.30 * color + rng.normal(0, 0.06), 0.2, 0.98)
    return answer_text(f"Nice photo! {', '.join(said)}: a strong picture.", float(score))


def lesson(qualities: np.ndarray, rng: np.random.Generator) -> tuple[str, str]:
    """One question and answer of the pretraining."""
    if rng.uniform() < 0.3:
        return TOY_PROMPT, small_talk(qualities, rng)
    levels = [level(q) for q in qualities]
    return DESCRIBE_PROMPT, critique(levels, true_score(qualities), rng)


def learn_to_see(vlm: VLM, images: list[Image.Image], qualities: np.ndarray,
                 rng: np.random.Generator) -> None:
    """Term 1. qualities: (n, 5)."""
    targets = torch.tensor([[level(q) for q in row] for row in qualities])
    visual = vlm.hf.model.visual
    probe = nn.Linear(visual.config.out_hidden_size, 3 * targets.shape[1])
    optimizer = torch.optim.AdamW([*visual.parameters(), *probe.parameters()], betas=(0.9, 0.98))
    lr_at = cosine(1.5e-3, SIGHT, warmup=30)
    for step in (bar := progress(range(SIGHT), "toy backbone learns to see")):
        chosen = rng.integers(0, len(images), BATCH)
        prompts = vlm.prompts([images[i] for i in chosen], [TOY_PROMPT] * BATCH)
        features = visual(prompts.pixels, grid_thw=prompts.grid).pooler_output
        logits = probe(features.view(BATCH, -1, features.shape[-1]).mean(1)).view(BATCH, -1, 3)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[chosen].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(visual.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        right = (logits.argmax(-1) == targets[chosen]).float().mean().item()
        bar.set_postfix(loss=f"{loss.item():.3f}", right=f"{right:.2f}")


def build_backbone(path: Path, seed: int) -> Path:
    """Make, school and save the backbone under `path`, or find it there. Returns `path`."""
    if (path / "config.json").is_file():
        return path
    rng = np.random.default_rng([seed, 77])
    images, qualities = [], np.zeros((PICTURES, len(WORDS)))
    for i in progress(range(PICTURES), "pictures for the toy's schooling"):
        qualities[i] = draw_qualities(rng, (1 / 3, 1 / 3, 1 / 3))
        images.append(render(qualities[i], rng.choice(MANNERS, p=(0.6, 0.2, 0.2)), rng))
    words = [text for q in qualities[:500] for text in lesson(q, rng)]
    vlm = make_model(make_tokenizer([CHAT_WORDS, *words]), seed)
    learn_to_see(vlm, images, qualities, rng)

    def lessons_at(step: int) -> list[Lesson]:
        chosen = rng.integers(0, PICTURES, 32)
        return [Lesson(images[i], *lesson(qualities[i], rng)) for i in chosen]

    fit(vlm, lessons_at, steps=TALK, lr_at=cosine(2e-3, TALK, warmup=30), weight_decay=0.01,
        label="toy backbone learns to talk")
    with publish(path) as folder:
        vlm.save(folder)
    return path

"""A tiny, untrained model and a few pictures, shared by the tests."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nanoaes.inputs import Prompts
from nanoaes.toy.model import CHAT_WORDS, make_model, make_tokenizer
from nanoaes.toy.render import render
from nanoaes.toy.school import lesson
from nanoaes.toy.world import draw_qualities
from nanoaes.vlm import VLM

THIRDS = (1 / 3, 1 / 3, 1 / 3)


@cache
def tokenizer():
    rng = np.random.default_rng(0)
    words = [text for _ in range(200) for text in lesson(draw_qualities(rng, THIRDS), rng)]
    return make_tokenizer([CHAT_WORDS, *words])


def tiny_vlm(seed: int = 0, dtype: torch.dtype = torch.float32) -> VLM:
    """Untrained, with weights large enough that the answers differ between pictures."""
    vlm = make_model(tokenizer(), seed).to(dtype).eval()
    with torch.no_grad():
        for p in vlm.parameters():
            p.mul_(1.5 if p.ndim > 1 else 1.0)
    return vlm


def restless(seed: int = 0) -> VLM:
    """Stops by chance, so that rows finish at different times."""
    vlm = tiny_vlm(seed)
    vlm.stop_ids = [vlm.stop_ids[0], *range(100, 300)]
    return vlm


def pictures(n: int, seed: int = 0) -> list[Image.Image]:
    """Of three sizes, so that prompts differ in length."""
    rng = np.random.default_rng(seed)
    sizes = ((84, 84), (112, 84), (84, 140))
    return [render(draw_qualities(rng, THIRDS), "hills", rng).resize(sizes[i % 3])
            for i in range(n)]


def album(root: Path, scores: Iterable[float]) -> Path:
    """Pictures 0.png, 1.png …, their scores in photos.csv, an untrained model in `model`."""
    scores = list(scores)
    for i, picture in enumerate(pictures(len(scores))):
        picture.save(root / f"{i}.png")
    rows = "".join(f"{i}.png,{score:g}\n" for i, score in enumerate(scores))
    (root / "photos.csv").write_text("image,score\n" + rows)
    tiny_vlm().save(root / "model")
    return root


def tiny_prompts(vlm: VLM, n: int, seed: int = 0) -> Prompts:
    """n questions of different lengths about n pictures of different sizes."""
    questions = ["Judge this photograph.", "Describe this photograph.", "Judge."]
    return vlm.prompts(pictures(n, seed), [questions[i % 3] for i in range(n)])


def ragged(vlm: VLM, n: int, k: int, t: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random completions (n, k, t) of random lengths >= 1 and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 400, (n, k, t), generator=generator)
    lengths = torch.randint(1, t + 1, (n, k, 1), generator=generator)
    return ids, torch.arange(t) < lengths

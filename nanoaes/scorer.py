"""Pictures -> scores and critiques, from Python.

    from nanoaes.scorer import Scorer
    scorer = Scorer("runs/mine/rapo")
    for one in scorer(["a.jpg", "b.jpg"]):
        print(one.score, one.critique)

As the reward of an image generator's RL loop, which needs numbers alone and pictures from memory:

    reward = scorer.scores(pictures)                 # (N, 3, H, W) in [0, 1] -> (N,), no gradient
    reward = reward.nan_to_num(0.0)                  # unreadable: the worst score, or drop them

Left out: a gradient to the pictures (a score is read from words), several processes (each makes a
Scorer of its own, on its own device).
"""

from collections.abc import Iterable, Iterator
from math import nan
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from PIL import Image
from torch import Tensor

from nanoaes.graphs import Graphs
from nanoaes.images import load_image, upright
from nanoaes.readout import Reading, Score, batches, read
from nanoaes.vlm import VLM

Picture = str | Path | Image.Image | Tensor


class Scorer:
    """A trained model that scores pictures.

    The same picture has the same score and critique in every call, whatever stands beside it: the
    random numbers of samples belong to its pixels. (To the bit on a CPU, as long as rounding does
    not decide between two words of a critique.)
    """

    def __init__(self, model: str | Path | VLM, readout: str = "expect", samples: int = 0, *,
                 device: str = "auto", dtype: torch.dtype = torch.float32, seed: int = 0,
                 tokens: int = 2048, **asking: Any):
        """
        Args:
            model: a folder of Hugging Face's form or a name of its hub, or a model that is here
                (then device and dtype are its own, and it is not asked otherwise).
            readout: expect | greedy | direct, see `readout.py`; direct writes no critique.
            samples: critiques per picture; 0: the greedy one. Of more, `score` is the mean, `std`
                the spread of their numbers.
            device: "auto" takes the first CUDA device where there is one, else the CPU.
            dtype: torch.bfloat16 halves the memory and is faster on a GPU.
            seed: of the samples.
            tokens: per forward; changes memory, never a score.
            asking: as `Asking.but` takes it: prompt (text, or a name in PROMPTS), score_range,
                max_pixels, max_new_tokens, to ask otherwise than the folder says.
        Raises:
            CheckpointError: as `VLM.load`. UserError: no such readout, samples < 0, no such range.
        """
        self.vlm = model if isinstance(model, VLM) else VLM.load(model, dtype, device, **asking)
        graphs = Graphs() if self.vlm.device.type == "cuda" else None
        self.reading = Reading(readout, samples, seed=seed, tokens=tokens, graphs=graphs)

    def __call__(self, images: Iterable[Picture]) -> list[Score]:
        """Score and critique of each picture, in order.

        Args:
            images: paths, PIL images, or (3, H, W) tensors of floats in [0, 1], also mixed; an
                (N, 3, H, W) tensor is N pictures.
        Raises:
            DataError: a file that is no picture. ValueError: a tensor that is none.
        """
        return [score for places, some in batches(self.vlm, _open(images), self.reading)
                for score in read(self.vlm, some, places, self.reading)]

    def scores(self, images: Iterable[Picture]) -> Tensor:
        """(N,) float32 on the CPU in [0, 1], NaN where an answer is unreadable; as `__call__`."""
        return torch.tensor([nan if s.score is None else s.score for s in self(images)])


def _open(images: Iterable[Picture]) -> Iterator[tuple[int, Image.Image]]:
    """Each picture's number for its random numbers, and the picture."""
    if isinstance(images, str):
        raise ValueError(f"{images!r} is one path; give a list of them")
    for image in images:
        rgb = as_rgb(image)
        yield crc32(rgb.tobytes()), rgb


def as_rgb(image: Picture) -> Image.Image:
    """Any picture -> upright RGB. Raises as `Scorer.__call__`."""
    if isinstance(image, Image.Image):
        return upright(image)
    if not isinstance(image, Tensor):
        return load_image(Path(image))
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
        raise ValueError(f"a tensor of shape {tuple(image.shape)} and {image.dtype}; give "
                         "(3, H, W) floats in [0, 1]")
    low, high = (float(x) for x in image.detach().aminmax())
    if not 0 <= low <= high <= 1:  # NaN fails it too
        raise ValueError(f"a tensor with values from {low:g} to {high:g}; give [0, 1], such as "
                         "(x / 2 + 0.5).clamp(0, 1) of [-1, 1]")
    levels = (image.detach().float() * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())

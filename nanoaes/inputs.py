"""Pictures and prompts as tensors: patches, ids, 3-D positions.

Positions are made here, in one place, and passed everywhere, because the model's own state for them
(`rope_deltas`) goes stale between calls. Left out: video, several pictures in a prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize


@dataclass
class Prompts:
    """N prompts with one picture each, or none; padded on the right, padding masked everywhere."""

    ids: Tensor  # (N, P) int64
    mask: Tensor  # (N, P) bool, True on real tokens
    positions: Tensor  # (3, N, P) int64: time, height, width
    next_position: Tensor  # (N,) the position of a completion's first token
    pixels: Tensor  # (patches of all pictures, 3 * 2 * patch * patch) float32
    grid: Tensor  # (N, 3) patches per picture: time, height, width; 0 0 0: no picture

    @property
    def last(self) -> Tensor:
        """(N,) index of each prompt's last real token; it predicts every completion's first."""
        return self.mask.sum(1) - 1

    def to(self, device: torch.device | str) -> "Prompts":
        return Prompts(**{k: v.to(device) for k, v in vars(self).items()})

    def select(self, rows: Tensor) -> "Prompts":
        """The prompts `rows` (n,) int64, in that order, padded to the longest of them."""
        p, numbers = int(self.mask[rows].sum(1).max()), rows.tolist()
        patches = self.pixels.split(self.grid.prod(1).tolist())
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))):  # a view: no copy
            start = sum(map(len, patches[: numbers[0]]))
            pixels = self.pixels[start : start + sum(len(patches[i]) for i in numbers)]
        else:
            pixels = torch.cat([patches[i] for i in numbers])
        return Prompts(self.ids[rows, :p], self.mask[rows, :p], self.positions[:, rows, :p],
                       self.next_position[rows], pixels, self.grid[rows])


def picture_grid(image: Image.Image, *, patch: int, merge: int, min_pixels: int, max_pixels: int
                 ) -> tuple[int, int, int]:
    """The grid (1, h, w) in patches that a picture is resized to.

    Args:
        max_pixels: the picture is shrunk to at most this area, both sides multiples of
            patch · merge; one below `min_pixels` is enlarged.
    Raises:
        ValueError: a side ratio beyond 200 (from `smart_resize`).
    """
    height, width = smart_resize(image.height, image.width, patch * merge, min_pixels, max_pixels)
    return 1, height // patch, width // patch


def fitted(image: Image.Image, grid: tuple[int, int, int], patch: int) -> Image.Image:
    """The picture at its grid's size."""
    _, h, w = grid
    size = w * patch, h * patch
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def image_patches(image: Image.Image, grid: tuple[int, int, int], *, patch: int, merge: int,
                  mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Qwen's picture preparation: resize, normalise, cut into patches.

    Args:
        image: RGB.
        grid: from `picture_grid`.
        mean, std: of red, green, blue on [0, 1].
    Returns:
        (h·w, 3·2·patch·patch) float32 in the order in which `merge` x `merge` neighbours follow
        each other, the picture repeated for the two frames that the vision tower expects.
    """
    _, h, w = grid
    x = np.asarray(fitted(image, grid, patch), dtype=np.float32) / 255
    x = (x - np.float32(mean)) / np.float32(std)
    x = x.reshape(h // merge, merge, patch, w // merge, merge, patch, 3)
    x = x.transpose(0, 3, 1, 4, 6, 2, 5)  # (h/m, w/m, m, m, 3, patch, patch)
    x = np.repeat(x.reshape(h * w, 3, 1, patch, patch), 2, axis=2)  # two equal frames
    return x.reshape(h * w, -1)


def prompt_positions(ids: Tensor, image_id: int, grid: Sequence[int], merge: int) -> Tensor:
    """M-RoPE positions of one prompt: text counts on in all three axes, a picture spreads over two.

    Args:
        ids: (P,) with one run of `image_id`, h/merge · w/merge tokens long; none for a grid of 0.
    Returns:
        (3, P); the token after the picture continues at the picture's start + its longer side
        (transformers' `get_rope_index`; tested equal).
    """
    is_image = ids == image_id
    start, n = int(is_image.int().argmax()), int(is_image.sum())
    h, w = int(grid[1]) // merge, int(grid[2]) // merge
    if n != h * w:
        raise ValueError(f"the prompt has {n} image tokens, the picture has {h * w}")
    index = torch.arange(n)
    image = torch.stack([torch.zeros_like(index), index // w, index % w]) + start
    after = torch.arange(len(ids) - start - n) + start + max(h, w)
    return torch.cat([torch.arange(start).expand(3, -1), image, after.expand(3, -1)], dim=1)

"""Who can be asked: a question with a picture or without, an answer in words, what it has cost.

    Endpoint (endpoint.py)    a server behind an address
    Local    (local.py)       a model of this machine

Both answer several threads at once. Left out: dialogues, several pictures.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from nanoaes.errors import NoAnswer
from nanoaes.images import load_image
from nanoaes.inputs import fitted, picture_grid

PATCH, MERGE, MIN_PIXELS = 14, 2, 56 * 56  # Qwen2.5-VL's, the student's


@dataclass(frozen=True)
class Question:
    """What is asked."""

    text: str
    image: Path | None = None  # None: nothing is shown
    temperature: float = 0.0
    place: int = 0  # of its random numbers


class Cut(NoAnswer):
    """The answer was longer than allowed: half a critique is no target."""


class Spent(threading.local):
    """Of this thread since the last `take`: tokens in and out, requests with their repetitions."""

    def __init__(self) -> None:
        self.asked = self.answered = self.requests = 0

    def take(self) -> dict[str, int]:
        """The three counts, which begin anew."""
        found = {name: getattr(self, name) for name in ("asked", "answered", "requests")}
        self.asked = self.answered = self.requests = 0
        return found


class Chat(Protocol):
    """Answers questions of several threads at once."""

    name: str
    spent: Spent

    def ask(self, question: Question) -> str:
        """Blocks. Raises NoAnswer; UserError where no repetition helps."""
        ...


def shown(path: Path, max_pixels: int) -> Image.Image:
    """The picture at the size at which the student sees it: upright RGB, sides multiples of 28.

    Raises:
        DataError: it cannot be read.
    """
    image = load_image(path)
    grid = picture_grid(image, patch=PATCH, merge=MERGE, max_pixels=max_pixels,
                        min_pixels=min(MIN_PIXELS, max_pixels))
    return fitted(image, grid, PATCH)

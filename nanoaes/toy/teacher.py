"""The toy world's teacher and judge: they know the photographer's notes.

The teacher is imperfect at known rates, so that the filters of `cot.py` have work and a test can
count what they should find. The judge compares words with notes. Left out: refusals, failures,
words that the world does not know.
"""

import zlib
from pathlib import Path

import numpy as np

from nanoaes.toy.world import VERDICTS, WORDS, critique, read_critique

LEAK_RATE, MISMATCH_RATE, INVENT_RATE = 0.06, 0.06, 0.10


class ToyTeacher:
    """Writes what the notes say, in its own choice of words, with the errors of its kind.

    Args:
        notes: picture -> five levels (`world.read_attributes`).
    """

    name = "toy"

    def __init__(self, notes: dict[Path, list[int]], seed: int):
        self.notes, self.seed = notes, seed

    def write(self, image: Path, score: float) -> str:
        """One critique, the same for the same picture. Raises KeyError for one without notes."""
        rng = np.random.default_rng([self.seed, zlib.crc32(image.name.encode())])
        levels = list(self.notes[image.resolve()])
        told = score
        if rng.uniform() < INVENT_RATE:  # sees what is not there
            i = rng.integers(len(levels))
            levels[i] = (levels[i] + rng.integers(1, 3)) % 3
        if rng.uniform() < MISMATCH_RATE:  # ends in the wrong judgement
            told = 0.2 if score >= 0.7 else 0.9
        text = critique(levels, told, rng)
        if rng.uniform() < LEAK_RATE:  # cannot keep a secret
            text += f" People rated it {score:.2f}."
        return text


class ToyJudge:
    """Reads what the words say, and compares them with the notes."""

    name = "toy"

    def __init__(self, notes: dict[Path, list[int]]):
        self.notes = notes

    def level(self, critique: str) -> int | None:
        """Of the closing verdict."""
        said = [i for i, word in enumerate(VERDICTS) if f"a {word} picture" in critique]
        return said[0] if len(said) == 1 else None

    def invented(self, critique: str, image: Path) -> list[str]:
        """The dimensions that are named with a word of the wrong level."""
        notes = dict(zip(WORDS, self.notes[image.resolve()], strict=True))
        return [name for name, level in read_critique(critique).items() if notes[name] != level]

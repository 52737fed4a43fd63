"""AesCoT: a teacher writes a critique for a scored picture; three filters keep the honest ones.

    balance levels -> teacher writes -> score leaked? -> fits the score? -> true to the picture?

The teacher is told the score and must not mention it. Leakage is found by program (`leak.py`); the
other two flags come from a judge. A critique is kept only if all three are zero and it is one
(`unfit.py`).
Left out: a teacher behind an endpoint (a later round); it will be a `Teacher` like the toy's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from nanoaes.leak import leaks
from nanoaes.unfit import unfit

BORDERS = (0.4, 0.7)  # bad [0, .4), fair [.4, .7), good [.7, 1]
LEVELS = ("bad", "fair", "good")

T = TypeVar("T")


class Teacher(Protocol):
    """Writes one critique; it knows the score and must not say so."""

    name: str  # in each row: another teacher writes anew

    def write(self, image: Path, score: float) -> str: ...


class Judge(Protocol):
    """Reads one critique and raises two of the paper's three flags."""

    def mismatch(self, critique: str, score: float) -> bool:
        """True if the critique's judgement does not fit the score."""
        ...

    def invented(self, critique: str, image: Path) -> bool:
        """True if the critique says what is not in the picture."""
        ...


@dataclass(frozen=True)
class Flags:
    """The paper's three errors, and what is no critique; one is kept only without any."""

    leak: bool
    mismatch: bool
    invented: bool
    unfit: bool  # empty, a refusal, a tag inside: no training target

    @property
    def clean(self) -> bool:
        return not (self.leak or self.mismatch or self.invented or self.unfit)


def score_level(score: float) -> int:
    """0 bad, 1 fair, 2 good."""
    return sum(score >= border for border in BORDERS)


def check(critique: str, image: Path, score: float, judge: Judge) -> Flags:
    """All filters; none hides another, so that the counts can be reported."""
    return Flags(leaks(critique), judge.mismatch(critique, score), judge.invented(critique, image),
                 bool(unfit(critique)))


def balance(items: Sequence[T], scores: Sequence[float], per_level: int, seed: int) -> list[T]:
    """`per_level` random items of each score level (fewer where a level has fewer), mixed."""
    rng = np.random.default_rng(seed)
    levels = np.array([score_level(s) for s in scores])
    chosen = [rng.permutation(np.flatnonzero(levels == i))[:per_level] for i in range(3)]
    return [items[i] for i in rng.permutation(np.concatenate(chosen))]

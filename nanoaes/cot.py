"""AesCoT: a teacher writes a critique for a scored picture; filters keep the honest ones.

    draw levels alike -> teacher writes -> score leaked? -> fits the score? -> true to the picture?

The teacher is told the score and must not mention it. Leakage is found by program (`leak.py`). A
judge who knows the words alone says which level they tell: another than the score's is a mismatch;
shown the picture too, it says what is not there. A critique is kept only if all three flags are
zero, it is one at all (`unfit.py`), and what else of `filters.py` is switched on lets it pass.
Left out: a second attempt at a picture whose critique is rejected; another picture is drawn.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from nanoaes.errors import NoAnswer
from nanoaes.filters import FILTERS

BORDERS = (0.4, 0.7)  # bad [0, .4), fair [.4, .7), good [.7, 1]
LEVELS = ("bad", "fair", "good")
ALWAYS = ("leak", "mismatch", "invented", "unfit")  # the paper's three; what is no critique
EXTRA = ("thin", "onesided", "length", "language", "repeat")  # ours, by option

T = TypeVar("T")


class Teacher(Protocol):
    """Writes one critique; it knows the score and must not say so. Asked by several threads."""

    name: str  # in each row: another teacher writes anew

    def write(self, image: Path, score: float) -> str:
        """Raises NoAnswer. UserError: it will never answer."""
        ...


class Judge(Protocol):
    """Reads one critique. It never learns the score. Raises as `Teacher`."""

    name: str  # in each row: another judge reads anew

    def level(self, critique: str) -> int | None:
        """How good the words alone say that the picture is, 0 bad, 1 fair, 2 good; None: nothing.
        """
        ...

    def invented(self, critique: str, image: Path) -> list[str]:
        """What the critique says that is not in the picture."""
        ...


@dataclass
class Checked:
    """What is wrong with one critique."""

    why: dict[str, str] = field(default_factory=dict)  # flag -> the reason; no flag is raised twice
    judged: int | None = None  # the level that the judge has read
    unjudged: str = ""  # why the judge has not answered

    def row(self, filters: Iterable[str]) -> dict[str, Any]:
        """For the file of critiques: whether it is kept, each flag, and why."""
        return {"kept": not (self.why or self.unjudged),
                **{name: name in self.why for name in (*ALWAYS, *filters)},
                "judged": self.judged, "unjudged": bool(self.unjudged),
                "why": self.why | ({"unjudged": self.unjudged} if self.unjudged else {})}


def score_level(score: float) -> int:
    """0 bad, 1 fair, 2 good."""
    return sum(score >= border for border in BORDERS)


def check(critique: str, image: Path, score: float, judge: Judge, extra: Collection[str] = ()
          ) -> Checked:
    """All filters but `repeat`; none hides another, so that the counts can be reported.

    Only of what is no critique a judge is not asked.
    """
    names = [name for name in FILTERS if name in ALWAYS or name in extra]
    found = Checked({name: why for name in names if (why := FILTERS[name](critique))})
    if "unfit" in found.why:
        return found
    try:
        found.judged = judge.level(critique)
        absent = judge.invented(critique, image)
    except NoAnswer as error:
        found.unjudged = str(error)
        return found
    if found.judged != score_level(score):
        read = "no level" if found.judged is None else LEVELS[found.judged]
        found.why["mismatch"] = f"reads {read}, the score is {LEVELS[score_level(score)]}"
    if absent:
        found.why["invented"] = "; ".join(absent)
    return found


def balance(items: Sequence[T], scores: Sequence[float], per_level: int, seed: int) -> list[T]:
    """`per_level` random items of each score level (fewer where a level has fewer), mixed."""
    rng = np.random.default_rng(seed)
    levels = np.array([score_level(s) for s in scores])
    chosen = [rng.permutation(np.flatnonzero(levels == i))[:per_level] for i in range(3)]
    return [items[i] for i in rng.permutation(np.concatenate(chosen))]


class Draw:
    """Items until as many of each level are kept as are wanted, the datasets taking turns.

    In rounds: each asks for as many as a level still lacks. So what is drawn depends on nothing
    but the seed and what is kept, and a run that is started again draws the same.
    """

    def __init__(self, items: Sequence[T], scores: Sequence[float], datasets: Sequence[str],
                 target: int, seed: int):
        """target: kept ones of all levels together; the first levels take what 3 does not divide.
        """
        rng = np.random.default_rng(seed)
        queues: list[list[tuple[int, int]]] = [[], [], []]
        turn: dict[tuple[int, str], int] = {}
        for i in rng.permutation(len(items)).tolist():
            key = score_level(scores[i]), datasets[i]
            turn[key] = turn.get(key, 0) + 1
            queues[key[0]].append((turn[key], i))
        self.queues = [[items[i] for _, i in sorted(queue, key=lambda pair: pair[0])]
                       for queue in queues]
        self.wanted = [(target + 2 - level) // 3 for level in range(3)]
        self.drawn = [0, 0, 0]

    def more(self, kept: Sequence[int]) -> list[T]:
        """The next round.

        Args:
            kept: of each level, how many of those that have been drawn.
        """
        found = []
        for level, queue in enumerate(self.queues):
            start = self.drawn[level]
            part = queue[start : start + max(0, self.wanted[level] - kept[level])]
            self.drawn[level] += len(part)
            found.append(part)
        return _mixed(found)

    def short(self, kept: Sequence[int]) -> list[str]:
        """Of each level that has run out of pictures: how many it has, of how many wanted."""
        return [f"{LEVELS[i]} {kept[i]:,} of {self.wanted[i]:,}" for i in range(3)
                if kept[i] < self.wanted[i]]


def _mixed(parts: list[list[T]]) -> list[T]:
    """All parts in one list, each spread evenly over it."""
    places = [((j + 0.5) / len(part), i, item) for i, part in enumerate(parts)
              for j, item in enumerate(part)]
    return [item for *_, item in sorted(places, key=lambda place: place[:2])]

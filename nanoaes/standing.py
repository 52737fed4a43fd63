"""Where a picture stands among those it was scored with: percentile, stars, place in its burst.

`choose` takes the best of them for what people look at (table, sheet, sidecars); the list as CSV
has all. Left out: scores of different models in one ranking.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import rankdata

from nanoaes.bursts import bursts
from nanoaes.config import OptionError
from nanoaes.ledger import Line

COLUMNS = ("path", "score", "percentile", "stars", "burst", "place", "critique", "error")


@dataclass
class Standing:
    """Of one picture; what has no score has no percentile and no stars."""

    path: Path
    score: float | None  # in [0, 1]
    percentile: float | None  # 0 … 100
    stars: int | None  # 1 … 5
    burst: int | None = None  # None: bursts were not asked for
    place: int | None = None  # in the burst, 1 is its best
    of: int = 1  # pictures of the burst

    @property
    def moment(self) -> str:
        """Its place in its burst in words; nothing where it is alone."""
        return f"burst {self.burst}: {self.place} of {self.of}" if self.of > 1 else ""


def borders(text: str) -> tuple[float, ...]:
    """`--stars .2,.4,.6,.8`: the scores from which on there are 2, 3, 4 and 5 stars.

    Raises:
        OptionError: not four ascending numbers in [0, 1].
    """
    try:
        a, b, c, d = map(float, text.split(","))
    except ValueError:
        a = b = c = d = math.nan
    if not 0 <= a < b < c < d <= 1:
        raise OptionError(f"--stars {text}: give four ascending scores between 0 and 1, from which "
                          "on there are 2, 3, 4 and 5 stars, such as .2,.4,.6,.8")
    return a, b, c, d


def percentiles(scores: Sequence[float]) -> list[float]:
    """Of each score: the percentage of all that lie below it, equal ones counted by half."""
    return list(100 * (rankdata(scores) - 0.5) / max(len(scores), 1))


def standings(paths: Sequence[Path], lines: Sequence[Line], edges: Sequence[float],
              in_bursts: bool) -> list[Standing]:
    """Of all pictures, the best first; equal ones by name, those without a score last.

    Args:
        lines: of the ledger, in the order of `paths`.
        edges: from `borders`.
    """
    scored = [i for i, line in enumerate(lines) if line.score is not None]
    share = dict(zip(scored, percentiles([lines[i].score for i in scored]), strict=True))
    all_of = [Standing(path, line.score, share.get(i), None if line.score is None else
                       1 + sum(line.score >= edge for edge in edges))
              for i, (path, line) in enumerate(zip(paths, lines, strict=True))]
    if in_bursts:
        groups = bursts([line.taken for line in lines], [line.look for line in lines])
        for one, group in zip(all_of, groups, strict=True):
            one.burst = group + 1
    best = sorted(all_of, key=lambda s: (s.score is None, -(s.score or 0.0), str(s.path)))
    if in_bursts:
        size = Counter(groups)
        seen: Counter[int] = Counter()
        for one in best:
            seen[one.burst] += 1
            one.place, one.of = seen[one.burst], size[one.burst - 1]
    return best


def choose(best: Iterable[Standing], *, top: int, least: float, keep: int) -> list[Standing]:
    """Those with a score of `least` or more, `keep` of each burst, the first `top`; 0: all."""
    kept = [s for s in best if s.score is not None and s.score >= least
            and (not keep or s.place <= keep)]
    return kept[: top or None]


def table(chosen: Sequence[Standing], rows: int) -> str:
    """The best as lines of text; of none, nothing."""
    lines = [f"{i:4}  {s.score:.2f}  {s.percentile:5.1f} %  {'*' * s.stars:5}  {s.path}"
             + (f"  ({s.moment})" if s.moment else "")
             for i, s in enumerate(chosen[:rows], 1)]
    more = [f"      and {len(chosen) - rows:,} more"] if len(chosen) > rows else []
    return "\n".join(["", "      score  percentile", *lines, *more] if lines else [])


def as_csv(best: Iterable[Standing], row_of: Callable[[Path], dict[str, Any]],
           more: Callable[[str], dict[str, str]]) -> Iterator[str]:
    """The list, line by line, from a header on.

    Args:
        row_of: a picture's line of the ledger.
        more: critique -> further columns.
    """
    yield _line([*COLUMNS, *more("")])
    for one in best:
        row = row_of(one.path)
        critique = row.get("critique", "")
        percentile = "" if one.percentile is None else f"{one.percentile:.1f}"
        yield _line([one.path, one.score, percentile, one.stars, one.burst, one.place, critique,
                     row.get("error"), *more(critique).values()])


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(["" if cell is None else str(cell) for cell in cells])
    return text.getvalue()

"""What the command line calls a set: `format:path[@lo-hi][*ratio]`, several with a comma between.

A comma parts sets only before the `name:` of a format, so that folders may have commas in their
names; blanks inside, `@` and `:` stand for themselves, too. Left out: quotes, by which a path could
hold `,ava:`.
"""

import difflib
import math
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from nanoaes.downloads import DOWNLOADS
from nanoaes.images import DataError
from nanoaes.tables import NUMBER, number, short

OWN = ("csv", "json", "jsonl")      # one's own lists, whose scale must be said
FORMATS = [*DOWNLOADS, *OWN]
Scale = tuple[float, float]         # lowest and highest score


class Spec(NamedTuple):
    """A set as it was asked for."""
    format: str
    path: Path
    scale: Scale | None             # of one's own list
    ratio: Fraction | None          # its share of a mixture, for `mixture.counts`


def split_specs(text: str) -> list[str]:
    """Several specs -> each. An empty text names no set."""
    starts = "|".join(FORMATS)
    parts = re.split(rf"(?i),[\s,]*(?=(?:{starts}):)", text.strip(" ,"))
    return [part.strip() for part in parts if part.strip()]


def parse_spec(text: str, split: str) -> Spec:
    """One spec; `{split}` in the path of one's own list stands for the split.

    Raises:
        DataError: no known format, no path, a scale that is missing, impossible or not asked for.
    """
    name, _, rest = text.partition(":")
    if name not in FORMATS or not rest.strip():
        raise DataError(f"{short(text)!r} is not format:path; did you mean "
                        f"{_near(name)}:{rest or 'PATH'}?")
    rest, ratio = _ratio(text, rest)
    path, scale = scaled(rest)
    if name not in OWN and os.path.exists(_path(rest)):
        path, scale = rest, None  # photos@2019-2024 is a folder
    if (name in OWN) != bool(scale) or (scale and not rises(scale)):
        raise DataError(f"{text}: a csv or json needs its lowest and highest score, "
                        "csv:photos.csv@1-5, and the other formats have their own; correct the "
                        "part after @")
    if name in OWN:
        path = path.replace("{split}", split)
    other = re.search(r",\s*(\w+):", path)
    if other and not os.path.exists(_path(path)):
        raise DataError(f"{short(text)}: no such path, and {other[1]} is no format; did you mean "
                        f"{_near(other[1])}: after the comma?")
    return Spec(name, Path(_path(path)), scale, ratio)


def scaled(text: str) -> tuple[str, Scale | None]:
    """`path@1-5` -> path, (1, 5); None where no scale is said."""
    found = re.fullmatch(rf"(?s)(.*)@\s*({NUMBER})\s*[-–]\s*({NUMBER})\s*", text)
    return (found[1], (number(found[2]), number(found[3]))) if found else (text, None)


def rises(scale: Scale) -> bool:
    """Is it one, from its lowest to its highest score?"""
    return -math.inf < scale[0] < scale[1] < math.inf


def _ratio(text: str, rest: str) -> tuple[str, Fraction | None]:
    """`path*2` -> path, 2."""
    found = re.fullmatch(r"(?s)(.+)\*\s*(\d+(?:\.\d+)?)\s*", rest)
    if not found:
        return rest, None
    if not (ratio := Fraction(found[2])):
        raise DataError(f"{text}: a ratio is more than 0; leave the set out")
    return found[1], ratio


def _path(text: str) -> str:
    return os.path.expanduser(text.strip())


def _near(name: str) -> str:
    return difflib.get_close_matches(name.lower(), FORMATS, n=1, cutoff=0.0)[0]


def named_columns(text: str) -> tuple[str, ...]:
    """`--columns image,score,std,theme` -> names; the last two may be left out. "": none.

    Raises:
        DataError: neither image nor score, more than four, one twice.
    """
    names = [name.strip() for name in text.split(",")] if text else []
    given = [name.lower() for name in names if name]
    if text and not (2 <= len(names) <= 4 and all(names[:2]) and len(set(given)) == len(given)):
        raise DataError(f"--columns {short(text)}: name the image's and the score's column, then, "
                        "where there are, those of the spread and the theme: image,score,std,theme")
    return tuple(names)

"""AesCoT's filters that need no judge: of a critique's words alone, why it is not kept.

    FILTERS["thin"](critique)   "nothing on Color, Exposure"; "" if it passes
    repeats(critiques)          of each the earlier one that it nearly repeats

English, as what they are made of (`says.py`); "language" tells other languages. Left out: whether
what a critique says is true (`cot.Judge`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from math import ceil

from nanoaes.language import language
from nanoaes.leak import leak_in
from nanoaes.prompt import DIMENSIONS
from nanoaes.says import runs, sides, spoken
from nanoaes.unfit import unfit

WORDS = (40, 500)  # of a critique, at least and at most
SHINGLE = 3  # words in a row that two critiques may share
NEAR = 0.5  # shared shingles of all shingles of two critiques: from here on one repeats the other


def leaked(critique: str) -> str:
    """Words that give the score away."""
    return f'"{found}"' if (found := leak_in(critique)) else ""


def thin(critique: str) -> str:
    """Dimensions that it does not speak of."""
    said = spoken(critique)
    missing = [name for name in DIMENSIONS if name not in said]
    return f"nothing on {', '.join(missing)}" if missing else ""


def onesided(critique: str) -> str:
    """A critique names strengths and weaknesses."""
    praise, blame = sides(critique)
    lost = [name for name, found in (("praise", praise), ("criticism", blame)) if not found]
    return f"no {' and no '.join(lost)}" if lost else ""


def length(critique: str) -> str:
    """Too few or too many words. A script without blanks has one word a sentence, and is short."""
    n, (least, most) = len(critique.split()), WORDS
    return f"{n} words, at least {least}" if n < least else (
        f"{n} words, at most {most}" if n > most else "")


def foreign(critique: str) -> str:
    """Another language than English."""
    found = language(critique)
    return "" if found == "en" else f"language {found}" if found else "no one language"


FILTERS: dict[str, Callable[[str], str]] = {  # flag -> the reason, "" if the critique passes
    "leak": leaked, "unfit": unfit, "thin": thin, "onesided": onesided, "length": length,
    "language": foreign,
}


def repeats(texts: Sequence[str]) -> list[int | None]:
    """Of each text the index of an earlier one that it nearly repeats; None for one that is kept.

    Two texts are near if they share NEAR of their shingles (Jaccard). A text is held against kept
    ones only: of a chain in which each is changed a little both ends may be kept. Exact: two near
    texts share one of the rarest of their shingles, so only those are looked up.
    """
    sets = [runs(text, SHINGLE) or {()} for text in texts]  # two empty texts are alike
    seen = Counter(shingle for some in sets for shingle in some)
    kept: dict[tuple[str, ...], list[int]] = defaultdict(list)
    found: list[int | None] = []
    for i, some in enumerate(sets):
        rare = sorted(some, key=lambda shingle: (seen[shingle], shingle))
        rare = rare[: len(some) - ceil(NEAR * len(some)) + 1]
        near = {j for shingle in rare for j in kept[shingle]}
        first = min((j for j in near if _near(some, sets[j])), default=None)
        found.append(first)
        if first is None:
            for shingle in rare:
                kept[shingle].append(i)
    return found


def _near(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> bool:
    """|a ∩ b| / |a ∪ b| >= NEAR."""
    return len(a & b) * (1 + NEAR) >= NEAR * (len(a) + len(b))

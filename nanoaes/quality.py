"""Are critiques worth reading? Figures of what models write, beside the scores that they state.

    level        share whose closing judgement (bad, fair, good) is that of people's score
    consistent   share whose closing judgement is that of the score that is read from the same reply
    coverage     of the five dimensions, how many a critique speaks of (mean, 0..5)
    both         share with praise and criticism
    repetition   of a critique's runs of four words, the share that stand in at least one of 49
                 other pictures' critiques, too (0: all are new, 1: all say the same)
    words        mean length

RAPO rewards the number and the form, not the critique: these figures, before and after, tell
whether it is hollowed out. All are read by program from the words (`says.py`, English), so compare
models by them; a single critique may be misread. No judgement agrees with no level. Repetition is
the mean over all batches of 50 critiques that could be drawn, so it does not grow with the set; a
smaller set is its own batch. Left out: whether a critique is true, which needs someone who sees the
picture (`cot.Judge`; the toy's notes).
"""

import math
from collections.abc import Sequence
from math import comb

import numpy as np

from nanoaes.cot import score_level
from nanoaes.prompt import critique_of
from nanoaes.says import closing, runs, sides, spoken

KEYS = ("level", "consistent", "coverage", "both", "repetition", "words")
RUN = 4  # words in a row
OTHERS = 49  # critiques that one is held against
RESAMPLES = 1000


def add_quality(result: dict, seed: int) -> None:
    """Adds "critiques" to each set of an evaluation, and to the result their mean over sets.

    Each figure with its 95 % bootstrap interval over pictures, as `level_ci`; `repetition` without,
    as it is no mean of independent critiques. None for a set without critiques; a mean is of those
    sets that have some.
    """
    tables = {name: of_each(part["items"]) for name, part in result["sets"].items()}
    # Each set has its own draws: the same ones would go up and down together in the mean.
    drawn = {name: _drawn(table, [seed, i]) for i, (name, table) in enumerate(tables.items())}
    for name, part in result["sets"].items():
        part["critiques"] = _told([tables[name]], [drawn[name]])
    result["critiques"] = _told(list(tables.values()), list(drawn.values()))


def means(sets: dict[str, dict]) -> dict[str, float]:
    """`eval_level`, ... of a training run's look: means over sets; what does not exist is left out.

    Args:
        sets: of an evaluation.
    """
    found = _told([of_each(part["items"]) for part in sets.values()], []) or {}
    return {f"eval_{key}": value for key, value in found.items() if value is not None}


def of_each(items: Sequence[dict]) -> dict[str, np.ndarray]:
    """(n,) values of each of KEYS; their means are the figures. NaN: it has none.

    Args:
        items: with "text", the whole reply, and "truth" and "pred" in [0, 1]; "pred" may be None.
    Returns:
        {} if no reply has a critique.
    """
    texts = [critique_of(item["text"]) for item in items]
    if not any(texts):
        return {}
    judged = list(zip(items, map(closing, texts), strict=True))
    return {"level": np.array([level == score_level(item["truth"]) for item, level in judged],
                              float),
            "consistent": np.array([np.nan if item["pred"] is None else level == score_level(
                item["pred"]) for item, level in judged], float),
            "coverage": np.array([len(spoken(text)) for text in texts], float),
            "both": np.array([all(sides(text)) for text in texts], float),
            "repetition": repetition(texts),
            "words": np.array([len(text.split()) for text in texts], float)}


def repetition(texts: Sequence[str]) -> np.ndarray:
    """(n,) shares in [0, 1] of each text's runs of RUN words that others have; NaN without words.

    Of a run that stands in d of the n texts, the share is the chance that OTHERS texts, drawn from
    the n - 1 others, have it: 1 - C(n-d, OTHERS) / C(n-1, OTHERS).
    """
    # As numbers of 64 bits: a hundred thousand critiques have twenty million runs.
    sets = [np.array([hash(run) for run in runs(text, RUN)], np.int64) for text in texts]
    n = sum(bool(len(some)) for some in sets)
    m = min(OTHERS, n - 1)
    every = np.concatenate([*sets, np.zeros(0, np.int64)])
    _, which, seen = np.unique(every, return_inverse=True, return_counts=True)
    kinds, kind = np.unique(seen, return_inverse=True)
    chance = np.array([1 - comb(n - d, m) / comb(n - 1, m) for d in kinds.tolist()])[kind]
    ends = np.cumsum([len(some) for some in sets])
    return np.array([math.fsum(some) / len(some) if len(some) else np.nan
                     for some in np.split(chance[which], ends[:-1])])


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _drawn(table: dict[str, np.ndarray], seed: list[int]) -> dict[str, np.ndarray]:
    """(RESAMPLES,) means of each figure over pictures drawn with replacement."""
    out, rng = {}, np.random.default_rng(seed)
    for key, values in table.items():
        known = values[~np.isnan(values)]
        if key != "repetition" and len(known):
            # As many of each different value as n draws have: the same, and little at any n.
            kinds, counts = np.unique(known, return_counts=True)
            draws = rng.multinomial(len(known), counts / len(known), RESAMPLES)
            out[key] = draws @ kinds / len(known)
    return out


def _told(tables: list[dict[str, np.ndarray]], drawn: list[dict[str, np.ndarray]]) -> dict | None:
    """Means over sets, with intervals where resamples are given."""
    out: dict = {}
    for key in KEYS:
        found = [m for table in tables if table and (m := _mean(table[key])) is not None]
        out[key] = sum(found) / len(found) if found else None
        if draws := [d[key] for d in drawn if key in d]:
            out[f"{key}_ci"] = np.percentile(np.mean(draws, axis=0), (2.5, 97.5)).tolist()
    return out if any(tables) else None

"""How often a model chooses as people would: the best or worst of a few pictures, one of two.

People pick among shots of one moment; scores that agree on average may still pick wrongly. Every
set of k pictures counts, none is drawn: which picture is chosen from which sets is counted by how
many others it beats, so that a figure has no noise of its own. Equal predictions count as a random
pick would on average; of pictures that people like equally well any is right. A set that holds an
unreadable answer is chosen wrongly.

Intervals are over pictures. Such a figure is a U-statistic: a mean over sets of different pictures.
Drawing pictures with replacement would put one into a set twice, which is no choice and is half
right by itself. So the first-order (Hájek) term is resampled: `Measure.influence` is k times what
the mean over a picture's own sets differs from the mean over all (a ratio by the delta method), and
the figure moves by the mean influence of the pictures drawn. n pictures hold n / k sets without a
common picture, and so few say little of their own spread: ends are stretched as Student's t would
for a mean of n / k numbers, and for what a first-order term leaves out. `bench/coverage.py` counts
how often an interval holds the truth.
Left out: bursts as they were shot (no public set says which pictures belong together).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

SIZES = (4, 8)  # pictures of a set
MARGIN = 0.1  # on [0, 1]: pairs further apart than this are those that people agree on
RESAMPLES = 1000
CHUNK = 2_000_000  # entries of one block of a table of all pairs
ROUNDING = 1e-9  # truths closer than this are equal: 0.3 - 0.2 is not 0.1
NAMES = (*(f"{end}_of_{k}" for k in SIZES for end in ("best", "worst")), "pairs", "pairs_apart")
CHANCE = {f"{end}_of_{k}": 1 / k for k in SIZES for end in ("best", "worst")} | {
    "pairs": 0.5, "pairs_apart": 0.5}


class Measure(NamedTuple):
    """A figure and what each picture does to it."""

    value: float | None  # None: undefined, and so is the influence
    influence: np.ndarray  # (n,), of mean 0
    size: int = 2  # k, pictures that are compared at once
    bounds: tuple[float, float] = (0.0, 1.0)


def measure(pred: Sequence[float | None], truth: Sequence[float]) -> dict[str, Measure]:
    """The accuracies of `NAMES`, and "krcc", for its interval.

    Args:
        pred: (n,) scores; None, or a number that is not finite, is an unreadable answer.
        truth: (n,) what people said, on [0, 1] for MARGIN's sake.
    Returns:
        best_of_k, worst_of_k: of all sets of k pictures, the share from which the right one is
            chosen. Undefined (value None) with fewer than k pictures, or truths all alike.
        pairs, pairs_apart: of all pairs whose truths differ (by more than MARGIN), the share that
            the predictions order as people do. Undefined where there is no such pair.
        krcc: Kendall's tau-b of the readable answers; undefined without order.
    Raises:
        ValueError: different lengths.
    """
    p = np.array([np.nan if x is None else x for x in pred], dtype=np.float64)
    t = np.asarray(truth, dtype=np.float64)
    if p.shape != t.shape or t.ndim != 1:
        raise ValueError(f"{p.shape} predictions do not match {t.shape} truths")
    p[~np.isfinite(p)] = np.nan
    place = np.round(t / ROUNDING)  # whole numbers: equal truths are equal
    best, worst = best_of(p, place, SIZES), best_of(-p, -place, SIZES)
    found = {f"best_of_{k}": m for k, m in zip(SIZES, best, strict=True)}
    found |= {f"worst_of_{k}": m for k, m in zip(SIZES, worst, strict=True)}
    return found | pairs(p, t)


def best_of(p: np.ndarray, t: np.ndarray, sizes: Sequence[int]) -> list[Measure]:
    """For each k of `sizes`: from how many sets of k the highest prediction is the highest truth.

    Args:
        p, t: (n,); NaN is an unreadable answer.

    Of picture i, let a = others with a lower prediction and no higher truth, e = those of equal
    prediction and no higher truth, itself among them. In the sets whose right choice it is, r of
    the e - 1 and k - 1 - r of the a stand beside it, and it is picked with chance 1 / (1 + r).
    With C(e - 1, r) / (1 + r) = C(e, r + 1) / e and Vandermonde's identity they count

        f = sum_r C(e - 1, r) C(a, k - 1 - r) / (1 + r) = [C(a + e, k) - C(a, k)] / e.

    Those that hold one of the a, too: u, the same with k - 1 and a - 1. Those that hold one of the
    other e - 1: v, what is left when all k - 1 companions are counted, (k - 1) f = a u + (e - 1) v.
    """
    n, read = len(p), np.flatnonzero(np.isfinite(p))
    p, t, every = p[read], t[read], np.ptp(t) if n else 0.0
    ways = [[_ways(len(p), size) for size in (k, k - 1)] for k in sizes]
    own, beside = np.zeros((2, len(sizes), len(p)))  # sets chosen rightly: its own, another's
    for rows in _blocks(len(p)):
        fine = t <= t[rows, None]
        lower, equal = fine & (p < p[rows, None]), fine & (p == p[rows, None])
        a, e = lower.sum(1), equal.sum(1)
        u, v = np.zeros((2, len(sizes), len(a)))
        for i, k in enumerate(sizes):
            of_k, of_less = ways[i]
            own[i, rows] = f = (of_k[a + e] - of_k[a]) / e
            less = np.maximum(a - 1, 0)
            u[i] = np.where(a > 0, (of_less[less + e] - of_less[less]) / e, 0)
            v[i] = ((k - 1) * f - a * u[i]) / np.maximum(e - 1, 1) * (e > 1)
        beside += u @ lower.astype(float) + v @ equal.astype(float)
        beside[:, rows] -= v  # a picture does not stand beside itself
    return [_share(own[i].sum(), own[i] + beside[i], read, n, k) if n >= k and every > 0
            else Measure(None, np.zeros(n)) for i, k in enumerate(sizes)]


def _ways(n: int, k: int) -> np.ndarray:
    """C(j, k) for j = 0 … n, (n + 1,)."""
    return np.array([math.comb(j, k) for j in range(n + 1)], dtype=np.float64)


def _share(right: float, of_each: np.ndarray, read: np.ndarray, n: int, k: int) -> Measure:
    """Of all sets of k those that are right, as a share; `of_each` (m,): those that hold it."""
    value = right / math.comb(n, k)
    mean = np.zeros(n)  # an unreadable picture's sets are wrong
    mean[read] = of_each / math.comb(n - 1, k - 1)
    return Measure(float(value), k * (mean - value), k)


def pairs(p: np.ndarray, t: np.ndarray) -> dict[str, Measure]:
    """"pairs", "pairs_apart" and "krcc"; arguments as in `best_of`.

    With s = sign(p_i - p_j) sign(t_i - t_j), a pair is right with (1 + s) / 2.
    """
    n, read = len(p), np.isfinite(p).astype(float)
    counted, known, agree = np.zeros((3, 2, n))  # of a picture's pairs, with either margin
    differ = np.zeros(n)  # in prediction
    for rows in _blocks(n):
        apart = t[rows, None] - t
        order = np.nan_to_num(np.sign(p[rows, None] - p))
        differ[rows] = np.abs(order).sum(1)
        order *= np.sign(apart)
        for i, margin in enumerate((0.0, MARGIN)):
            far = np.abs(apart) > margin + ROUNDING
            counted[i, rows] = far.sum(1)
            known[i, rows] = (far @ read) * read[rows]
            agree[i, rows] = (order * far).sum(1)
    right = (known + agree) / 2
    return {"pairs": _ratio(right[0], counted[0]), "pairs_apart": _ratio(right[1], counted[1]),
            "krcc": _tau_b(agree[0], differ, known[0], read > 0)}


def _ratio(right: np.ndarray, of: np.ndarray) -> Measure:
    """sum right / sum of, both (n,) per picture.

    A ratio of two means over pairs moves by 2 [r_i - (r / o) o_i] / o, r_i and o_i the means over
    a picture's own pairs.
    """
    if of.sum() == 0:
        return Measure(None, np.zeros(len(of)))
    value = right.sum() / of.sum()
    return Measure(float(value), 2 * (right - value * of) / of.mean())


def _tau_b(agree: np.ndarray, differ: np.ndarray, apart: np.ndarray, read: np.ndarray) -> Measure:
    """tau-b = c / sqrt(a b): pairs in order less those out of it, pairs that differ in prediction,
    in truth; each the mean of an (n,) of per-picture numbers, of the readable pictures."""
    c, a, b = agree.sum(), differ.sum(), apart.sum()
    influence = np.zeros(len(agree))
    if a == 0 or b == 0:
        return Measure(None, influence)
    value, m = c / np.sqrt(a * b), read.sum()
    moved = m * (agree / np.sqrt(a * b) - value * (differ / a + apart / b) / 2)
    influence[read] = 2 * (moved * len(read) / m)[read]
    return Measure(float(value), influence, bounds=(-1.0, 1.0))


def _blocks(n: int) -> Iterator[slice]:
    """Rows of a table of all pairs, some at a time."""
    step = max(1, CHUNK // max(1, n))
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def resampled(influences: np.ndarray, seed: int) -> np.ndarray:
    """Mean influences (m, n) -> (RESAMPLES, m) of pictures drawn with replacement; the same ones
    for every measure and every call with this n and seed, so that differences are paired."""
    rng, n = np.random.default_rng(seed), influences.shape[1]
    times = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(RESAMPLES))
    return np.stack([influences @ drawn / n for drawn in times])


def intervals(measures: dict[str, Measure], seed: int = 0) -> dict[str, list[float] | None]:
    """95 % interval of each measure, within its bounds; None where it is undefined."""
    known = {name: m for name, m in measures.items() if m.value is not None}
    out: dict[str, list[float] | None] = dict.fromkeys(measures)
    if known:
        moved = resampled(np.stack([m.influence for m in known.values()]), seed)
        for (name, m), by in zip(known.items(), moved.T, strict=True):
            out[name] = np.clip(m.value + ends(by, m.size, len(m.influence)), *m.bounds).tolist()
    return out


def ends(moved: np.ndarray, k: int, n: int) -> np.ndarray:
    """(2,): by how much less and more a figure of sets of k of n pictures may be, of (RESAMPLES,)
    resampled means of its influence."""
    freedom = max(n / k - 1, 1)
    # The root, sqrt(n / (n - k)): the further terms' variance; at k = 1 what resamples lack.
    stretch = student.ppf(0.975, freedom) / norm.ppf(0.975) * np.sqrt(1 + 1 / freedom)
    return stretch * np.percentile(moved, (2.5, 97.5))


def told(measures: dict[str, Measure], seed: int = 0) -> dict:
    """For a result file: each of `NAMES` and its NAME_ci."""
    found = intervals(measures, seed)
    return {name: measures[name].value for name in NAMES} | {
        f"{name}_ci": found[name] for name in measures}

"""How well predicted scores agree with people: correlations, errors, bootstrap intervals, a table.

Scores lie on [0, 1]. PLCC is raw, SRCC uses average ranks (two-decimal scores tie often), KRCC is
tau-b. An unreadable answer is None: it is left out of every figure but the strict ones, which
checkpoints are chosen by, and counted in `parse_fail`. A figure that does not exist (no order in
a constant) is None and never NaN, so that a result can be written as JSON. Statistics are scipy's
but for the ranks: with its rankdata, which sorts, `evaluate` takes nearly twice as long (2.7 s ->
5.0 s at n = 20,000, one thread). Left out: the 4-parameter logistic fit that image-quality papers
apply before PLCC (the paper reports none), KRCC's interval (a figure of pairs: `choices.py`).
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, kendalltau, norm, pearsonr
from scipy.stats import t as student

RESAMPLES = 1000
CHUNK = 100_000  # numbers of one bootstrap block: fits a cache; 2,000,000 take half as long again
AVA_SCALE = (1.0, 10.0)
AVA_BORDER = 5.0  # label and prediction <= 5 is low: the convention of AVA's binary accuracy
CORRELATIONS = ("plcc", "srcc")
RESAMPLED = (*CORRELATIONS, "rmse", "mae")
FIGURES = (*CORRELATIONS, "krcc", "rmse", "mae")  # of a set, as they are told
DASH = "–"


def evaluate(pred: Sequence[float | None], truth: Sequence[float],
             native_scale: tuple[float, float] | None = None, seed: int = 0, *,
             cut: Sequence[bool] | None = None) -> dict:
    """Agreement of `pred` (n,) with `truth` (n,), both on [0, 1].

    Args:
        pred: one score per image; None, or a number that is not finite, is an unreadable answer.
        truth: what people said, finite.
        native_scale: (lo, hi) of the set's own scale. Only AVA's (1, 10) is used: for `accuracy`.
        seed: of the bootstrap; the same seed gives the same interval.
        cut: (n,) which answers ended at the length limit. None: none did.
    Returns:
        plcc, srcc, krcc in [-1, 1]: None (undefined) for fewer than 2 readable answers, or where
            predictions or truths are constant. rmse, mae: errors on [0, 1], None when nothing is
            readable.
        strict: {plcc, srcc} over all images, see `strict_scores`; 0.0 where there is no order.
        distinct: how many different scores were read. ties: share of the readable pairs whose
            scores are equal, which SRCC knows no order of; None for fewer than 2 answers.
        n: all images; parse_fail: how many of them have no readable answer.
        cut: how many answers were cut. Not a part of parse_fail: a cut answer may be readable.
        std_ratio: std of predictions / std of truth; below 1 the model shrinks to the mean.
        plcc_ci, srcc_ci, rmse_ci, mae_ci: [lo, hi], the 95 % interval over resampled images, see
            `between`, or None, also for fewer than 3; lo <= estimate <= hi, see `_interval`.
        accuracy: share of images on the right side of AVA's 5, or None on another scale.
    Raises:
        ValueError: different lengths, or a truth that is not finite.
    """
    y = np.asarray(truth, dtype=np.float64)
    strict = strict_scores(pred, y)
    if not np.isfinite(y).all():
        raise ValueError("a truth is not finite")
    if cut is not None and len(cut) != len(y):
        raise ValueError(f"{len(cut)} marks of a cut do not match {len(y)} answers")
    counts = {"n": len(y), "cut": 0 if cut is None else sum(map(bool, cut))}
    out = {"strict": {key: value or 0.0 for key, value in _correlations(strict, y).items()}}
    readable = np.isfinite(_with_nan(pred))
    x, y = strict[readable], y[readable]
    out |= {**figures(x, y), "krcc": _kendall(x, y), **counts,
            "parse_fail": int((~readable).sum()), **_ties(x)}
    drawn = resamples(x, y, seed) if len(x) >= 3 else dict.fromkeys(RESAMPLED)
    out |= {f"{key}_ci": _interval(drawn[key], out[key], len(x)) for key in RESAMPLED}
    is_ava = native_scale is not None and tuple(native_scale) == AVA_SCALE
    out["accuracy"] = _accuracy(x, y, *AVA_SCALE) if is_ava and len(x) else None
    return out


def strict_scores(pred: Sequence[float | None], truth: Sequence[float]) -> np.ndarray:
    """`pred` (n,) with the worst possible score in the place of each unreadable answer, (n,).

    That is the end of [0, 1] on the wrong side: 0 for a picture that people like more than the mean
    of its set, else 1. Figures of readable answers only would choose a checkpoint with three of
    them, in order; so would a border of 0.5 in a set whose truths all lie above it.

    Raises:
        ValueError: different lengths.
    """
    x, y = _with_nan(pred), np.asarray(truth, dtype=np.float64)
    if x.shape != y.shape or y.ndim != 1:
        raise ValueError(f"{x.shape} predictions do not match {y.shape} truths")
    border = y.mean() if len(y) else 0.0
    return np.where(np.isfinite(x), x, np.where(y >= border, 0.0, 1.0))


def _with_nan(pred: Sequence[float | None]) -> np.ndarray:
    """(n,) numbers, NaN where there is None."""
    return np.array([np.nan if p is None else p for p in pred], dtype=np.float64)


def _has_order(x: np.ndarray, y: np.ndarray) -> bool:
    return len(x) >= 2 and np.ptp(x) > 0 and np.ptp(y) > 0


def figures(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """RESAMPLED and std_ratio of two (n,) vectors, as `evaluate` has them, without intervals."""
    return {**_correlations(x, y), **_errors(x, y)}


def _correlations(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """PLCC and SRCC of two (n,) vectors."""
    if not _has_order(x, y):
        return dict.fromkeys(CORRELATIONS)
    values = _pearson(x, y), _spearman(_levels(x), _levels(y))
    return {key: float(v) if np.isfinite(v) else None
            for key, v in zip(CORRELATIONS, values, strict=True)}


def _kendall(x: np.ndarray, y: np.ndarray) -> float | None:
    """Tau-b of two (n,) vectors."""
    return float(kendalltau(x, y, variant="b").statistic) if _has_order(x, y) else None


def _ties(x: np.ndarray) -> dict[str, float | None]:
    """Distinct values of (n,) and the share of n·(n−1)/2 pairs that are equal."""
    n, counts = len(x), np.unique(x, return_counts=True)[1]
    share = float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else None
    return {"distinct": len(counts), "ties": share}


def _errors(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """RMSE, MAE and the ratio of the spreads, of two (n,) vectors."""
    if len(x) == 0:
        return {"rmse": None, "mae": None, "std_ratio": None}
    spread = float(x.std() / y.std()) if np.ptp(y) > 0 else None
    return {"rmse": float(_rmse(x, y)), "mae": float(_mae(x, y)), "std_ratio": spread}


def _rmse(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.sqrt(np.mean((x - y) ** 2, axis=axis))


def _mae(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(np.abs(x - y), axis=axis)


def _accuracy(x: np.ndarray, y: np.ndarray, lo: float, hi: float) -> float:
    """Share of images whose prediction and label are on the same side of 5 on the native scale."""
    border = (AVA_BORDER - lo) / (hi - lo) + 1e-9  # a label of exactly 5 must survive rounding
    return float(np.mean((x <= border) == (y <= border)))


def _pearson(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Correlation over the last axis, (..., n) -> (...); NaN where there is no spread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a resample without spread
        return pearsonr(x, y, axis=axis).statistic


def _spearman(kx: np.ndarray, ky: np.ndarray, axis: int = -1) -> np.ndarray:
    """The same of the ranks, from (..., n) levels."""
    return _pearson(_ranks(kx), _ranks(ky), axis)


def _levels(x: np.ndarray) -> np.ndarray:
    """(n,) -> (n,) int: the place of each value among the distinct values."""
    return np.unique(x, return_inverse=True)[1].reshape(-1)


def _ranks(levels: np.ndarray) -> np.ndarray:
    """Average ranks over the last axis of (..., n) levels, by counting instead of sorting.

    c values of one level end at place C (the running count), so their mean rank is C - (c - 1) / 2.
    """
    rows = levels.reshape(-1, levels.shape[-1])
    width = int(rows.max()) + 1
    flat = rows + width * np.arange(len(rows))[:, None]
    counts = np.bincount(flat.ravel(), minlength=len(rows) * width).reshape(len(rows), width)
    ranks = np.take_along_axis(counts.cumsum(1) - (counts - 1) / 2, rows, axis=1)
    return ranks.reshape(levels.shape)


def resamples(x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """(RESAMPLES,) values of each of RESAMPLED, images drawn with replacement from (n,) readable
    ones: the same draws for every figure, and for every x of the same n and seed."""
    levels = _levels(x), _levels(y)
    return {"plcc": _resampled(_pearson, x, y, seed), "srcc": _resampled(_spearman, *levels, seed),
            "rmse": _resampled(_rmse, x, y, seed), "mae": _resampled(_mae, x, y, seed)}


def _resampled(statistic: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray, seed: int
               ) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        return bootstrap((x, y), statistic, paired=True, vectorized=True, method="percentile",
                         n_resamples=RESAMPLES, batch=max(1, CHUNK // len(x)),
                         rng=np.random.default_rng(seed)).bootstrap_distribution


def between(values: np.ndarray, n: int) -> np.ndarray:
    """(2,) ends of 95 %, from (RESAMPLES,) figures of n resampled images.

    Resamples of few spread less than samples do. The ends are Hesterberg's expanded percentiles
    (arXiv 1411.5279), 2.1 and 97.9 at n = 50: with them a mean's interval is Student's. A resample
    without spread has no correlation and is left out, where scipy's percentiles would be NaN.
    """
    tail = 100 * norm.cdf(-student.ppf(0.975, n - 1) * np.sqrt(n / (n - 1)))
    return np.percentile(values[np.isfinite(values)], (tail, 100 - tail))


def _interval(values: np.ndarray | None, estimate: float | None, n: int) -> list[float] | None:
    """95 % interval of an `estimate` whose resampled values are (RESAMPLES,): `between`'s, widened
    to its estimate, which lies outside when it is no typical resample: SRCC at n < 100 with all
    predictions but one alike and that one at an end (by up to 0.01), PLCC of a perfect line (by
    rounding). A BCa interval would be no remedy: it leaves out most of the same.
    """
    if values is None or estimate is None:
        return None
    lo, hi = between(values, n)
    return [float(min(lo, estimate)), float(max(hi, estimate))]


def domain_means(per_set: dict[str, dict], domains: dict[str, str]) -> dict[str, dict]:
    """Plain means over sets as in the paper's tables, the domains apart; sets are never pooled.

    Args:
        per_set: set name -> what `evaluate` returned.
        domains: set name -> "in" or "ood".
    Returns:
        {"in": {"plcc", "srcc", "strict_plcc", "strict_srcc"}, "ood": ..., "all": ...}. A
        correlation that is None counts as 0, because a model that answers a constant has no
        order; a domain without sets has None.
    Raises:
        ValueError: a set whose domain is neither "in" nor "ood".
    """
    for name in per_set:
        if domains.get(name) not in ("in", "ood"):
            raise ValueError(f'the domain of {name} is {domains.get(name)!r}, not "in" or "ood"')
    members = {"in": [m for s, m in per_set.items() if domains[s] == "in"],
               "ood": [m for s, m in per_set.items() if domains[s] == "ood"],
               "all": list(per_set.values())}
    return {domain: {**{key: _mean([m[key] or 0.0 for m in sets]) for key in CORRELATIONS},
                     **{f"strict_{key}": _mean([m["strict"][key] for m in sets])
                        for key in CORRELATIONS}}
            for domain, sets in members.items()}


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def short(value: float | None) -> str:
    """A correlation as the paper prints it: .4513, -.0121, 1.000, or a dash for None."""
    if value is None:
        return DASH
    text = f"{value:.4f}"
    return text[:-1] if abs(value) >= 0.99995 else text.replace("0.", ".", 1)


def percent(share: float | None) -> str:
    """A share in [0, 1] as 12.5 %, or a dash for None."""
    return DASH if share is None else f"{100 * share:.1f} %"


def format_table(stages: dict[str, dict]) -> str:
    """An aligned table for a terminal: one row per stage (e.g. backbone, cold start, RAPO).

    `stages` maps a name to a result with "sets" (name -> {"metrics": as `evaluate` returns}) and
    "mean" (as `domain_means` returns). Columns: PLCC/SRCC of each set, in the order in which sets
    first appear, in-domain, OOD and overall mean, the shares of unreadable and of cut answers.
    """
    names = list(dict.fromkeys(s for result in stages.values() for s in result["sets"]))
    rows = [["PLCC/SRCC", *names, "in-domain", "OOD", "mean", "unreadable", "cut"]]
    for stage, result in stages.items():
        cells = [_pair(result["sets"].get(name, {}).get("metrics")) for name in names]
        means = [_pair(result["mean"][domain]) for domain in ("in", "ood", "all")]
        rows.append([stage, *cells, *means, percent(unreadable(result)),
                     percent(cut_share(result))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                       for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _pair(metrics: dict | None) -> str:
    return DASH if metrics is None else "/".join(short(metrics[key]) for key in CORRELATIONS)


def unreadable(result: dict) -> float:
    """Share in [0, 1] of a stage's answers, over all its sets, that no score could be read from."""
    return _share(result, "parse_fail")


def cut_share(result: dict) -> float:
    """Share in [0, 1] of a stage's answers that were cut at the length limit, readable or not."""
    return _share(result, "cut")


def _share(result: dict, count: str) -> float:
    metrics = [one["metrics"] for one in result["sets"].values()]
    return sum(m[count] for m in metrics) / max(1, sum(m["n"] for m in metrics))

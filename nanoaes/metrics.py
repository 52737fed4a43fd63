"""How well predicted scores agree with people: correlations, errors, bootstrap intervals, a table.

Scores lie on [0, 1]. PLCC is raw, SRCC uses average ranks (two-decimal scores tie often), KRCC is
tau-b. An unreadable answer is None: it is left out of every figure and counted in `parse_fail`.
A figure that does not exist (no order in a constant) is None and never NaN, so that a result can
be written as JSON. Left out: the 4-parameter logistic fit that image-quality papers apply before
PLCC (the paper reports none), and intervals for KRCC and the errors (nobody compares them).
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau

RESAMPLES = 1000
CHUNK = 2_000_000  # numbers of one bootstrap block: bounds its memory to some 100 MB
AVA_SCALE = (1.0, 10.0)
AVA_BORDER = 5.0  # label and prediction <= 5 is low: the convention of AVA's binary accuracy
CORRELATIONS = ("plcc", "srcc")
DASH = "–"


def evaluate(pred: Sequence[float | None], truth: Sequence[float],
             native_scale: tuple[float, float] | None = None, seed: int = 0) -> dict:
    """Agreement of `pred` (n,) with `truth` (n,), both on [0, 1].

    Args:
        pred: one score per image; None, or a number that is not finite, is an unreadable answer.
        truth: what people said, finite.
        native_scale: (lo, hi) of the set's own scale. Only AVA's (1, 10) is used: for `accuracy`.
        seed: of the bootstrap; the same seed gives the same interval.
    Returns:
        plcc, srcc, krcc in [-1, 1]: None for fewer than 3 readable answers, or where predictions
            or truths are constant. rmse, mae: errors on [0, 1], None when nothing is readable.
        n: all images; parse_fail: how many of them have no readable answer.
        std_ratio: std of predictions / std of truth; below 1 the model shrinks to the mean.
        plcc_ci, srcc_ci: [lo, hi], the 95 % percentile interval over resampled images, or None.
        accuracy: share of images on the right side of AVA's 5, or None on another scale.
    Raises:
        ValueError: different lengths, or a truth that is not finite.
    """
    y = np.asarray(truth, dtype=np.float64)
    x = np.array([np.nan if p is None else p for p in pred], dtype=np.float64)
    if x.shape != y.shape or y.ndim != 1:
        raise ValueError(f"{x.shape} predictions do not match {y.shape} truths")
    if not np.isfinite(y).all():
        raise ValueError("a truth is not finite")
    readable = np.isfinite(x)
    n, fails = len(y), int((~readable).sum())
    x, y = x[readable], y[readable]
    out = {**_correlations(x, y), **_errors(x, y), "n": n, "parse_fail": fails}
    has_order = out["plcc"] is not None
    out["plcc_ci"], out["srcc_ci"] = _intervals(x, y, seed) if has_order else (None, None)
    is_ava = native_scale is not None and tuple(native_scale) == AVA_SCALE
    out["accuracy"] = _accuracy(x, y, *AVA_SCALE) if is_ava and len(x) else None
    return out


def _correlations(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """PLCC, SRCC and KRCC (tau-b) of two (n,) vectors."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"plcc": None, "srcc": None, "krcc": None}
    srcc = _pearson(_ranks(_levels(x)[None]), _ranks(_levels(y)[None]))
    values = {"plcc": _pearson(x[None], y[None])[0], "srcc": srcc[0],
              "krcc": kendalltau(x, y, variant="b").statistic}
    return {key: float(v) if np.isfinite(v) else None for key, v in values.items()}


def _errors(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """RMSE, MAE and the ratio of the spreads, of two (n,) vectors."""
    if len(x) == 0:
        return {"rmse": None, "mae": None, "std_ratio": None}
    rmse, mae = np.sqrt(np.mean((x - y) ** 2)), np.mean(np.abs(x - y))
    spread = float(x.std() / y.std()) if np.ptp(y) > 0 else None
    return {"rmse": float(rmse), "mae": float(mae), "std_ratio": spread}


def _accuracy(x: np.ndarray, y: np.ndarray, lo: float, hi: float) -> float:
    """Share of images whose prediction and label are on the same side of 5 on the native scale."""
    border = (AVA_BORDER - lo) / (hi - lo) + 1e-9  # a label of exactly 5 must survive rounding
    return float(np.mean((x <= border) == (y <= border)))


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row-wise correlation of (R, n) and (R, n) -> (R,); NaN for a row without spread."""
    flat = (x == x[:, :1]).all(1) | (y == y[:, :1]).all(1)  # exact: a rounded std is not 0
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    norm = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    r = (x * y).sum(1) / np.where(flat | (norm == 0), np.nan, norm)
    return np.clip(r, -1.0, 1.0)


def _levels(x: np.ndarray) -> np.ndarray:
    """(n,) -> (n,) int: the place of each value among the distinct values."""
    return np.unique(x, return_inverse=True)[1].reshape(-1)


def _ranks(levels: np.ndarray) -> np.ndarray:
    """Row-wise average ranks of (R, n) levels, by counting instead of sorting.

    c values of one level end at place C (the running count), so their mean rank is C - (c - 1) / 2.
    """
    rows, width = len(levels), int(levels.max()) + 1
    flat = levels + width * np.arange(rows)[:, None]
    counts = np.bincount(flat.ravel(), minlength=rows * width).reshape(rows, width)
    return np.take_along_axis(counts.cumsum(1) - (counts - 1) / 2, levels, axis=1)


def _intervals(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[list | None, list | None]:
    """95 % percentile intervals of PLCC and SRCC; images are drawn with replacement.

    Ranks are computed anew in every resample: the ranks of the whole set, gathered, are not the
    resample's. A resample without spread has no correlation and is left out.
    """
    rng, n = np.random.default_rng(seed), len(x)
    kx, ky = _levels(x), _levels(y)
    draws: dict[str, list[np.ndarray]] = {key: [] for key in CORRELATIONS}
    step = max(1, CHUNK // n)
    for start in range(0, RESAMPLES, step):
        pick = rng.integers(0, n, (min(step, RESAMPLES - start), n))
        draws["plcc"].append(_pearson(x[pick], y[pick]))
        draws["srcc"].append(_pearson(_ranks(kx[pick]), _ranks(ky[pick])))
    return tuple(_percentiles(np.concatenate(draws[key])) for key in CORRELATIONS)


def _percentiles(values: np.ndarray) -> list[float] | None:
    """[2.5 %, 97.5 %] of the finite values, or None when there are none."""
    values = values[np.isfinite(values)]
    return [float(v) for v in np.percentile(values, (2.5, 97.5))] if len(values) else None


def domain_means(per_set: dict[str, dict], domains: dict[str, str]) -> dict[str, dict]:
    """Plain means over sets as in the paper's tables, the domains apart; sets are never pooled.

    Args:
        per_set: set name -> what `evaluate` returned.
        domains: set name -> "in" or "ood".
    Returns:
        {"in": {"plcc", "srcc"}, "ood": ..., "all": ...}. A correlation that is None counts as 0,
        because a model that answers a constant has no order; a domain without sets has None.
    Raises:
        ValueError: a set whose domain is neither "in" nor "ood".
    """
    for name in per_set:
        if domains.get(name) not in ("in", "ood"):
            raise ValueError(f'the domain of {name} is {domains.get(name)!r}, not "in" or "ood"')
    members = {"in": [m for s, m in per_set.items() if domains[s] == "in"],
               "ood": [m for s, m in per_set.items() if domains[s] == "ood"],
               "all": list(per_set.values())}
    return {domain: {key: _mean([m[key] or 0.0 for m in sets]) for key in CORRELATIONS}
            for domain, sets in members.items()}


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def short(value: float | None) -> str:
    """A correlation as the paper prints it: .4513, -.0121, 1.000, or a dash for None."""
    if value is None:
        return DASH
    text = f"{value:.4f}"
    return text[:-1] if abs(value) >= 0.99995 else text.replace("0.", ".", 1)


def format_table(stages: dict[str, dict]) -> str:
    """An aligned table for a terminal: one row per stage (e.g. backbone, cold start, RAPO).

    `stages` maps a name to a result with "sets" (name -> {"metrics": as `evaluate` returns}) and
    "mean" (as `domain_means` returns). Columns: PLCC/SRCC of each set, in the order in which sets
    first appear, in-domain, OOD and overall mean, and the share of unreadable answers.
    """
    names = list(dict.fromkeys(s for result in stages.values() for s in result["sets"]))
    rows = [["PLCC/SRCC", *names, "in-domain", "OOD", "mean", "unreadable"]]
    for stage, result in stages.items():
        cells = [_pair(result["sets"].get(name, {}).get("metrics")) for name in names]
        means = [_pair(result["mean"][domain]) for domain in ("in", "ood", "all")]
        rows.append([stage, *cells, *means, f"{100 * unreadable(result):.1f} %"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                       for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _pair(metrics: dict | None) -> str:
    return DASH if metrics is None else "/".join(short(metrics[key]) for key in CORRELATIONS)


def unreadable(result: dict) -> float:
    """Share in [0, 1] of a stage's answers, over all its sets, that no score could be read from."""
    metrics = [one["metrics"] for one in result["sets"].values()]
    return sum(m["parse_fail"] for m in metrics) / max(1, sum(m["n"] for m in metrics))

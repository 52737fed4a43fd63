"""Does a 95 % interval hold the truth 95 times of 100? Counted on sets whose truth is known.

    python bench/coverage.py                          1,000 sets of 200 pictures, a minute on a core
    python bench/coverage.py --n 1000 --sets 200

Predictions and truths are drawn from a Gaussian of two variables with correlation RHO, spread .2
around .5. Of it every figure is known: PLCC is RHO, SRCC 6/pi asin(RHO / 2), KRCC and pairs follow
from asin(RHO), the rest from integrals. For each drawn set the interval is computed as `eval.py`
does; the last line, JSON, says per figure in which share of the sets it held the true value.
A share of 1,000 sets is itself known to within 1.4 points.
Left out: two-decimal predictions (their true figures have no formula), other distributions.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import multivariate_normal, norm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nanoaes.choices import MARGIN, SIZES, intervals, measure  # noqa: E402
from nanoaes.metrics import RESAMPLED, evaluate  # noqa: E402

RHO, SPREAD = 0.7, 0.2


def true_values(rho: float = RHO, spread: float = SPREAD) -> dict[str, float]:
    """Of the distribution: what infinitely many pictures would give."""
    kendall = 2 / np.pi * np.arcsin(rho)
    apart, slope = MARGIN / spread / np.sqrt(2), rho / np.sqrt(1 - rho**2)
    far = quad(lambda x: norm.pdf(x) * ndtr(slope * x), apart, 10)[0] / norm.sf(apart)
    rmse = spread * np.sqrt(2 - 2 * rho)
    known = {"plcc": rho, "srcc": 6 / np.pi * np.arcsin(rho / 2), "krcc": kendall, "rmse": rmse,
             "mae": rmse * np.sqrt(2 / np.pi), "pairs": (1 + kendall) / 2, "pairs_apart": far}
    return known | {f"{end}_of_{k}": top_of(k, rho) for k in SIZES for end in ("best", "worst")}


def top_of(k: int, rho: float, nodes: int = 60) -> float:
    """Chance that of k the highest prediction is the highest truth: k E[F(x, y)^(k - 1)]."""
    at, weight = np.polynomial.hermite_e.hermegauss(nodes)
    a, b = np.meshgrid(at, at)
    points = np.stack([a, rho * a + np.sqrt(1 - rho**2) * b], axis=-1)
    below = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf(points)
    return float(k * (np.outer(weight, weight) * below ** (k - 1)).sum() / weight.sum() ** 2)


def covered(sets: int, n: int, seed: int = 0) -> dict[str, float]:
    """Share of `sets` drawn sets of n pictures whose interval holds the true value, per figure."""
    truth, rng = true_values(), np.random.default_rng(seed)
    held = dict.fromkeys(truth, 0)
    for i in range(sets):
        x, e = rng.normal(size=(2, n))
        pred, people = 0.5 + SPREAD * x, 0.5 + SPREAD * (RHO * x + np.sqrt(1 - RHO**2) * e)
        found = evaluate(pred, people, seed=i)
        ends = {key: found[f"{key}_ci"] for key in RESAMPLED}
        ends |= intervals(measure(pred, people), i)
        for key, (lo, hi) in ends.items():
            held[key] += lo <= truth[key] <= hi
    return {key: count / sets for key, count in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--n", type=int, default=200)
    args = parser.parse_args()
    begun = time.perf_counter()
    shares = covered(args.sets, args.n)
    for key, value in true_values().items():
        print(f"{key:12} true {value:.4f}  held in {100 * shares[key]:.1f} %")
    print(json.dumps({"sets": args.sets, "n": args.n, "covered": shares,
                      "lowest": min(shares.values()), "highest": max(shares.values()),
                      "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()

"""Does RAPO teach a model to see, or to weigh what it sees? The toy world knows the answer.

    python train_rapo.py && python bench/sight.py          of RUN=runs/toy
    python bench/sight.py RUN RUN …                        means over runs, and each run's

A critique there names levels of five dimensions. A linear model of these words alone, fitted to
people's scores by ordinary least squares, says how well one could score who sees no more than the
critique tells and weighs it as people do (ten folds: no picture scores itself). Beside it the same
of the true levels, which nobody sees. PLCC, mean over the test sets. The last line is JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from nanoaes.metrics import figures  # noqa: E402
from nanoaes.toy.road import quality_of  # noqa: E402
from nanoaes.toy.world import WORDS, read_attributes, read_critique  # noqa: E402

STAGES = ("backbone", "cold start", "RAPO")
FOLDS = 10


def columns(levels: list[dict[str, int]]) -> np.ndarray:
    """(n, 16): of each dimension whether it is said to be bad, fair, good; and a constant."""
    hot = [[float(said.get(name) == level) for name in WORDS for level in range(3)] + [1.0]
           for said in levels]
    return np.array(hot)


def fitted(levels: list[dict[str, int]], truth: np.ndarray) -> float:
    """PLCC with (n,) truth of a linear model of the levels; each tenth by the other nine."""
    x, pred = columns(levels), np.zeros(len(truth))
    fold = np.arange(len(truth)) % FOLDS
    for i in range(FOLDS):
        known = fold != i
        pred[~known] = x[~known] @ np.linalg.lstsq(x[known], truth[known], rcond=None)[0]
    return figures(pred, truth)["plcc"]


def look(run: Path) -> dict[str, float]:
    """One run's figures."""
    notes, out = read_attributes(run / "world"), {}
    for stage in STAGES:
        sets = json.loads((run / f"eval_{stage.replace(' ', '_')}.json").read_text())["sets"]
        rows = []
        for part in sets.values():
            items = part["items"]
            truth = np.array([item["truth"] for item in items])
            said = [read_critique(item["text"]) for item in items]
            real = [dict(zip(WORDS, notes[Path(i["image"]).resolve()], strict=True)) for i in items]
            rows.append((part["metrics"]["plcc"], fitted(said, truth), quality_of(items, notes)[1],
                         fitted(real, truth)))
        for key, value in zip(("written", "of its words", "right", "true levels"),
                              np.mean(rows, axis=0), strict=True):
            out[f"{stage}: {key}"] = float(value)
    return out


def main() -> None:
    runs = [Path(word) for word in sys.argv[1:]] or [ROOT / "runs" / "toy"]
    found = [look(run) for run in runs]
    print(f"{'':12} PLCC of the score written | of a linear model of its words | named rightly")
    for stage in STAGES:
        cells = (" · ".join(f"{one[f'{stage}: {key}']:.3f}" for one in found)
                 for key in ("written", "of its words", "right"))
        print(f"{stage:12} " + " | ".join(cells))
    print("of the true levels: " + " · ".join(f"{one['RAPO: true levels']:.3f}" for one in found))
    print(json.dumps({key: round(float(np.mean([one[key] for one in found])), 4)
                      for key in found[0]}))


if __name__ == "__main__":
    main()

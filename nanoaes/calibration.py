"""A few labels of one's own: a map from the model's scores to them, and what it mends.

A model may order pictures rightly and yet be kinder than the people it stands for. With p a score
and y a label, both on [0, 1],

    y = sigmoid(a logit(p) + b),  a >= 0, by least squares.

Two numbers, because labels are few: the steps of isotonic regression would follow single ones. Nor
does a slope above 0 put two pictures in one place, as steps do: between EDGE and 1 - EDGE the
order, and so SRCC, stays as it was. What was fitted on is not judged by: pictures with a label are
left out before and after.
Left out: a map of its own for each set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit

from nanoaes.datasets import Example
from nanoaes.errors import UserError
from nanoaes.metrics import RESAMPLED, evaluate

EDGE = 0.005  # half of an answer's last digit: 0 and 1 have no logit
REPORTED = ("n", *RESAMPLED, *(f"{key}_ci" for key in RESAMPLED))


@dataclass(frozen=True)
class Map:
    """y = sigmoid(slope logit(p) + shift)."""

    slope: float
    shift: float

    def __call__(self, pred: Sequence[float | None]) -> list[float | None]:
        """Mapped scores; None stays None."""
        return [None if p is None else float(expit(self.slope * _logit(p) + self.shift))
                for p in pred]


def _logit(p: float | np.ndarray) -> np.ndarray:
    return logit(np.clip(p, EDGE, 1 - EDGE))


def fit(pred: Sequence[float | None], labels: Sequence[float]) -> Map:
    """The map of (n,) scores, None where unreadable, onto (n,) labels.

    Raises:
        UserError: fewer than 3 readable answers, or scores all alike.
    """
    pairs = [(p, y) for p, y in zip(pred, labels, strict=True) if p is not None]
    if len({p for p, _ in pairs}) < 2 or len(pairs) < 3:
        raise UserError(f"--calibrate: {len(pairs)} of {len(labels)} labelled pictures have a "
                        "readable score, and a map needs 3, of different scores; label more")
    z, y = _logit(np.array(pairs)[:, 0]), np.array(pairs)[:, 1]
    slope, shift = least_squares(lambda w: expit(w[0] * z + w[1]) - y, [1.0, 0.0],
                                 bounds=([0, -np.inf], np.inf)).x
    return Map(float(slope), float(shift))


def before_and_after(few: Sequence[Example], few_items: Sequence[dict], sets: dict[str, dict],
                     seed: int) -> dict:
    """The map of a few labelled pictures, and every set without them before and after it.

    Args:
        few_items: the model's answers to `few`.
        sets: name -> {"items"} of a result.
    Returns:
        {"labels", "slope", "shift", "sets": {name: {"before", "after"}}} of REPORTED figures.
    Raises:
        UserError: as `fit`.
    """
    mapped = fit([item["pred"] for item in few_items], [e.score for e in few])
    labelled = {Path(e.image).resolve() for e in few}
    told = {}
    for name, part in sets.items():
        rest = [i for i in part["items"] if Path(i["image"]).resolve() not in labelled]
        pred, truth = [i["pred"] for i in rest], [i["truth"] for i in rest]
        both = {"before": evaluate(pred, truth, seed=seed),
                "after": evaluate(mapped(pred), truth, seed=seed)}
        told[name] = {when: {key: found[key] for key in REPORTED} for when, found in both.items()}
    return {"labels": len(few), "slope": mapped.slope, "shift": mapped.shift, "sets": told}

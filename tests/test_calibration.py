"""The map of a few labels: found again, monotone, better than none, never judged by its own."""

import numpy as np
import pytest
from scipy.special import expit, logit

from nanoaes.calibration import EDGE, Map, fit
from nanoaes.details import calibrated
from nanoaes.errors import UserError


def test_a_map_is_found_again() -> None:
    pred = np.linspace(0.1, 0.9, 12)
    for slope, shift in ((1.7, -0.6), (0.4, 1.0)):
        got = fit(pred.tolist(), expit(slope * logit(pred) + shift))
        assert (got.slope, got.shift) == pytest.approx((slope, shift), abs=1e-4)


def test_order_is_kept_and_ends_are_scores() -> None:
    pred = [0.0, 0.01, 0.5, 0.99, 1.0]
    got = Map(2.0, -1.0)(pred)
    assert np.all(np.diff(got) > 0) and 0 < got[0] < got[-1] < 1
    assert got[2] == pytest.approx(expit(-1.0)) and got[0] == expit(2 * logit(EDGE) - 1)
    assert Map(1.0, 0.0)([None, 0.3]) == [None, pytest.approx(0.3)]


def test_labels_against_the_scores_give_no_reversed_order() -> None:
    got = fit([0.2, 0.4, 0.6, 0.8], [0.9, 0.6, 0.5, 0.1])
    assert got.slope == pytest.approx(0, abs=1e-6)
    told = "\n".join(calibrated({"labels": 4, "slope": got.slope, "shift": 0.1, "sets": {}}))
    assert "labels do not rise with the scores" in told
    assert "do not rise" not in "".join(calibrated({"labels": 4, "slope": 0.1, "shift": 0.1,
                                                    "sets": {}}))


def test_a_kind_judge_of_few_labels_is_mended() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(400)
    pred = np.clip(0.5 + 0.5 * truth + rng.normal(0, 0.08, 400), 0, 1)
    mapped = fit(pred[:20].tolist(), truth[:20])(pred[20:])
    off = [np.sqrt(np.mean((np.array(x) - truth[20:]) ** 2)) for x in (pred[20:], mapped)]
    assert off[1] < 0.7 * off[0]


@pytest.mark.parametrize("pred", [[0.3, 0.4], [0.3, None, 0.4], [0.3] * 5])
def test_too_few_labels_are_refused(pred: list[float | None]) -> None:
    with pytest.raises(UserError, match="^--calibrate: .* label more$"):
        fit(pred, np.linspace(0, 1, len(pred)))

"""Choosing among pictures against every set of them, one by one; intervals against known truths."""

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench import coverage
from nanoaes import choices
from nanoaes.choices import CHANCE, MARGIN, NAMES, best_of, intervals, measure, pairs, told
from nanoaes.metrics import evaluate


def slow(pred: np.ndarray, truth: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    """Every set of k: is the pick right? The share, and each picture's influence, by definition."""
    n, total, own = len(pred), 0.0, np.zeros(len(pred))
    for some in map(list, itertools.combinations(range(n), k)):
        if np.isfinite(pred[some]).all():
            picks = [i for i in some if pred[i] == max(pred[some])]
            right = sum(truth[i] == max(truth[some]) for i in picks) / len(picks)
            total += right
            own[some] += right
    share = total / comb(n, k)
    return share, k * (own / comb(n - 1, k - 1) - share)


LISTS = st.lists(st.tuples(st.integers(0, 6) | st.none(), st.integers(0, 6)), min_size=2,
                 max_size=10)


@settings(max_examples=60)
@given(LISTS)
def test_every_set_is_counted_once(rows: list) -> None:
    """With ties in prediction and in truth, and unreadable answers."""
    pred = np.array([np.nan if p is None else p / 6 for p, _ in rows])
    truth = np.array([t / 6 for _, t in rows])
    for k, got in zip((2, 3, 4, 8), best_of(pred, truth, (2, 3, 4, 8)), strict=True):
        if k > len(rows) or np.ptp(truth) == 0:
            assert got.value is None and not got.influence.any()
            continue
        share, influence = slow(pred, truth, k)
        assert got.value == pytest.approx(share, abs=1e-12)
        np.testing.assert_allclose(got.influence, influence, atol=1e-12)


@settings(max_examples=60)
@given(LISTS)
def test_every_pair_is_counted_once(rows: list) -> None:
    pred = np.array([np.nan if p is None else p / 6 for p, _ in rows])
    truth = np.array([t / 20 for _, t in rows])  # .05 apart: .1 is not more than the margin
    got = pairs(pred, truth)
    for name, steps in (("pairs", 0), ("pairs_apart", 2)):
        marks = [0.0 if np.isnan(pred[[i, j]]).any() else 0.5 if pred[i] == pred[j] else
                 float((pred[i] > pred[j]) == (truth[i] > truth[j]))
                 for i, j in itertools.combinations(range(len(rows)), 2)
                 if abs(rows[i][1] - rows[j][1]) > steps]
        want = float(np.mean(marks)) if marks else None
        assert got[name].value == pytest.approx(want, abs=1e-12)
        assert got[name].influence.sum() == pytest.approx(0, abs=1e-9)
    read = np.isfinite(pred)
    if read.sum() < 2 or np.ptp(pred[read]) == 0 or np.ptp(truth[read]) == 0:
        assert got["krcc"].value is None
    else:
        tau = stats.kendalltau(pred[read], truth[read]).statistic
        assert got["krcc"].value == pytest.approx(tau, abs=1e-12)


@pytest.mark.parametrize("name", ["pairs", "pairs_apart", "krcc"])
def test_the_influence_of_a_pair_figure_is_its_slope(name: str) -> None:
    """A picture counted a little more often moves the figure by its influence: by differences."""
    rng = np.random.default_rng(1)
    n, step = 30, 1e-6
    truth = np.round(rng.random(n), 2)
    pred = np.round(truth + rng.normal(0, 0.3, n), 1)
    pred[:3] = np.nan
    times = np.ones(n)

    def value() -> float:
        """Weighted by how often each picture is there."""
        weight = np.triu(np.outer(times, times), 1)
        gap = truth[:, None] - truth
        order = np.nan_to_num(np.sign(pred[:, None] - pred))
        agree, known = order * np.sign(gap), np.outer(np.isfinite(pred), np.isfinite(pred))
        far = np.abs(gap) > (MARGIN if name == "pairs_apart" else 0) + 1e-9
        if name == "krcc":
            return (weight * agree).sum() / np.sqrt((weight * order**2).sum()
                                                    * (weight * known * far).sum())
        return (weight * far * known * (1 + agree)).sum() / 2 / (weight * far).sum()

    measured, base = measure(pred.tolist(), truth)[name], value()
    assert measured.value == pytest.approx(base)
    for i in range(n):
        times[i] += step
        # n · slope: a picture drawn once more has a share of 1 / n more.
        assert measured.influence[i] == pytest.approx(n * (value() - base) / step, abs=1e-3)
        times[i] -= step


def test_blocks_change_nothing(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(50)
    pred = np.round(truth + rng.normal(0, 0.2, 50), 1).tolist()
    whole = measure(pred, truth)
    monkeypatch.setattr(choices, "CHUNK", 333)
    for name, got in measure(pred, truth).items():
        assert got.value == pytest.approx(whole[name].value, abs=1e-13)
        np.testing.assert_allclose(got.influence, whole[name].influence, atol=1e-12)


def test_the_same_score_for_all_is_chance() -> None:
    truth = np.linspace(0, 1, 20)
    got = told(measure([0.4] * 20, truth))
    assert {name: got[name] for name in NAMES} == pytest.approx(CHANCE)
    assert got["krcc_ci"] is None


def test_the_ends_are_told_apart() -> None:
    """A model that knows the worst picture only: sure of the worst, random about the best."""
    truth = np.linspace(0, 1, 9)
    got = measure([0.1] + [0.9] * 8, truth)
    assert got["worst_of_8"].value == pytest.approx(8 / 9 + 1 / 9 / 8)
    assert got["best_of_8"].value == pytest.approx(8 / 9 / 7 + 1 / 9 / 8)


def test_unreadable_answers_choose_wrongly() -> None:
    truth = np.linspace(0, 1, 12)
    full, gap = measure(truth, truth), measure([None, *truth[1:]], truth)
    assert [full[name].value for name in NAMES] == [1.0] * 6
    assert gap["best_of_4"].value == pytest.approx(comb(11, 4) / comb(12, 4))
    assert gap["pairs"].value == pytest.approx(comb(11, 2) / comb(12, 2))
    assert measure([None] * 12, truth)["best_of_4"].value == 0.0


@pytest.mark.parametrize("pred, truth", [([], []), ([0.1], [0.2]), ([0.1] * 9, [0.5] * 9)])
def test_what_does_not_exist_is_none(pred: list[float], truth: list[float]) -> None:
    got = told(measure(pred, truth))
    assert set(got.values()) == {None} and len(got) == 2 * len(NAMES) + 1
    with pytest.raises(ValueError, match="do not match"):
        measure([*pred, 0.5], truth)


def test_intervals_are_seeded_hold_the_value_and_stay_in_bounds() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(40)
    for noise in (0.01, 0.1, 1.0):
        measures = measure(truth + rng.normal(0, noise, 40), truth)
        a, b, c = (intervals(measures, seed) for seed in (0, 0, 1))
        assert a == b != c
        for name, (lo, hi) in a.items():
            assert measures[name].bounds[0] <= lo <= measures[name].value <= hi <= 1


def test_ends_are_stretched_where_sets_are_few() -> None:
    moved = np.linspace(-1, 1, 1001)
    few = stats.t.ppf(0.975, 5.25) / stats.norm.ppf(0.975) * (50 / 42) ** 0.5
    for k, n, by in ((8, 50, few), (2, 10**6, 1.0)):
        assert choices.ends(moved, k, n).tolist() == pytest.approx([-0.95 * by, 0.95 * by], 1e-4)


def test_the_truth_lies_in_95_of_100_intervals() -> None:
    """A short run of bench/coverage.py; of 100 a share of .95 is known to within .045."""
    held = coverage.covered(100, 100, seed=1)
    assert len(held) == 11 and min(held.values()) >= 0.88
    assert 0.92 < np.mean(list(held.values())) < 0.98


def test_the_true_values_are_what_many_pictures_give() -> None:
    rng, known = np.random.default_rng(0), coverage.true_values()
    x, e = rng.normal(size=(2, 3000))
    pred, truth = 0.5 + 0.2 * x, 0.5 + 0.2 * (0.7 * x + np.sqrt(1 - 0.49) * e)
    found = {name: m.value for name, m in measure(pred, truth).items()}
    for name, value in found.items():
        assert value == pytest.approx(known[name], abs=0.04)
    for key in ("plcc", "srcc", "rmse", "mae"):
        assert evaluate(pred, truth)[key] == pytest.approx(known[key], abs=0.03)

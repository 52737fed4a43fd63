"""Metrics against their definitions and a bootstrap written as a loop; ties, gaps, constants."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nanoaes import metrics
from nanoaes.metrics import (
    cut_share,
    domain_means,
    evaluate,
    format_table,
    percent,
    short,
    strict_scores,
    unreadable,
)


def sample(n: int, seed: int = 0, noise: float = 0.2) -> tuple[list[float], list[float]]:
    """Two-decimal predictions (many ties) and truths."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n)
    pred = np.clip(truth + rng.normal(0, noise, n), 0, 1)
    return np.round(pred, 2).tolist(), truth.tolist()


def slow_ranks(x: np.ndarray) -> np.ndarray:
    """By definition: the mean of the places that a value and its equals take."""
    return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x])


def slow_tau_b(x: np.ndarray, y: np.ndarray) -> float:
    """Concordant minus discordant pairs, over the geometric mean of the pairs without ties."""
    a, b = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def test_values_against_their_definitions():
    pred, truth = sample(300)
    got = evaluate(pred, truth)
    x, y = np.array(pred), np.array(truth)
    assert got["plcc"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert got["srcc"] == pytest.approx(np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1])
    assert got["krcc"] == pytest.approx(slow_tau_b(x, y))
    assert got["rmse"] == pytest.approx(np.sqrt(((x - y) ** 2).mean()))
    assert got["mae"] == pytest.approx(np.abs(x - y).mean())
    assert got["std_ratio"] == pytest.approx(x.std() / y.std())
    assert got["n"] == 300 and got["parse_fail"] == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=20))
def test_ties(pairs):
    x, y = np.array(pairs).T / 4
    got = evaluate(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert got["plcc"] is got["srcc"] is got["krcc"] is got["plcc_ci"] is got["srcc_ci"] is None
    else:
        want = np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1]
        assert got["plcc"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
        assert got["srcc"] == pytest.approx(want, abs=1e-12)
        assert got["krcc"] == pytest.approx(slow_tau_b(x, y), abs=1e-12)


def test_two_pictures_are_in_order_or_not_and_have_no_interval():
    for pred, sign in (([0.1, 0.4], 1.0), ([0.4, 0.1], -1.0)):
        got = evaluate(pred, [0.2, 0.9])
        assert [got[key] for key in ("plcc", "srcc", "krcc")] == [sign] * 3
        assert [got[f"{key}_ci"] for key in metrics.RESAMPLED] == [None] * 4


@settings(max_examples=50)
@given(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=0, max_size=12))
def test_tied_pairs_are_counted_among_the_readable(scores):
    pred = [None if s is None else s / 4 for s in scores]
    got, known = evaluate(pred, [0.5] * len(pred)), [p for p in pred if p is not None]
    pairs = [a == b for i, a in enumerate(known) for b in known[:i]]
    assert got["distinct"] == len(set(known))
    assert got["ties"] == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_ranks_are_average_ranks():
    levels = np.random.default_rng(0).integers(0, 5, (7, 30))
    np.testing.assert_allclose(metrics._ranks(levels), stats.rankdata(levels, axis=1))


def test_bootstrap_against_a_loop():
    pred, truth = sample(40, seed=3)
    got = evaluate(pred, truth, seed=7)
    picks = np.random.default_rng(7).integers(0, 40, (metrics.RESAMPLES, 40))
    x, y = np.array(pred), np.array(truth)
    plcc = [np.corrcoef(x[p], y[p])[0, 1] for p in picks]
    ranks = [(stats.rankdata(x[p]), stats.rankdata(y[p])) for p in picks]
    srcc = [np.corrcoef(a, b)[0, 1] for a, b in ranks]
    tail = 100 * stats.t.sf(2.0226909 * np.sqrt(40 / 39), 1e9)  # Student's 97.5 % of 39 in a normal
    np.testing.assert_allclose(got["plcc_ci"], np.percentile(plcc, (tail, 100 - tail)), 1e-6)
    np.testing.assert_allclose(got["srcc_ci"], np.percentile(srcc, (tail, 100 - tail)), 1e-6)
    off = (x - y)[picks]
    for key, values in (("rmse", np.sqrt((off**2).mean(1))), ("mae", np.abs(off).mean(1))):
        np.testing.assert_allclose(got[f"{key}_ci"], np.percentile(values, (tail, 100 - tail)),
                                   1e-6)


@pytest.mark.parametrize("n", [10, 50, 1000])
def test_of_a_mean_the_interval_is_students(n):
    """The resampled means of n numbers are near a normal, of their own spread over n."""
    x = np.random.default_rng(n).normal(size=n)
    means = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000, x.mean(), x.std() / n**0.5)
    want = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    np.testing.assert_allclose(metrics.between(np.append(means, np.nan), n), want, atol=1e-3)


def test_bootstrap_is_seeded_and_brackets_the_value():
    pred, truth = sample(200)
    a, b, c = (evaluate(pred, truth, seed=s) for s in (0, 0, 1))
    assert a == b and a["srcc_ci"] != c["srcc_ci"]
    for key in ("plcc", "srcc"):
        assert a[key + "_ci"][0] < a[key] < a[key + "_ci"][1]


def test_bootstrap_in_blocks(monkeypatch):
    """The interval does not depend on the size of the blocks; the last one here is not full."""
    pred, truth = sample(50)
    whole = evaluate(pred, truth)
    monkeypatch.setattr(metrics, "CHUNK", 333)
    assert evaluate(pred, truth) == whole


def test_an_interval_holds_its_estimate(monkeypatch):
    """Bare percentiles miss it some 30 times: one prediction unlike the others; a perfect line."""
    monkeypatch.setattr(metrics, "RESAMPLES", 200)
    rng = np.random.default_rng(0)
    for i in range(300):
        truth = rng.random(rng.integers(3, 20))
        alike = np.full(len(truth), 0.5)
        alike[0] = 0.9
        noisy = np.round(truth + rng.normal(0, rng.choice((0.01, 0.3, 3)), len(truth)), 2)
        got = evaluate((alike, 0.3 * truth + 0.1, noisy)[i % 3], truth, seed=i)
        for key in ("plcc", "srcc"):
            if got[key] is not None:
                lo, hi = got[key + "_ci"]
                assert -1 <= lo <= got[key] <= hi <= 1


def test_half_width_at_a_thousand():
    """The SRCC interval's half-width is about .045 at n = 1,000 (at SRCC near .5)."""
    pred, truth = sample(1000, noise=0.5)
    start = time.process_time()
    lo, hi = evaluate(pred, truth)["srcc_ci"]
    assert 0.03 < (hi - lo) / 2 < 0.06
    assert time.process_time() - start < 3  # well under one on an idle core


def test_unreadable_answers_are_left_out_and_counted():
    pred, truth = sample(30)
    full = evaluate(pred, truth)
    got = evaluate([*pred, None, float("nan"), None], [*truth, 0.1, 0.2, 0.9])
    assert got["n"] == 33 and got["parse_fail"] == 3
    same = set(full) - {"n", "parse_fail", "strict"}
    assert {k: got[k] for k in same} == {k: full[k] for k in same}


@pytest.mark.parametrize("pred", [[0.5] * 5, [0.1, None, None, None, None], [None] * 5])
def test_no_order_is_none_and_json_safe(pred):
    got = evaluate(pred, [0.1, 0.2, 0.3, 0.4, 0.5], (1, 10))
    assert [got[k] for k in ("plcc", "srcc", "krcc", "plcc_ci", "srcc_ci")] == [None] * 5
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_constant_answer_keeps_its_errors():
    got = evaluate([0.5] * 3, [0.25, 0.5, 0.75])
    assert got["std_ratio"] == 0.0 and got["mae"] == pytest.approx(1 / 6)
    assert evaluate([0.1, 0.2, 0.3], [0.5] * 3)["std_ratio"] is None


def test_empty():
    got = evaluate([], [])
    assert got["n"] == 0 and got["plcc"] is None and got["rmse"] is None


def test_ava_accuracy_at_native_five():
    """A label of exactly 5 is low; so is a prediction of exactly 5."""
    truth = [(v - 1) / 9 for v in (5.0, 5.1, 3.0, 8.0)]
    got = evaluate([0.44, 0.44, (5 - 1) / 9, 0.9], truth, native_scale=(1, 10))
    assert got["accuracy"] == 0.75
    assert evaluate([0.1, 0.2, 0.3, 0.4], truth, native_scale=(1, 5))["accuracy"] is None
    assert evaluate([0.1, 0.2, 0.3, 0.4], truth)["accuracy"] is None


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="do not match"):
        evaluate([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="not finite"):
        evaluate([0.1, 0.2], [0.1, float("nan")])


def test_the_strict_figures_set_each_gap_to_the_farther_end():
    pred, truth = [0.2, None, float("inf"), 0.9, None], [0.3, 0.1, 0.7, 0.8, 0.5]
    filled = [0.2, 1.0, 0.0, 0.9, 0.0]
    assert strict_scores(pred, truth).tolist() == filled
    want = evaluate(filled, truth)
    assert evaluate(pred, truth)["strict"] == {k: want[k] for k in ("plcc", "srcc")}
    with pytest.raises(ValueError, match="do not match"):
        strict_scores([None], truth)


def test_the_strict_figures_are_the_plain_ones_when_all_is_readable():
    pred, truth = sample(64)
    got = evaluate(pred, truth)
    assert got["strict"] == {"plcc": got["plcc"], "srcc": got["srcc"]}
    assert evaluate([0.5] * 64, truth)["strict"] == {"plcc": 0.0, "srcc": 0.0}


def test_three_readable_answers_in_order_lose_against_64_mediocre_ones():
    mediocre, truth = sample(64, noise=0.5)
    few = [t if i < 3 else None for i, t in enumerate(truth)]
    means = [domain_means({"A": evaluate(p, truth)}, {"A": "in"})["in"] for p in (few, mediocre)]
    lucky, honest = means
    assert lucky["plcc"] + lucky["srcc"] == pytest.approx(2)
    assert 0.5 < honest["plcc"] + honest["srcc"] < 1.5
    assert lucky["strict_plcc"] + lucky["strict_srcc"] < 0
    assert (honest["strict_plcc"], honest["strict_srcc"]) == (honest["plcc"], honest["srcc"])


def test_cut_answers_are_counted_apart_from_unreadable_ones():
    pred, truth = sample(4)
    assert evaluate(pred, truth)["cut"] == 0
    for marks in ([True, False, False, True], np.array([True, False, False, True])):
        got = evaluate([None, None, *pred[2:]], truth, cut=marks)
        assert got["cut"] == 2 and got["parse_fail"] == 2
    assert json.loads(json.dumps(got)) == got
    with pytest.raises(ValueError, match="3 marks of a cut do not match 4"):
        evaluate(pred, truth, cut=[True] * 3)


def test_means_are_plain_and_none_counts_as_zero():
    def one(plcc, srcc, strict_plcc, strict_srcc):
        return {"plcc": plcc, "srcc": srcc, "strict": {"plcc": strict_plcc, "srcc": strict_srcc}}
    sets = {"A": one(0.6, 0.4, 0.5, 0.3), "B": one(None, None, 0.0, -0.1), "C": one(0.9, 0.8, 1, 0)}
    got = domain_means(sets, {"A": "in", "B": "in", "C": "ood"})
    assert got["in"] == pytest.approx(
        {"plcc": 0.3, "srcc": 0.2, "strict_plcc": 0.25, "strict_srcc": 0.1})
    assert got["ood"] == {"plcc": 0.9, "srcc": 0.8, "strict_plcc": 1, "strict_srcc": 0}
    assert got["all"]["plcc"] == pytest.approx(0.5)
    assert set(domain_means({}, {})["all"].values()) == {None}
    with pytest.raises(ValueError, match="domain of A"):
        domain_means({"A": sets["A"]}, {"A": "out"})


def test_short():
    assert [short(v) for v in (0.45126, -0.0121, 1.0, 0.99999, None)] == [
        ".4513", "-.0121", "1.000", "1.000", "–"]


def test_table_is_aligned():
    pred, truth = sample(20)
    good, bad = evaluate(pred, truth), evaluate([None] * 20, truth)
    stages = {}
    for name, m in (("backbone", bad), ("RAPO", good)):
        sets = {"AVA": {"metrics": m}, "a long set": {"metrics": m}}
        stages[name] = {"sets": sets, "mean": domain_means(
            {"AVA": m, "a long set": m}, {"AVA": "in", "a long set": "in"})}
    del stages["backbone"]["sets"]["AVA"]
    lines = format_table(stages).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    assert f"{short(good['plcc'])}/{short(good['srcc'])}" in lines[3]
    assert "100.0 %" in lines[2] and unreadable(stages["backbone"]) == 1.0


def test_table_has_the_share_of_cut_answers():
    pred, truth = sample(20)
    m = evaluate(pred, truth, cut=[True] * 5 + [False] * 15)
    result = {"sets": {"A": {"metrics": m}, "B": {"metrics": evaluate(pred, truth)}},
              "mean": domain_means({"A": m}, {"A": "in"})}
    head, _, row = format_table({"RAPO": result}).splitlines()
    assert head.endswith("  unreadable     cut") and row.endswith(" 0.0 %  12.5 %")
    assert cut_share(result) == 0.125
    assert percent(None) == "–" and percent(1) == "100.0 %"


@pytest.mark.parametrize("lo, hi", [(0.5, 0.95), (0.0, 0.4), (0.3, 0.9)])
def test_reading_only_the_best_pictures_looks_like_no_order(lo: float, hi: float):
    """In a set whose truths lie on one side of 0.5, too."""
    truth = np.linspace(lo, hi, 64)
    few = [t if t >= truth[-8] else None for t in truth]
    strict = evaluate(few, truth)["strict"]
    assert strict["plcc"] < 0 and strict["srcc"] < 0

"""Critique quality: each figure by hand, repetition against draws, and its price."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest

from nanoaes import quality, says
from nanoaes.quality import KEYS, OTHERS, add_quality, means, of_each, repetition

RICH = ("The light is soft. The mood is calm. The composition is balanced but the frame is "
        "cluttered. Colors are muted. The exposure is even. Overall, a strong picture.")


def item(critique: str, truth: float = 0.8, pred: float | None = 0.9) -> dict:
    return {"text": f"<think>{critique}</think><answer>{pred}</answer>", "truth": truth,
            "pred": pred}


def result(*sets: list[dict]) -> dict:
    return {"sets": {f"set {i}": {"items": items} for i, items in enumerate(sets)}}


def test_each_figure_by_hand() -> None:
    items = [item(RICH), item(RICH, truth=0.3, pred=0.5),
             item("A weak picture.", truth=0.39, pred=0.4),
             item("Flat light.", truth=0.1, pred=None)]
    add_quality(found := result(items), seed=0)
    of_set = found["sets"]["set 0"]["critiques"]
    assert of_set["level"] == 2 / 4  # the first and the third; the last one does not judge
    assert of_set["consistent"] == 1 / 3  # of those with a score
    assert of_set["coverage"] == (5 + 5 + 0 + 1) / 4 and of_set["both"] == 2 / 4
    assert of_set["words"] == (2 * len(RICH.split()) + 3 + 2) / 4
    assert of_set["repetition"] == 2 / 4  # two are alike, two stand alone
    assert found["critiques"] == of_set


def test_means_are_over_sets_and_never_pooled() -> None:
    sets = [item(RICH)] * 8, [item("A weak picture.")] * 2, [item("")]
    add_quality(found := result(*sets), seed=0)
    assert found["critiques"]["level"] == 0.5 and found["critiques"]["coverage"] == 2.5
    assert found["sets"]["set 2"]["critiques"] is None
    looked = means(found["sets"])
    assert looked == {f"eval_{key}": found["critiques"][key] for key in KEYS}


def test_without_critiques_there_are_no_figures() -> None:
    add_quality(found := result([item("")]), seed=0)
    assert found["critiques"] is None and means(found["sets"]) == {}
    assert "eval_consistent" not in means(result([item("A picture.", pred=None)])["sets"])


def test_the_interval_is_the_binomial_one() -> None:
    """Of 0 and 1, against normal theory at n = 400: p ± 1.96 √(p(1-p)/n)."""
    items = [item(RICH)] * 300 + [item("A weak picture.")] * 100
    add_quality(found := result(items), seed=0)
    lo, hi = found["critiques"]["level_ci"]
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert lo == pytest.approx(0.75 - half, abs=0.006)
    assert hi == pytest.approx(0.75 + half, abs=0.006)
    add_quality(again := result(items), seed=0)
    assert again == found
    add_quality(four := result(*[items] * 4), seed=0)
    low, high = four["critiques"]["level_ci"]
    assert high - low == pytest.approx((hi - lo) / 2, rel=0.12)  # the sets' chances are their own


def test_repetition_is_the_mean_over_all_batches(monkeypatch) -> None:
    monkeypatch.setattr(quality, "OTHERS", 2)
    texts = ["a b c d e", "a b c d", "b c d e f", "x", "X!", "a b c d e f"]
    runs = [says.runs(text, quality.RUN) for text in texts]
    for i, own in enumerate(runs):
        rest = [r for j, r in enumerate(runs) if j != i]
        shares = [len(own & set().union(*pair)) / len(own)
                  for pair in itertools.combinations(rest, 2)]
        assert repetition(texts)[i] == pytest.approx(np.mean(shares))


def test_repetition_does_not_grow_with_the_set() -> None:
    rng = np.random.default_rng(0)
    openings = [" ".join(f"w{w}" for w in rng.integers(0, 10**6, 4)) for _ in range(300)]

    def texts(n: int) -> list[str]:
        return [openings[i] for i in rng.integers(0, len(openings), n)]

    small = np.mean([repetition(texts(OTHERS + 1)).mean() for _ in range(40)])
    assert repetition(texts(4000)).mean() == pytest.approx(small, abs=0.02)
    assert small == pytest.approx(1 - (1 - 1 / 300) ** OTHERS, abs=0.02)


@pytest.mark.parametrize("texts, mean", [(["a b c d e"] * 3, 1.0), (["a b c d", "e f g h"], 0.0),
                                         (["a b c d"], 0.0), (["a b c d", ""], 0.0)])
def test_repetition_at_its_ends(texts: list[str], mean: float) -> None:
    assert np.nanmean(repetition(texts)) == mean


def test_a_look_at_128_critiques_costs_little() -> None:
    lines = (Path(__file__).parent / "says.txt").read_text(encoding="utf-8").splitlines()
    items = [item(line.split(": ", 1)[1]) for line in lines][:64] * 2
    of_each(items)
    begun = time.process_time()
    of_each(items)
    assert time.process_time() - begun < 0.5  # some 0.04 on an idle core

"""bench/cold.py: two arms that differ in what the critiques say and in nothing else."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench import cold
from nanoaes.cot import score_level


def test_both_arms_learn_as_much_of_each_level() -> None:
    rng = np.random.default_rng(0)
    rows = [{"image": f"{i}.png", "score": float(s), "critique": str(i), "kept": bool(k), "leak": 0}
            for i, (s, k) in enumerate(zip(rng.random(300), rng.random(300) < 0.7, strict=True))]
    some = cold.drawn(rows, 3)
    want = Counter(score_level(row["score"]) for row in rows if row["kept"])
    assert Counter(score_level(row["score"]) for row in some) == want
    assert len({row["image"] for row in some}) == len(some) == want.total()
    faulty = {row["image"] for row in rows if not row["kept"]}
    share = np.mean([row["image"] in faulty for row in some])
    assert 0.2 < share < 0.4 and all(row.keys() == {"image", "score", "critique"} for row in some)
    assert cold.drawn(rows, 3) == some != cold.drawn(rows, 4)


def test_a_difference_is_of_the_same_pictures() -> None:
    """Against a bootstrap written as a loop; of an arm with itself there is none."""
    rng, sets = np.random.default_rng(1), {}
    for arm, noise in (("a", 0.3), ("b", 0.1)):
        sets[arm] = {name: {str(i): {"truth": i / 40, "pred": i / 40 + noise * rng.normal()}
                            for i in range(40)} for name in "xy"}
    sets["a"]["x"]["7"]["pred"] = None
    assert cold.difference(sets["a"], sets["a"], "plcc") == [0, 0]
    lo, hi = cold.difference(sets["a"], sets["b"], "plcc")
    total = np.zeros(1000)
    for name in "xy":
        places = [i for i in sets["a"][name] if sets["a"][name][i]["pred"] is not None]
        y, x, z = (np.array([sets[arm][name][i][key] for i in places])
                   for arm, key in (("a", "truth"), ("a", "pred"), ("b", "pred")))
        for draw in range(1000):
            some = rng.integers(0, len(y), len(y))
            total[draw] += (stats.pearsonr(z[some], y[some])[0]
                            - stats.pearsonr(x[some], y[some])[0]) / 2
    assert [lo, hi] == pytest.approx(np.percentile(total, (2.5, 97.5)), abs=0.02) and lo > 0


def test_what_critiques_say() -> None:
    notes = {Path("/1.png"): [2, 2, 2, 2, 2], Path("/2.png"): [0, 0, 0, 0, 0]}
    texts = ["<think>radiant light, quiet mood: a strong picture.</think><answer>0.80</answer>",
             "<think>dull light: a strong picture. People rated it 0.20.</think>"
             "<answer>0.2</answer>",
             "<think>dull light: a weak picture.</think><answer>none</answer>"]
    items = [{"image": image, "text": text} for image, text in zip(
        ("/1.png", "/2.png", "/2.png"), texts, strict=True)]
    said = cold.spoken([{"items": items[:1]}, {"items": items[1:]}], notes)
    assert said == pytest.approx({"leak": 1 / 3, "named": 4 / 3, "right": 3 / 4, "off": 1 / 3})


def test_an_interval_over_seeds_is_students() -> None:
    values = [0.02, -0.01, 0.05]
    found, want = cold.over_seeds(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found["ci"] == pytest.approx([want.low, want.high])
    assert found["mean"] == pytest.approx(0.02)
    assert cold.over_seeds([0.3]) == {"mean": pytest.approx(0.3), "ci": None}

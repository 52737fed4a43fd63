"""The data card counts what rows say, whichever version has written them."""

import json
import random
from collections import Counter

import pytest

from nanoaes.card import EXAMPLES, FIRST, card, lines, some

FLAGS = ("leak", "mismatch", "invented", "unfit")
TEXT = "Soft light falls on one walker; the horizon tilts."


def row(i: int, score: float, *flags: str, **more: object) -> dict:
    """As build_cot.py writes it; flags: what is wrong."""
    why = {flag: f"why {flag} of {i}" for flag in flags} | more.pop("why", {})
    return {"image": f"/photos/{i}.jpg", "score": score, "teacher": "m", "dataset": "AVA",
            "judge": "j", "critique": TEXT, "kept": not why,
            **{flag: flag in why for flag in FLAGS}, "judged": 1, "unjudged": "unjudged" in why,
            "why": why, **more}


def older(i: int, score: float, *flags: str, critique: str = TEXT) -> dict:
    """As the first version wrote it."""
    return {"image": f"/photos/{i}.jpg", "score": score, "critique": critique, "kept": not flags,
            **{flag: flag in flags for flag in FLAGS[:3]}}


def mixed() -> list[dict]:
    """60 rows of two datasets; of 0, 3, 6, … the score leaks, of 0, 5, 10, … something is missing.
    """
    return [row(i, i / 60, *["leak"] * (i % 3 == 0), *["thin"] * (i % 5 == 0),
                dataset="AVA" if i < 40 else "PARA", thin=i % 5 == 0) for i in range(60)]


def test_counts_of_all_and_of_each_filter() -> None:
    found = card(mixed(), {})
    assert (found["critiques"], found["kept"], found["keep_rate"]) == (60, 32, 32 / 60)
    counts = {flag: (part["count"], part["alone"]) for flag, part in found["filters"].items()}
    assert counts == {"leak": (20, 16), "thin": (12, 8), "mismatch": (0, 0), "invented": (0, 0),
                      "unfit": (0, 0), "unjudged": (0, 0)}
    assert found["filters"]["leak"]["share"] == 20 / 60
    json.dumps(found, allow_nan=False)


def test_levels_and_datasets_add_up() -> None:
    rows = mixed()
    found = card(rows, {})
    level = Counter("bad" if r["score"] < 0.4 else "good" if r["score"] >= 0.7 else "fair"
                    for r in rows)
    assert {name: part["asked"] for name, part in found["levels"].items()} == level
    assert found["datasets"]["AVA"]["asked"] == 40 and found["datasets"]["PARA"]["asked"] == 20
    for of in ("levels", "datasets", "teachers", "judges"):
        assert sum(part["asked"] for part in found[of].values()) == 60
        assert sum(part["kept"] for part in found[of].values()) == 32
    for name, parts in found["levels_of_datasets"].items():
        assert list(parts) == ["bad", "fair", "good"]
        for key in ("asked", "kept"):
            assert sum(part[key] for part in parts.values()) == found["datasets"][name][key]
    assert found["levels_of_datasets"]["PARA"]["bad"] == {"asked": 0, "kept": 0}


def test_examples_are_few_short_and_of_all_levels() -> None:
    rows = [{**r, "critique": f"{r['image']} " + "long " * 99} for r in mixed()]
    examples = card(rows, {})["filters"]["leak"]["examples"]
    assert len(examples) == EXAMPLES == 3
    by_name = {f"{i}.jpg": r for i, r in enumerate(rows)}
    scores = [by_name[e["image"]]["score"] for e in examples]
    assert scores[0] < 0.4 <= scores[1] < 0.7 <= scores[2]
    for e in examples:
        i = int(e["image"].split(".")[0])
        assert i % 3 == 0 and e["reason"] == f"why leak of {i}"
        assert e["critique"] == rows[i]["critique"][:FIRST] and len(e["critique"]) == 200
    random.Random(0).shuffle(rows)
    assert card(rows, {})["filters"]["leak"]["examples"] == examples


def test_some_takes_of_the_levels_in_turn_and_not_the_first() -> None:
    rows = [row(i, 0.1 if i < 90 else 0.5 if i < 95 else 0.9) for i in range(100)]
    assert Counter(r["score"] for r in some(rows, 12)) == {0.1: 4, 0.5: 4, 0.9: 4}
    assert Counter(r["score"] for r in some(rows, 30)) == {0.1: 20, 0.5: 5, 0.9: 5}
    assert some(rows, 12)[:4] != rows[:4] and len(some(rows, 500)) == 100


def test_rows_of_earlier_versions() -> None:
    rows = [older(0, 0.1), older(1, 0.9, "leak", critique="I would give it 7/10."),
            older(2, 0.5, "mismatch"), {**older(3, 0.5), "kept": False, "unfit": True,
                                        "critique": "I'm sorry, but I can't help with that."}]
    found = card(rows, {})
    assert found["kept"] == 1 and found["refusals"] == 1 and found["unjudged"] == 0
    assert found["tokens"] is None and found["judge_reads"] is None and found["warnings"] == []
    assert found["teachers"] == {"toy": {"asked": 4, "kept": 1}} == found["judges"]
    leak, off = found["filters"]["leak"], found["filters"]["mismatch"]
    assert "7/10" in leak["examples"][0]["reason"] and off["examples"][0]["reason"] == ""
    assert set(found["filters"]) == set(FLAGS)
    assert "  kept of each level: bad 1 of 1, fair 0 of 2, good 0 of 1" in lines(found)


def test_nothing_is_a_card_too() -> None:
    found = card([], {})
    assert found["keep_rate"] is None and found["filters"]["leak"]["share"] is None
    json.dumps(found, allow_nan=False)
    assert lines(found)[0] == "AesCoT: kept 0 of 0 critiques"


def test_refusals_and_missing_answers_are_counted_apart() -> None:
    rows = [row(0, 0.5, why={"unfit": "a refusal"}), row(1, 0.5, why={"unfit": "empty"}),
            row(2, 0.5, why={"unjudged": "no JSON"}), row(3, 0.5)]
    found = card(rows, {})
    assert (found["refusals"], found["unjudged"], found["kept"]) == (1, 1, 1)
    assert found["filters"]["unfit"]["count"] == 2 and found["filters"]["unjudged"]["count"] == 1
    assert "  refused by the teacher: 1" in lines(found)


def test_a_filter_that_only_a_reason_names_is_counted() -> None:
    assert card([row(0, 0.5, "novel"), row(1, 0.5)], {})["filters"]["novel"]["count"] == 1


def test_what_the_judge_reads() -> None:
    rows = [row(0, 0.1, judged=0), row(1, 0.1, judged=2), row(2, 0.9, judged=2),
            row(3, 0.5, "mismatch", judged=None),  # it says that there is no level
            row(4, 0.5, judged=None, why={"unjudged": "no answer"}),
            row(5, 0.5, judged=1, why={"unjudged": "no answer to the second question"}),
            row(6, 0.5, "unfit", judged=None)]
    assert card(rows, {})["judge_reads"] == {
        "bad": {"bad": 1, "fair": 0, "good": 1, "no level": 0},
        "fair": {"bad": 0, "fair": 1, "good": 0, "no level": 1},
        "good": {"bad": 0, "fair": 0, "good": 1, "no level": 0}}


@pytest.mark.parametrize("same, other, warned", [(45, 5, False), (46, 4, True), (49, 0, False),
                                                 (50, 0, True), (900, 99, True), (900, 100, False)])
def test_a_judge_that_says_always_the_same(same: int, other: int, warned: bool) -> None:
    rows = [row(i, 0.9 if i % 2 else 0.1, judged=1) for i in range(same)]
    found = card(rows + [row(i, 0.5, judged=0) for i in range(other)], {})
    assert len(found["warnings"]) == warned
    for warning in found["warnings"]:
        assert f"reads fair in {100 * same / (same + other):.0f} %" in warning
        assert f"scores say so of {100 * other / (same + other):.0f} %" in warning
        assert f"  warning: {warning}" in lines(found)


@pytest.mark.parametrize("rejected, passed, warned", [(45, 5, False), (46, 4, True),
                                                      (49, 0, False), (50, 0, True)])
def test_a_filter_that_rejects_nearly_all(rejected: int, passed: int, warned: bool) -> None:
    rows = [row(i, i / 99, "leak", judged=i % 3) for i in range(rejected)]
    found = card(rows + [row(i, 0.5, judged=i % 3) for i in range(passed)], {})
    assert [w[:22] for w in found["warnings"]] == ["score leaked: rejects "] * warned


def test_tokens_of_all_for_each_one_kept() -> None:
    spent = {"asked": 1000, "answered": 200, "requests": 3}
    rows = [row(0, 0.5, tokens=spent), row(1, 0.5, tokens=spent), row(2, 0.5, "leak", tokens=spent),
            row(3, 0.5, "leak", tokens={})]
    assert card(rows, {})["tokens"] == {"asked": 3000, "answered": 600, "requests": 9,
                                        "per_kept": 1800}
    assert ("  tokens: 3,000 asked and 600 answered in 9 requests, 1,800 for each one kept"
            in lines(card(rows, {})))
    none = card(rows[2:], {})
    assert none["tokens"]["per_kept"] is None
    assert "  tokens: 1,000 asked and 200 answered in 3 requests" in lines(none)


def test_who_was_asked_and_how() -> None:
    asked = {"teacher": "org/model-7B#0a1b2c3d", "judge": "toy", "short": "no more pictures: bad",
             "options": {"target": 3000, "seed": 1}}
    found = card(mixed(), asked)
    assert found["teacher"] == {"model": "org/model-7B", "prompt": "0a1b2c3d"}
    assert found["judge"] == {"model": "toy", "prompt": None}
    assert found["target"] == 3000 and found["options"] == asked["options"]
    told = lines(found)
    assert told[0] == "AesCoT: kept 32 of 60 critiques (53.3 %), 3,000 wanted"
    assert "score leaked 20" in told[1] and "dimension missing 12" in told[1]
    assert "  kept of each dataset: AVA 21 of 40, PARA 11 of 20" in told
    assert "  no more pictures: bad" in told
    assert card([], {"options": {"target": 0}})["target"] is None

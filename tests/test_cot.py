"""The three filters find what an imperfect teacher does wrong, at its known rates."""

import json
from pathlib import Path

import numpy as np
import pytest

import build_cot
from nanoaes.cot import balance, check, leaks, score_level
from nanoaes.datasets import Example
from nanoaes.toy.teacher import (
    INVENT_RATE,
    LEAK_RATE,
    MISMATCH_RATE,
    ToyJudge,
    ToyTeacher,
    critique_quality,
)
from nanoaes.toy.world import WORDS, critique, read_critique, true_score, verdict


@pytest.mark.parametrize("text", ["It earns a 0.7.", "People rated it highly.", "A high score.",
                                  "two stars", "about point seven", "8/10",
                                  "seven out of ten", "It scores a lot.", "70 percent"])
def test_leaks(text: str) -> None:
    assert leaks(text)


@pytest.mark.parametrize("text", [
    "Soft light falls on one walker.", "A narrated scene.", "A starry sky, a berated dog.",
    "A strong focal point; lines point to the horizon.", "Stars fill the night sky.",
    "A vantage point above three trees.", "A 35 mm lens, golden hour at 6 pm.", "A musical score"])
def test_no_leak_in_plain_words(text: str) -> None:
    assert not leaks(text)


def test_levels_have_the_papers_borders() -> None:
    assert [score_level(s) for s in (0, 0.399, 0.4, 0.699, 0.7, 1)] == [0, 0, 1, 1, 2, 2]


def test_balance_takes_the_same_number_of_each_level() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, 400).tolist()
    chosen = balance(scores, scores, 50, seed=1)
    assert [sum(score_level(s) == i for s in chosen) for i in range(3)] == [50, 50, 50]
    assert len(set(chosen)) == 150 and balance(scores, scores, 50, seed=1) == chosen


def teacher_and_judge(n: int) -> tuple[list[Path], list[float], ToyTeacher, ToyJudge]:
    rng = np.random.default_rng(0)
    images = [Path(f"/nowhere/{i}.jpg") for i in range(n)]
    levels = rng.integers(0, 3, (n, 5))
    scores = [true_score(np.array([0.15, 0.5, 0.85])[row]) for row in levels]
    notes = {p: row.tolist() for p, row in zip(images, levels, strict=True)}
    return images, scores, ToyTeacher(notes, seed=1), ToyJudge(notes)


def test_filters_count_the_teachers_known_errors() -> None:
    images, scores, teacher, judge = teacher_and_judge(4000)
    flags = [check(teacher.write(p, s), p, s, judge)
             for p, s in zip(images, scores, strict=True)]
    for name, rate in (("leak", LEAK_RATE), ("mismatch", MISMATCH_RATE), ("invented", INVENT_RATE)):
        share = np.mean([getattr(f, name) for f in flags])
        assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / 4000), name
    expected = (1 - LEAK_RATE) * (1 - MISMATCH_RATE) * (1 - INVENT_RATE)
    assert abs(np.mean([f.clean for f in flags]) - expected) < 0.03


def test_kept_critiques_are_true_and_fit_the_score() -> None:
    images, scores, teacher, judge = teacher_and_judge(300)
    for image, score in zip(images, scores, strict=True):
        text = teacher.write(image, score)
        if check(text, image, score, judge).clean:
            assert list(read_critique(text).values()) == teacher.notes[image]
            assert verdict(score) in text and not any(c.isdigit() for c in text)


def test_critique_quality_counts_named_and_right_dimensions() -> None:
    notes = {Path("/a"): [0, 0, 0, 0, 0]}
    rng = np.random.default_rng(0)
    assert critique_quality([critique([0] * 5, 0.1, rng)], [Path("/a")], notes) == (5, 1.0)
    text = f"{WORDS['light'][0][0]} light, {WORDS['mood'][2][0]} mood"
    assert critique_quality([text], [Path("/a")], notes) == (2, 0.5)
    assert critique_quality(["nothing"], [Path("/a")], notes) == (0, 0.0)


def test_collect_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    images, scores, teacher, judge = teacher_and_judge(20)
    examples = [Example(p, s, None, "toy", (0.0, 1.0)) for p, s in zip(images, scores, strict=True)]
    out = tmp_path / "cot.jsonl"
    build_cot.collect(examples[:12], teacher, judge, out)
    first = out.read_text()
    build_cot.collect(examples, teacher, judge, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert out.read_text().startswith(first)
    assert [row["image"] for row in rows] == [str(p) for p in images]
    assert f"{len(rows)} critiques" in build_cot.summary(rows)

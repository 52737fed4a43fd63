"""The three filters find what an imperfect teacher does wrong, at its known rates."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import build_cot
from nanoaes.checkpoint import append_row, read_rows
from nanoaes.cot import balance, check, leaks, score_level
from nanoaes.critiques import current, read_critiques
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


def notes_of(folder: Path, n: int) -> tuple[list[Example], ToyTeacher, ToyJudge]:
    images = [folder / f"{i}.jpg" for i in range(n)]
    notes = {p.resolve(): [1] * 5 for p in images}
    examples = [Example(p, 0.1 + i / 10, None, "toy", (0.0, 1.0)) for i, p in enumerate(images)]
    return examples, ToyTeacher(notes, seed=1), ToyJudge(notes)


def rows_of(out: Path) -> list[dict]:
    return [row for _, row in current(out, enumerate(read_rows(out), 1))]


def test_a_run_spelled_otherwise_doubles_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples, teacher, judge = notes_of(Path("world"), 5)
    build_cot.collect(examples, teacher, judge, Path("cot.jsonl"))
    first = Path("cot.jsonl").read_bytes()
    absolute = [replace(e, image=e.image.absolute()) for e in examples]
    (tmp_path / "link").symlink_to(tmp_path)
    linked = [replace(e, image=Path("link") / e.image) for e in examples]
    for again, out in ((absolute, tmp_path / "cot.jsonl"), (linked, Path("link/cot.jsonl"))):
        build_cot.collect(again, teacher, judge, out)
    assert Path("cot.jsonl").read_bytes() == first


def test_rows_of_before_count_where_their_pictures_are(tmp_path: Path, monkeypatch) -> None:
    """They had paths from where the script ran, no teacher, and could stand there twice."""
    monkeypatch.chdir(tmp_path)
    examples, teacher, judge = notes_of(Path("run/world"), 3)
    Path("run/world").mkdir(parents=True)
    out = Path("run/cot.jsonl")
    for e in examples:
        e.image.touch()
        for name in (e.image, e.image.absolute()):
            append_row(out, {"image": str(name), "score": e.score, "critique": "a", "kept": True,
                             "leak": False})
    build_cot.collect(examples, teacher, judge, out)
    assert len(read_rows(out)) == 6 and len(rows_of(out)) == 3


def test_a_changed_label_gets_a_new_critique_and_back_again(tmp_path: Path) -> None:
    examples, teacher, judge = notes_of(tmp_path, 3)
    out = tmp_path / "cot.jsonl"
    relabelled = [replace(examples[0], score=0.95), *examples[1:]]
    for step, asked in enumerate((examples, relabelled, examples, examples)):
        build_cot.collect(asked, teacher, judge, out)
        assert len(read_rows(out)) == (3, 4, 5, 5)[step]
        found = {row["image"]: row for row in rows_of(out)}
        assert len(found) == len(rows_of(out)) == 3
        for e in asked:
            row = found[str(e.image)]
            assert row["score"] == e.score
            assert row["critique"] == teacher.write(e.image, e.score)


def test_a_picture_of_two_sets_is_asked_about_once(tmp_path: Path) -> None:
    examples, teacher, judge = notes_of(tmp_path, 1)
    both = [examples[0], replace(examples[0], score=0.9)]
    for _ in range(3):
        build_cot.collect(both, teacher, judge, tmp_path / "cot.jsonl")
    assert [row["score"] for row in read_rows(tmp_path / "cot.jsonl")] == [0.9]


def test_another_teacher_writes_anew(tmp_path: Path) -> None:
    examples, teacher, judge = notes_of(tmp_path, 3)
    out = tmp_path / "cot.jsonl"
    build_cot.collect(examples, teacher, judge, out)
    teacher.name = "other"
    build_cot.collect(examples, teacher, judge, out)
    assert [row["teacher"] for row in rows_of(out)] == ["toy"] * 3 + ["other"] * 3


@pytest.mark.parametrize("text", ["", "I'm sorry, I cannot view images.", "Soft <b>light</b>."])
def test_what_is_no_critique_is_not_kept(text: str, tmp_path: Path) -> None:
    examples, teacher, judge = notes_of(tmp_path, 1)
    teacher.write = lambda image, score: text
    judge.mismatch = lambda critique, score: False
    out = tmp_path / "cot.jsonl"
    build_cot.collect(examples, teacher, judge, out)
    row, = read_rows(out)
    assert row["unfit"] and not row["kept"]
    assert "no critique 1; kept 0" in build_cot.summary([row])


def test_a_cold_start_learns_the_newest_label_only(tmp_path: Path) -> None:
    out = tmp_path / "cot.jsonl"
    for score, kept in ((0.2, True), (0.9, True), (0.5, True)):
        append_row(out, {"image": "a.png", "score": score, "critique": f"soft {score}",
                         "kept": kept, "leak": False})
    for score, kept in ((0.3, True), (0.4, False)):
        append_row(out, {"image": "b.png", "score": score, "critique": "b", "kept": kept,
                         "leak": not kept})
    assert [(c.image.name, c.score) for c in read_critiques(out)] == [("a.png", 0.5)]

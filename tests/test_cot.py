"""The three filters find what an imperfect teacher does wrong, at its known rates."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import build_cot
from nanoaes.checkpoint import append_row, read_rows
from nanoaes.cot import Draw, balance, check, score_level
from nanoaes.critiques import current, read_critiques
from nanoaes.datasets import Example
from nanoaes.errors import NoAnswer, Refused, UserError
from nanoaes.toy.road import quality_of
from nanoaes.toy.teacher import (
    INVENT_RATE,
    LEAK_RATE,
    MISMATCH_RATE,
    ToyJudge,
    ToyTeacher,
)
from nanoaes.toy.world import WORDS, critique, read_critique, true_score, verdict


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
    images, scores, teacher, judge = teacher_and_judge(2000)
    found = [check(teacher.write(p, s), p, s, judge)
             for p, s in zip(images, scores, strict=True)]
    for name, rate in (("leak", LEAK_RATE), ("mismatch", MISMATCH_RATE), ("invented", INVENT_RATE)):
        share = np.mean([name in f.why for f in found])
        assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / 2000), name
    expected = (1 - LEAK_RATE) * (1 - MISMATCH_RATE) * (1 - INVENT_RATE)
    assert abs(np.mean([not f.why for f in found]) - expected) < 0.03


def test_kept_critiques_are_true_and_fit_the_score() -> None:
    images, scores, teacher, judge = teacher_and_judge(300)
    for image, score in zip(images, scores, strict=True):
        text = teacher.write(image, score)
        if not check(text, image, score, judge).why:
            assert list(read_critique(text).values()) == teacher.notes[image]
            assert verdict(score) in text and not any(c.isdigit() for c in text)


def test_named_and_right_dimensions_are_counted() -> None:
    half = f"{WORDS['light'][0][0]} light, {WORDS['mood'][2][0]} mood"
    for text, quality in ((critique([0] * 5, 0.1, np.random.default_rng(0)), (5, 1.0)),
                          (half, (2, 0.5)), ("nothing", (0, 0.0))):
        assert quality_of([{"image": "/a", "text": text}], {Path("/a"): [0] * 5}) == quality


def test_collect_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    images, scores, teacher, judge = teacher_and_judge(20)
    examples = [Example(p, s, None, "toy", (0.0, 1.0)) for p, s in zip(images, scores, strict=True)]
    out = tmp_path / "cot.jsonl"
    desk = build_cot.Desk(teacher, judge)
    build_cot.collect(examples[:12], desk, out)
    first = out.read_text()
    build_cot.collect(examples, desk, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert out.read_text().startswith(first)
    assert [row["image"] for row in rows] == [str(p) for p in images]


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
    build_cot.collect(examples, build_cot.Desk(teacher, judge), Path("cot.jsonl"))
    first = Path("cot.jsonl").read_bytes()
    absolute = [replace(e, image=e.image.absolute()) for e in examples]
    (tmp_path / "link").symlink_to(tmp_path)
    linked = [replace(e, image=Path("link") / e.image) for e in examples]
    for again, out in ((absolute, tmp_path / "cot.jsonl"), (linked, Path("link/cot.jsonl"))):
        build_cot.collect(again, build_cot.Desk(teacher, judge), out)
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
    build_cot.collect(examples, build_cot.Desk(teacher, judge), out)
    assert len(read_rows(out)) == 6 and len(rows_of(out)) == 3


def test_a_changed_label_gets_a_new_critique_and_back_again(tmp_path: Path) -> None:
    examples, teacher, judge = notes_of(tmp_path, 3)
    out = tmp_path / "cot.jsonl"
    relabelled = [replace(examples[0], score=0.95), *examples[1:]]
    for step, asked in enumerate((examples, relabelled, examples, examples)):
        build_cot.collect(asked, build_cot.Desk(teacher, judge), out)
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
        build_cot.collect(both, build_cot.Desk(teacher, judge), tmp_path / "cot.jsonl")
    assert [row["score"] for row in read_rows(tmp_path / "cot.jsonl")] == [0.9]


def test_another_teacher_writes_anew(tmp_path: Path) -> None:
    examples, teacher, judge = notes_of(tmp_path, 3)
    out = tmp_path / "cot.jsonl"
    build_cot.collect(examples, build_cot.Desk(teacher, judge), out)
    teacher.name = "other"
    build_cot.collect(examples, build_cot.Desk(teacher, judge), out)
    assert [row["teacher"] for row in rows_of(out)] == ["toy"] * 3 + ["other"] * 3


@pytest.mark.parametrize("text", ["", "I'm sorry, I cannot view images.", "Soft <b>light</b>."])
def test_what_is_no_critique_is_not_kept(text: str, tmp_path: Path) -> None:
    examples, teacher, judge = notes_of(tmp_path, 1)
    teacher.write = lambda image, score: text
    out = tmp_path / "cot.jsonl"
    build_cot.collect(examples, build_cot.Desk(teacher, judge), out)
    row, = read_rows(out)
    assert row["unfit"] and not row["kept"] and row["why"]["unfit"] and row["judged"] is None


def test_a_cold_start_learns_the_newest_label_only(tmp_path: Path) -> None:
    out = tmp_path / "cot.jsonl"
    for score, kept in ((0.2, True), (0.9, True), (0.5, True)):
        append_row(out, {"image": "a.png", "score": score, "critique": f"soft {score}",
                         "kept": kept, "leak": False})
    for score, kept in ((0.3, True), (0.4, False)):
        append_row(out, {"image": "b.png", "score": score, "critique": "b", "kept": kept,
                         "leak": not kept})
    assert [(c.image.name, c.score) for c in read_critiques(out)] == [("a.png", 0.5)]


class Moody:
    """A teacher and a judge that now and then fail."""

    name = "moody"

    def __init__(self, fail: dict[str, Exception] | None = None,
                 levels: dict[str, int] | None = None):
        self.fail, self.levels, self.written = fail or {}, levels or {}, []

    def write(self, image: Path, score: float) -> str:
        self.written.append(image.name)
        if image.name in self.fail:
            raise self.fail[image.name]
        return f"{image.name}: soft light on a quiet shore."

    def level(self, critique: str) -> int:
        if (name := critique.partition(":")[0]) in self.fail:
            raise self.fail[name]
        return self.levels.get(name, 1)

    def invented(self, critique: str, image: Path) -> list[str]:
        return []


def examples_in(folder: Path, n: int, score: float = 0.5) -> list[Example]:
    names = (f"{chr(97 + i // 26)}{chr(97 + i % 26)}.jpg" for i in range(n))  # figures would leak
    return [Example(folder / name, score, None, "mine", (0.0, 1.0)) for name in names]


def test_who_has_not_answered_is_counted_and_asked_again(tmp_path: Path) -> None:
    examples, out = examples_in(tmp_path, 4), tmp_path / "cot.jsonl"
    teacher, judge = Moody({"ab.jpg": NoAnswer("timed out")}), Moody()
    desk = build_cot.Desk(teacher, judge)
    assert build_cot.collect(examples, desk, out) == 1 and len(read_rows(out)) == 3
    teacher.fail, teacher.written = {}, []
    assert build_cot.collect(examples, desk, out) == 0 and teacher.written == ["ab.jpg"]


def test_without_a_judges_word_it_is_not_kept_and_only_the_judge_is_asked_again(
        tmp_path: Path) -> None:
    examples, out = examples_in(tmp_path, 3), tmp_path / "cot.jsonl"
    teacher, judge = Moody(), Moody({"ac.jpg": NoAnswer("no JSON")})
    desk = build_cot.Desk(teacher, judge)
    assert build_cot.collect(examples, desk, out) == 0
    row = rows_of(out)[2]
    assert not row["kept"] and row["unjudged"] and row["why"] == {"unjudged": "no JSON"}
    judge.fail = {}
    build_cot.collect(examples, desk, out)
    assert [row["kept"] for row in rows_of(out)] == [True] * 3 and len(teacher.written) == 3


def test_another_judge_reads_the_same_critique(tmp_path: Path) -> None:
    examples, out, teacher = examples_in(tmp_path, 2), tmp_path / "cot.jsonl", Moody()
    for name, levels, kept in (("a", {}, True), ("b", {"aa.jpg": 2, "ab.jpg": 0}, False)):
        judge = Moody(levels=levels)
        judge.name = name
        build_cot.collect(examples, build_cot.Desk(teacher, judge), out)
        assert [(row["judge"], row["kept"]) for row in rows_of(out)] == [(name, kept)] * 2
    assert len(teacher.written) == 2


def test_a_refusal_is_a_row_and_not_asked_for_again(tmp_path: Path) -> None:
    examples, out = examples_in(tmp_path, 2), tmp_path / "cot.jsonl"
    teacher = Moody({"aa.jpg": Refused("I would rather not.")})
    for _ in range(2):
        build_cot.collect(examples, build_cot.Desk(teacher, Moody()), out)
    row = rows_of(out)[0]
    assert row["unfit"] and not row["kept"] and row["critique"] == "I would rather not."
    assert teacher.written == ["aa.jpg", "ab.jpg"]
    judge = Moody()
    judge.name = "another"  # reads what there is again, and a refusal is none of it
    build_cot.collect(examples, build_cot.Desk(teacher, judge), out)
    row = rows_of(out)[0]
    assert (row["judge"], row["unfit"], row["kept"]) == ("another", True, False)
    assert row["critique"] == "I would rather not." and teacher.written == ["aa.jpg", "ab.jpg"]


def test_a_judge_on_the_teachers_server_has_the_teachers_key(monkeypatch) -> None:
    """And the key of another vendor, which happens to be there, is not sent to it."""
    used = {}
    monkeypatch.setattr(build_cot, "Endpoint", lambda where, model, key, **more: used.update(
        {model: key}))
    monkeypatch.setenv("TEACHER_API_KEY", "one")
    monkeypatch.setenv("JUDGE_API_KEY", "two")
    for judge, key in (("", "one"), ("http://b/v1", "two")):
        cfg = build_cot.CoTConfig(teacher="http://a/v1", teacher_model="t", judge=judge,
                                  judge_model="j")
        monkeypatch.setattr(build_cot, "ChatTeacher", lambda chat: chat)
        monkeypatch.setattr(build_cot, "ChatJudge", lambda chat: chat)
        build_cot.desk_of(cfg, Path("."))
        assert used == {"t": "one", "j": key}


def test_nobody_there_ends_the_run_soon(tmp_path: Path) -> None:
    examples = examples_in(tmp_path, 100)
    teacher = Moody({e.image.name: NoAnswer("connection refused") for e in examples})
    with pytest.raises(UserError, match="none of the first 20 questions.*connection refused"):
        build_cot.collect(examples, build_cot.Desk(teacher, Moody()), tmp_path / "cot.jsonl")


def test_many_threads_leave_the_same_rows_as_one(tmp_path: Path) -> None:
    examples, files = examples_in(tmp_path, 60), []
    for threads in (1, 16):
        out = tmp_path / f"{threads}.jsonl"
        build_cot.collect(examples, build_cot.Desk(Moody(), Moody(), threads=threads), out)
        files.append(sorted(out.read_text().splitlines()))
    assert files[0] == files[1] and len(files[0]) == 60


def drawn(kept_of: Callable[[int], bool], target: int) -> tuple[Draw, list[int], list[int]]:
    """Draws to the end; the items are numbers, three levels of 40, two datasets one to three."""
    items = list(range(120))
    draw = Draw(items, [(0.1, 0.5, 0.9)[i % 3] for i in items],
                ["small" if i // 3 % 4 == 0 else "large" for i in items], target, seed=3)
    asked, kept = [], [0, 0, 0]
    while more := draw.more(kept):
        asked += more
        kept = [sum(kept_of(i) for i in asked if i % 3 == level) for level in range(3)]
    return draw, asked, kept


def test_a_draw_goes_on_until_each_level_is_full() -> None:
    draw, asked, kept = drawn(lambda i: i // 3 % 2 == 0, target=31)
    assert kept == [11, 10, 10] and len(set(asked)) == len(asked) and draw.short(kept) == []
    assert drawn(lambda i: i // 3 % 2 == 0, 31)[1] == asked, "the same each time"


def test_a_draw_ends_with_the_data_and_says_so() -> None:
    draw, asked, kept = drawn(lambda i: i % 3 != 0 or i < 30, target=90)
    assert kept == [10, 30, 30] and draw.short(kept) == ["bad 10 of 30"]
    assert sum(i % 3 == 0 for i in asked) == 40


def test_datasets_take_turns_in_a_draw() -> None:
    _, asked, _ = drawn(lambda i: True, target=60)
    for level in range(3):
        assert sum(i // 3 % 4 == 0 for i in asked if i % 3 == level) == 10


def test_near_repeats_are_marked_in_the_order_of_asking(tmp_path: Path) -> None:
    examples, out = examples_in(tmp_path, 3), tmp_path / "cot.jsonl"
    teacher, words = Moody(), "a lone boat crosses the silver bay under a heavy evening sky " * 4
    teacher.write = lambda image, score: words + ("" if image.name != "ab.jpg" else "at last")
    desk = build_cot.Desk(teacher, Moody(), ("repeat",))
    build_cot.collect(examples[::-1], desk, out)  # answered the other way round
    build_cot.mark_repeats(examples, desk, out)
    found = {Path(row["image"]).name: row for row in rows_of(out)}
    assert [found[f"a{c}.jpg"]["kept"] for c in "abc"] == [True, False, False]
    assert found["ab.jpg"]["why"] == {"repeat": "much the same as of aa.jpg"}
    size = out.stat().st_size
    build_cot.collect(examples, desk, out)
    build_cot.mark_repeats(examples, desk, out)
    assert out.stat().st_size == size, "nothing to do the second time"

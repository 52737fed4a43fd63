"""`eval.py score`: every picture once, the same answer whatever stands beside it, all told."""

import csv
import dataclasses
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
from tiny import pictures, tiny_vlm

import eval as eval_script
from nanoaes import scoring
from nanoaes.bursts import look_of
from nanoaes.checkpoint import read_rows
from nanoaes.config import OptionError
from nanoaes.errors import Ended, Stopped, UserError
from nanoaes.images import load_image
from nanoaes.page.sheet import SIGN
from nanoaes.prompt import parse_score
from nanoaes.readout import Reading, read
from nanoaes.rollout import Answer, Rollouts, cached, rollout
from nanoaes.verbs import ScoreConfig
from nanoaes.vlm import VLM
from nanoaes.xmp import sidecar

ROOM = 6


def readable(rolls: Rollouts, vlm: VLM) -> list[list[Answer]]:
    """In the place of an untrained model's gibberish, by its ids; one in nine says nothing."""
    sums = (rolls.ids * rolls.mask).sum(2).tolist()
    return [[Answer("<think>no, <b>" if s % 9 == 4 else
                    f"<think>Color: {s} and =1+1.</think><answer>{s % 101 / 100}</answer>", 3,
                    False) for s in row] for row in sums]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch) -> None:
    monkeypatch.setattr(Rollouts, "answers", readable)
    monkeypatch.setattr(scoring, "WINDOW", 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "rapo"
    vlm = tiny_vlm()
    vlm.asking = dataclasses.replace(vlm.asking, max_new_tokens=ROOM)
    vlm.save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirteen pictures of three sizes, two bad files, two that are no pictures."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for i, picture in enumerate(pictures(13)):
        picture.save(root / ("sub" if i % 2 else "") / f"{i}.png")
    (root / "words.jpg").write_bytes(b"no picture")
    (root / "sub/empty.png").write_bytes(b"")
    (root / "film.MOV").write_bytes(b"x")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def score(model: Path, *paths: Path, out: Path, **more: object) -> list[dict]:
    """Runs it; some files have no score. Returns the rows."""
    cfg = ScoreConfig(model=str(model), device="cpu", paths=tuple(map(str, paths)), out=str(out),
                      **{"readout": "greedy", **more})
    with pytest.raises(Ended) as ended:
        eval_script.score(cfg)
    assert ended.value.status == 3
    return read_rows(out.with_suffix(".jsonl"))


def by_path(rows: list[dict]) -> dict[str, dict]:
    assert len({row["path"] for row in rows}) == len(rows), "twice"
    return {row["path"]: row for row in rows}


def test_every_picture_is_answered_as_if_it_were_alone(model: Path, photos: Path, tmp_path: Path
                                                       ) -> None:
    rows = by_path(score(model, photos, out=tmp_path / "s.jsonl"))
    vlm, unread = VLM.load(model, device="cpu"), 0
    for path in sorted(photos.rglob("*.png")):
        row = rows.pop(str(path))
        if path.name == "empty.png":
            assert row["error"].startswith("cannot be decoded") and row["score"] is None
            continue
        image = load_image(path)
        (answer,), = rollout(vlm, vlm.prompts([image]), k=1, max_new_tokens=ROOM,
                             temperature=0).answers(vlm)
        assert row["score"] == parse_score(answer.text) and row["look"] == look_of(image)
        unread += row["score"] is None
        assert row.get("reply") == (answer.text if row["score"] is None else None)
        assert row.get("error") == (scoring.SILENT if row["score"] is None else None)
    assert [Path(path).name for path in rows] == ["words.jpg"] and 1 <= unread < 6


def test_batches_order_and_restarts_change_nothing(model: Path, photos: Path, tmp_path: Path,
                                                   monkeypatch) -> None:
    want = by_path(score(model, photos, out=tmp_path / "a.jsonl"))
    assert want == by_path(score(model, photos, out=tmp_path / "b.jsonl", tokens_per_micro_batch=1))
    some = [photos / "12.png", photos / "sub", photos / "words.jpg"]
    assert by_path(score(model, *some, out=tmp_path / "c.jsonl")).items() < want.items()
    assert want == by_path(score(model, photos, out=tmp_path / "c.jsonl"))
    monkeypatch.setattr(scoring, "WINDOW", 99)
    assert want == by_path(score(model, photos, out=tmp_path / "d.jsonl"))
    before = (tmp_path / "d.jsonl").read_bytes()
    score(model, photos, out=tmp_path / "d.jsonl")
    assert (tmp_path / "d.jsonl").read_bytes() == before


def test_samples_are_the_pictures_own(model: Path, photos: Path, tmp_path: Path) -> None:
    """Whatever stands before it, and in a copy, too."""
    want = by_path(score(model, photos, out=tmp_path / "a.jsonl", samples=3))
    some = [photos / "12.png", photos / "sub", photos / "words.jpg"]
    got = by_path(score(model, *some, out=tmp_path / "b.jsonl", samples=3))
    assert got.items() < want.items() and sum(row.get("std", 0) > 0 for row in want.values()) > 3


def test_a_score_is_read_as_asked(model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    """Alone, without a critique, and on the scale that was asked for."""
    monkeypatch.undo()  # the model's own words
    rows = by_path(score(model, photos, out=tmp_path / "a.jsonl", readout="direct",
                         score_range="1-5"))
    vlm = VLM.load(model, device="cpu", score_range=(1.0, 5.0))
    for path in (photos / "0.png", photos / "sub/7.png"):
        (one,) = read(vlm, [load_image(path)], [0], Reading("direct"))
        assert rows[str(path)]["score"] == one.score and rows[str(path)]["critique"] == ""
    assert 0 < one.score < 1 and "std" not in rows[str(path)]


def test_a_cut_answer_says_so(model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.undo()
    rows = score(model, photos, out=tmp_path / "a.jsonl")
    assert {row["error"] for row in rows if "reply" in row} == {scoring.CUT}


def test_batches_hold_pictures_of_like_length_within_the_cache(
        model: Path, photos: Path, monkeypatch) -> None:
    vlm, sizes = VLM.load(model, device="cpu"), []
    real = scoring.read

    def watched(vlm: VLM, images: list, *more: object) -> list:
        sizes.append((len(images), max(map(vlm.prompt_length, images))))
        return real(vlm, images, *more)

    monkeypatch.setattr(scoring, "read", watched)
    sights = [scoring.see(path, vlm) for path in sorted(photos.rglob("*.png"))]
    sights = [sight for sight in sights if sight.image]
    scoring.replies(vlm, sights, Reading(samples=2, tokens=9))
    assert sum(n for n, _ in sizes) == 13 and 1 < max(n for n, _ in sizes) < 13
    assert all(n * (length + 2 * ROOM) <= cached(9) for n, length in sizes)
    longest = [length for _, length in sizes]
    assert longest == sorted(longest, reverse=True) and longest[0] > longest[-1]


def test_few_are_kept_where_they_are_large(monkeypatch) -> None:
    monkeypatch.setattr(scoring, "WINDOW", 32)
    assert [scoring.window(n) for n in (262_144, 12_845_056, 2**27)] == [32, 5, 1]


def test_a_signal_stops_after_a_window_and_the_next_run_goes_on(
        model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    want = by_path(score(model, photos, out=tmp_path / "a.jsonl"))
    real = scoring.rows_of

    def interrupted(*given: object) -> list[dict]:
        os.kill(os.getpid(), 15)
        return real(*given)

    monkeypatch.setattr(scoring, "rows_of", interrupted)
    cfg = ScoreConfig(model=str(model), device="cpu", paths=(str(photos),),
                      out=str(tmp_path / "b.jsonl"), readout="greedy")
    with pytest.raises(Stopped, match="the same command goes on"):
        eval_script.score(cfg)
    assert len(read_rows(tmp_path / "b.jsonl")) == 4
    monkeypatch.setattr(scoring, "rows_of", real)
    assert by_path(score(model, photos, out=tmp_path / "b.jsonl")) == want


def test_the_list_as_csv_the_sheet_and_the_sidecars(model: Path, photos: Path, tmp_path: Path,
                                                    capsys) -> None:
    gone = photos / "gone.jpg"
    files = {path: path.read_bytes() for path in photos.rglob("*.*")}
    keep = photos / "0.png.xmp"
    keep.write_text("a person's own")
    rows = by_path(score(model, photos, gone, out=tmp_path / "s.csv", html=str(tmp_path / "s.html"),
                         xmp="darktable", dimensions=True, min=0.3, top=5))
    said = capsys.readouterr().out
    with (tmp_path / "s.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table if row["score"]] == sorted(
        (path for path, row in rows.items() if row["score"] is not None),
        key=lambda path: (-rows[path]["score"], path))
    for line in table:
        row = rows[line["path"]]
        assert line["score"] == ("" if row["score"] is None else str(row["score"]))
        assert line["critique"] == row.get("critique", "") and line["error"] == row.get("error", "")
        assert line["Color"] == (line["critique"][7:] if row["score"] is not None else "")
        assert line["Exposure"] == ""
    assert len(table) == len(rows) == 16 and rows[str(gone)]["error"].startswith("cannot be read")
    chosen = [row for row in table if row["score"] and float(row["score"]) >= 0.3][:5]
    page = (tmp_path / "s.html").read_text()
    assert SIGN in page and page.count('<li class="shot"') == len(chosen) == 5
    for row in chosen:
        path, card = Path(row["path"]), sidecar(Path(row["path"]), "darktable")
        assert card.is_file() and (card == keep or f'Rating="{row["stars"]}"' in card.read_text())
        assert row["path"] in said
    assert len(list(photos.rglob("*.xmp"))) == len({*(sidecar(Path(r["path"]), "darktable")
                                                     for r in chosen), keep})
    assert keep.read_text() == "a person's own"
    assert {path: path.read_bytes() for path in files} == files
    for path, row in rows.items():
        assert row["score"] is not None or f"{path}: {row['error']}" in said


def test_a_dry_run_writes_no_sidecar(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    before = set(photos.rglob("*"))
    rows = score(model, photos, out=tmp_path / "s.jsonl", xmp="lightroom", dry_run=True)
    n = sum(row["score"] is not None for row in rows)
    assert set(photos.rglob("*")) == before
    assert f"sidecars: {n} would be written, 0 were there" in capsys.readouterr().out


def test_names_on_stdin_and_all_scored_is_a_plain_end(model: Path, photos: Path, tmp_path: Path,
                                                      monkeypatch) -> None:
    good = next(p for p in by_path(score(model, photos, out=tmp_path / "a.jsonl")).values()
                if p["score"] is not None)["path"]

    stdin = io.TextIOWrapper(io.BytesIO(good.encode() + b"\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    cfg = ScoreConfig(model=str(model), device="cpu", paths=("-",), run=str(tmp_path / "run"))
    assert eval_script.score(cfg) is None
    assert [row["path"] for row in read_rows(tmp_path / "run/scores.jsonl")] == [good]


def test_another_model_or_question_needs_another_file(model: Path, photos: Path, tmp_path: Path
                                                      ) -> None:
    score(model, photos, out=tmp_path / "s.jsonl")
    cfg = ScoreConfig(model=str(model), device="cpu", paths=(str(photos),),
                      out=str(tmp_path / "s.jsonl"), prompt="full")
    with pytest.raises(UserError, match="asked otherwise; choose another --out"):
        eval_script.score(cfg)
    vlm = VLM.load(model, device="cpu")
    by = {scoring.signature(model, vlm, *how) for how in (
        ("float32", Reading()), ("bfloat16", Reading()), ("float32", Reading("expect")),
        ("float32", Reading(samples=2)), ("float32", Reading(temperature=0.5)))}
    assert len(by) == 5 and all(re.fullmatch("rapo@[0-9a-f]{12}", name) for name in by)
    assert by & {scoring.signature(model, vlm, "float32", Reading(tokens=7))}


@pytest.mark.parametrize("given, message", [
    (dict(out="s.txt"), "--out s.txt: name it .jsonl or .csv"),
    (dict(keep=1), "--keep 1 is of each burst; add --bursts"),
    (dict(dry_run=True), "--dry_run is of the sidecars"),
    (dict(dimensions=True, out="s.jsonl"), "--dimensions makes columns"),
    (dict(stars=".2,.4"), "--stars .2,.4: give four ascending scores"),
    (dict(out="mine.csv"), "--out mine.csv: there is something else than an earlier result"),
    (dict(html="mine.html"), "--html mine.html: there is something else"),
    (dict(out="mine.jsonl"), "mine.jsonl, line 1: no line of a list of scores"),
    (dict(out="open.jsonl"), "open.jsonl, line 1: no line of a list of scores"),
    (dict(out="words.jsonl"), "words.jsonl, line 1: no line of a list of scores"),
    (dict(paths=("none",)), None),
])
def test_what_does_not_fit_is_refused_first(given: dict, message: str | None, tmp_path: Path,
                                            model: Path, photos: Path, monkeypatch) -> None:
    """Nothing of the user's is touched."""
    monkeypatch.chdir(tmp_path)
    mine = {"mine.csv": "a,b\n1,2\n", "mine.html": "<html>mine", "mine.jsonl": '{"a": 1}\n',
            "open.jsonl": json.dumps({"path": "a.jpg"}), "words.jsonl": "words"}
    for name, text in mine.items():
        Path(name).write_text(text)
    cfg = ScoreConfig(model=str(model), device="cpu", **{"paths": (str(photos),), "out": "s.jsonl",
                                                         **given})
    with pytest.raises((UserError, OptionError) if message else Ended, match=message):
        eval_script.score(cfg)
    assert {name: Path(name).read_text() for name in mine} == mine

"""The list of scores: what is there is not done again, whatever happened to it or to the files."""

import os
import shutil
from pathlib import Path

import pytest

from nanoaes.checkpoint import read_rows
from nanoaes.errors import UserError
from nanoaes.ledger import Ledger, digest, stamp


def answered(path: Path, score: float | None = 0.5, **more: object) -> dict:
    return {"path": str(path), "score": score, "critique": path.name, "taken": 1.5, "look": "0f",
            **stamp(path)._asdict(), "hash": digest(path), **more}


def unread(path: Path) -> dict:
    return {"path": str(path), "score": None, "error": "cannot be decoded", "hash": digest(path),
            **stamp(path)._asdict()}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "bad.jpg")]
    for path in paths:
        path.write_bytes(path.name.encode() * 3)
    return paths


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "scores.jsonl"


def begun(out: Path, files: list[Path]) -> Ledger:
    """Two pictures with scores and one that cannot be read."""
    ledger = Ledger(out, "rapo@1")
    ledger.add([answered(files[0], 0.1), answered(files[1], None)])
    ledger.add([unread(files[2])])
    return ledger


def test_what_was_added_is_read_again(out: Path, files: list[Path]) -> None:
    first = begun(out, files)
    again = Ledger(out, "rapo@1")
    assert again.lines == first.lines and again.end == first.end == out.stat().st_size
    assert again.missing(files) == files[2:] and len(read_rows(out)) == 3
    for ledger in (first, again):
        assert [ledger.row(path) for path in files] == read_rows(out)
        assert [ledger.lines[str(path)].answered for path in files] == [True, True, False]
    assert read_rows(out)[0] == {**answered(files[0], 0.1), "by": "rapo@1"}


@pytest.mark.parametrize("cut", range(2, 40, 6))
def test_a_torn_last_line_is_cut_off(out: Path, files: list[Path], cut: int) -> None:
    whole = begun(out, files)
    out.write_bytes(out.read_bytes()[:-cut])
    torn = Ledger(out, "rapo@1")
    assert torn.missing(files) == files[2:]
    torn.add([unread(files[2])])
    assert Ledger(out, "rapo@1").lines == whole.lines == torn.lines


def test_a_last_line_without_its_break_counts(out: Path, files: list[Path]) -> None:
    whole = begun(out, files)
    out.write_bytes(out.read_bytes()[:-1])
    again = Ledger(out, "rapo@1")
    assert again.missing(files) == files[2:] and again.lines == whole.lines
    again.add([answered(files[0], 0.2)])
    assert len(read_rows(out)) == 4 and again.row(files[0])["score"] == 0.2


@pytest.mark.parametrize("kept", [0, 1, 8, 30])
def test_even_a_torn_first_line_is(out: Path, files: list[Path], kept: int) -> None:
    begun(out, files)
    out.write_bytes(out.read_bytes()[:kept])
    assert Ledger(out, "rapo@1").missing(files) == files and out.read_bytes() == b""


def test_a_changed_picture_is_missing_and_a_touched_one_is_not(out: Path, files: list[Path]
                                                               ) -> None:
    ledger = begun(out, files)
    os.utime(files[0], ns=(1, 1))
    files[1].write_bytes(b"other content")
    assert ledger.missing(files) == files[1:]
    assert ledger.row(files[0]) == {**answered(files[0], 0.1), "by": "rapo@1"}
    ledger.add([answered(files[1], 0.9)])
    again = Ledger(out, "rapo@1")  # the last line of a path counts
    assert again.missing(files) == files[2:] and again.lines[str(files[1])].score == 0.9
    assert len(read_rows(out)) == 5
    same = files[0].read_bytes()
    files[0].write_bytes(same[::-1])  # as long as before: only its content tells
    assert again.missing(files) == [files[0], files[2]]


def test_a_copy_is_of_what_was_scored_not_of_what_stands_there_now(out: Path, files: list[Path]
                                                                   ) -> None:
    """A duplicate is edited, then the original duplicated again."""
    first, second, third = (files[0].with_name(f"{i}.jpg") for i in range(3))
    first.write_bytes(b"original")
    ledger = Ledger(out, "rapo@1")
    ledger.add([answered(first, 0.3)])
    shutil.copy(first, second)
    assert ledger.missing([first, second]) == []
    second.write_bytes(b"better!!")
    ledger.add([answered(second, 0.9)])
    shutil.copy(first, third)
    for known in (ledger, Ledger(out, "rapo@1")):
        assert known.missing([first, second, third]) == []
        assert [known.row(path)["score"] for path in (first, second, third)] == [0.3, 0.9, 0.3]
        assert known.row(third)["hash"] == digest(third)


def test_a_moved_or_copied_picture_keeps_its_score(out: Path, files: list[Path]) -> None:
    ledger = begun(out, files)
    copy, moved = files[0].with_name("copy.jpg"), files[1].with_name("moved.jpg")
    shutil.copy(files[0], copy)
    files[1].rename(moved)
    os.utime(moved, ns=(5, 5))
    ticks: list[int] = []
    assert ledger.missing([copy, moved, files[0]], ticks.append) == [] and sum(ticks) == 3
    assert ledger.row(copy) == {**answered(files[0], 0.1), "path": str(copy), "by": "rapo@1",
                                "mtime_ns": stamp(copy).mtime_ns}
    assert ledger.row(moved)["critique"] == "b.jpg" and ledger.row(moved)["mtime_ns"] == 5


def test_what_could_not_be_read_is_tried_again(out: Path, files: list[Path]) -> None:
    """Its error may have said: install a package. Listed once, as long as it says the same."""
    ledger = begun(out, files)
    for _ in range(2):
        assert ledger.missing(files) == files[2:]
        ledger.add([unread(files[2])])
    assert len(read_rows(out)) == 3
    ledger.add([{**unread(files[2]), "error": "another"}])
    assert len(read_rows(out)) == 4 and ledger.lines[str(files[2])].error == "another"
    ledger.add([answered(files[2], 0.7)])
    assert ledger.missing(files) == []
    files[2].write_bytes(b"mended")
    assert ledger.missing(files) == [files[2]]
    shutil.copy(files[0], files[2])  # by a picture that is known
    assert ledger.missing(files) == [] and ledger.lines[str(files[2])].score == 0.1


def test_what_is_no_picture_is_listed_once(out: Path, files: list[Path]) -> None:
    ledger = begun(out, files)
    reasons = {files[0].with_name("x.mov"): "no picture", files[0].with_name("gone"): "not there"}
    for _ in range(2):
        ledger.refuse(reasons)
    rows = read_rows(out)[3:]
    assert [(row["error"], row["size"], row["hash"], row["score"]) for row in rows] == [
        ("no picture", None, None, None), ("not there", None, None, None)]
    Ledger(out, "rapo@1").refuse({**reasons, files[0].with_name("gone"): "otherwise"})
    assert len(read_rows(out)) == 6


def test_scores_of_another_model_or_another_file_are_refused(out: Path, files: list[Path]) -> None:
    begun(out, files)
    assert Ledger(out, "renamed@1").missing(files) == files[2:]  # whatever its folder's name
    with pytest.raises(UserError, match="scores by rapo@1, this is rapo@2.*another --out"):
        Ledger(out, "rapo@2")
    for line in ('{"step": 3}', "[]", "words"):
        with out.open("a") as file:
            file.write(line + "\n")
        with pytest.raises(UserError, match=r"scores.jsonl, line 4: no line of a list of scores"):
            Ledger(out, "rapo@1")
        out.write_text("".join(out.read_text().splitlines(True)[:3]))


def test_names_that_are_no_text_and_a_full_disk(out: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / os.fsdecode(b"\xff.jpg")
    path.write_bytes(b"x")
    ledger = Ledger(out, "rapo@1")
    ledger.add([answered(path)])
    assert Ledger(out, "rapo@1").missing([path]) == [] and ledger.row(path)["path"] == str(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nanoaes.ledger.append_rows", full)
    with pytest.raises(UserError, match="No space left.*the same command goes on"):
        ledger.add([answered(path)])

"""Nothing is lost on a crash: rows are appended, folders appear whole or not at all."""

from pathlib import Path

import pytest

from nanoaes.checkpoint import append_row, publish, read_rows, write_json


def test_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_row(path, {"a": 1})
    append_row(path, {"a": "é"})
    assert read_rows(path) == [{"a": 1}, {"a": "é"}]


@pytest.mark.parametrize("line", ["{", "[1]"])
def test_a_broken_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match="a.jsonl, line 2"):
        read_rows(path)


def test_a_crash_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with publish(target) as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(RuntimeError), publish(target) as folder:
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert (target / "weights").read_text() == "old"
    with publish(target) as folder:
        (folder / "weights").write_text("new")
    assert (target / "weights").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_json_is_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x" / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x" / "a.json", {"a": object()})
    assert (tmp_path / "x" / "a.json").read_text() == '{"a": 1}'

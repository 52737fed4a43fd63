"""Nothing is lost on a crash: rows are appended, folders appear whole or not at all."""

from pathlib import Path

import pytest

from nanoaes.checkpoint import append_row, publish, read_rows, set_aside, write_json


def test_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_row(path, {"a": 1})
    append_row(path, {"a": "é\u2028\x85"})  # line breaks to splitlines, not to JSON lines
    assert read_rows(path) == [{"a": 1}, {"a": "é\u2028\x85"}]


def test_a_line_torn_by_a_crash_does_not_count_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_row(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": ')
    assert read_rows(path) == [{"a": 1}]
    append_row(path, {"a": 2})
    assert read_rows(path) == [{"a": 1}, {"a": 2}]


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_row(tmp_path / "a.jsonl", {"a": float("nan")})


def test_earlier_results_are_set_aside(tmp_path: Path) -> None:
    for expected in ("before-1", "before-2"):
        (tmp_path / "a.txt").write_text(expected)
        set_aside(tmp_path, ["a.txt", "b.txt"])
        assert (tmp_path / expected / "a.txt").read_text() == expected
    set_aside(tmp_path, ["a.txt"])
    assert not (tmp_path / "before-3").exists()


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

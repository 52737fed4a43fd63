"""Nothing is lost on a crash: rows are appended, folders appear whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanoaes.checkpoint import (
    append_row,
    cut_rows,
    publish,
    read_rows,
    recover,
    set_aside,
    write_json,
)
from nanoaes.errors import UserError

ROOT = Path(__file__).parents[1]
CRASH = """
import os, sys
from pathlib import Path
from nanoaes.checkpoint import publish
replace, left = os.replace, [int(sys.argv[2])]
def crash(*args):
    left[0] or os._exit(9)
    left[0] -= 1
    replace(*args)
os.replace = crash
with publish(Path(sys.argv[1])) as folder:
    (folder / "weights").write_text("new")
"""


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


@pytest.mark.parametrize("last", ['{"a": 2}', '{"a": "é"} ', '{"a": {}}\r'])
def test_a_last_row_without_a_line_break_counts_and_stays(last: str, tmp_path: Path) -> None:
    """As editors and people's own scripts leave it."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + last, encoding="utf-8", newline="")
    rows = [{"a": 1}, json.loads(last)]
    assert read_rows(path) == rows
    append_row(path, {"a": 3})
    assert read_rows(path) == [*rows, {"a": 3}]


def test_a_line_torn_inside_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + '{"a": "é'.encode()[:-1])
    assert read_rows(path) == [{"a": 1}]
    append_row(path, {"a": 2})
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    path.write_bytes(b'{"a": "\xe9"}\n')
    with pytest.raises(UserError, match="line 1: not UTF-8; delete it"):
        read_rows(path)


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


def test_set_aside_finds_a_free_number(tmp_path: Path) -> None:
    for name in ("before-1", "before-3", "before-it-all"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.txt").write_text("a")
    set_aside(tmp_path, ["a.txt"])
    assert (tmp_path / "before-4" / "a.txt").read_text() == "a"


def test_set_aside_moves_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def fail_at_b(source: Path, target: Path) -> None:
        if source.name == "b.txt":
            raise PermissionError
        replace(source, target)

    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    monkeypatch.setattr(os, "replace", fail_at_b)
    with pytest.raises(PermissionError):
        set_aside(tmp_path, ["a.txt", "b.txt"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("line", ["{", "[1]"])
def test_a_broken_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match="a.jsonl, line 2"):
        read_rows(path)


def folder_with(path: Path, text: str) -> Path:
    with publish(path) as folder:
        (folder / "weights").write_text(text)
    return path


def test_an_error_while_writing_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    target = folder_with(tmp_path / "model", "old")
    with pytest.raises(RuntimeError), publish(target) as folder:
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert (target / "weights").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    folder_with(target, "new")
    assert (target / "weights").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_rename_that_fails_leaves_the_old_folder(tmp_path: Path, renames: int,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    target = folder_with(tmp_path / "model", "old")
    replace, calls = os.replace, []

    def fail_once(*args: Path) -> None:
        calls.append(args)
        if len(calls) == renames + 1:
            raise OSError
        replace(*args)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError):
        folder_with(target, "new")
    assert (target / "weights").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("renames", "there"), [(0, True), (1, False)])
@pytest.mark.parametrize("again", [recover, lambda path: folder_with(path, "old")])
def test_a_crash_at_a_rename_is_mended(tmp_path: Path, renames: int, there: bool, again) -> None:
    target = folder_with(tmp_path / "model", "old")
    crash = [sys.executable, "-c", CRASH, str(target), str(renames)]
    assert subprocess.run(crash, cwd=ROOT).returncode == 9
    assert target.exists() == there and len(list(tmp_path.iterdir())) == 2
    again(target)
    assert (target / "weights").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_crash_after_both_renames_keeps_the_new_folder(tmp_path: Path) -> None:
    target = folder_with(tmp_path / "model", "new")
    folder_with(tmp_path / ".model.replaced", "old")
    recover(target)
    assert (target / "weights").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_users_own_copies_stay(tmp_path: Path) -> None:
    for name in ("model.old", "model.partial"):
        folder_with(tmp_path / name, name)
    folder_with(tmp_path / "model", "new")
    assert (tmp_path / "model.old" / "weights").read_text() == "model.old"
    assert (tmp_path / "model.partial" / "weights").read_text() == "model.partial"


def test_a_link_to_another_disk_stays_a_link(tmp_path: Path) -> None:
    big = folder_with(tmp_path / "big" / "model", "old")
    (tmp_path / "model").symlink_to(big)
    folder_with(tmp_path / "model", "new")
    assert (tmp_path / "model").is_symlink() and (big / "weights").read_text() == "new"


def test_json_is_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x" / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x" / "a.json", {"a": object()})
    assert (tmp_path / "x" / "a.json").read_text() == '{"a": 1}'
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["a.json"]


@pytest.mark.parametrize("end", ["", '{"step": 9, "lo', '{"step": 9}'])
def test_rows_after_a_step_are_cut(tmp_path: Path, end: str) -> None:
    """Others stay as they are written, several of one step too."""
    path = tmp_path / "rows.jsonl"
    kept = '{"step": 0}\n{"step":2,"text":"é\\u2028"}\n{"step": 2, "x": 1.50}\n'
    path.write_text(kept + '{"step": 3}\n{"step": 4}\n' + end, encoding="utf-8")
    cut_rows(path, 2)
    assert path.read_text(encoding="utf-8") == kept
    cut_rows(path, -1)
    assert path.read_text() == "" and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    cut_rows(tmp_path / "none.jsonl", 2)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_cut_that_fails_changes_nothing(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def full(*paths: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError):
        cut_rows(path, 1)
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]

"""Files that survive a crash or a full disk: rows are appended, the rest is written aside, renamed.

Left out: what a run needs to go on (`resume.py`).
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nanoaes.errors import UserError
from nanoaes.progress import say


def append_row(path: Path, row: dict[str, Any]) -> None:
    """One more line of JSON; on disk when this returns."""
    append_rows(path, [row])


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A line of JSON for each; all on disk when this returns."""
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    if path.is_file():
        _end_last_line(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def whole_row(line: bytes) -> bool:
    """Is it a JSON object to its end? What a crash has left of one never is."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _end_last_line(path: Path) -> None:
    """What stands behind the last line break is a row whose line break is missing, or was torn."""
    with path.open("rb+") as file:
        start = file.seek(0, os.SEEK_END)
        while start and (file.seek(start - 1), file.read(1))[1] != b"\n":
            start -= 1
        file.seek(start)
        if whole_row(file.read()):
            file.write(b"\n")
        else:
            file.truncate(start)


def _lines(path: Path) -> list[bytes]:
    """All lines; the last one only where it is ended or whole."""
    *lines, last = path.read_bytes().split(b"\n")
    return [*lines, last] if whole_row(last) else lines


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a JSON-lines file; a last line cut off by a crash does not count.

    Raises:
        UserError: a line that is no JSON object, with file, line and remedy.
    """
    rows = []
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: no JSON ({error.msg}); delete it") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}, line {number}: not UTF-8; delete it") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: no JSON object; delete it")
        rows.append(row)
    return rows


def cut_rows(path: Path, step: int) -> None:
    """A file of rows loses those after that step, and a line that a crash cut off.

    Raises:
        UserError: as `read_rows`.
    """
    if not path.is_file():
        return
    rows = zip(_lines(path), read_rows(path), strict=True)
    write_whole(path, [f"{line.decode()}\n" for line, row in rows if row["step"] <= step])


def write_json(path: Path, value: Any) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [json.dumps(value, allow_nan=False)])


def write_whole(path: Path, pieces: Iterable[str]) -> None:
    """A text file of many pieces; whole, or as it was."""
    aside = path.with_name(path.name + ".partial")
    try:
        # A file's name is bytes: what of it is no character shows as \\udcff.
        with aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(pieces)
        _to_disk(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `path` only when all went well.

    Otherwise, be it in the body or in a rename, `path` is as it was and nothing else is left. A
    process that dies between the two renames leaves the old folder under its other name: `recover`.
    """
    path = path.resolve()  # a link to another disk: the folder stays there
    recover(path)
    aside, old = _aside(path)
    try:
        aside.mkdir(parents=True)
        yield aside
        # A rename may reach the disk before the contents do: then a power cut leaves empty files.
        for part in (*aside.rglob("*"), aside):
            _to_disk(part)
        if path.exists():
            os.replace(path, old)
        os.replace(aside, path)
        _to_disk(path.parent)
    finally:
        recover(path)


def recover(path: Path) -> None:
    """Mend what a `publish` of `path` left that did not end: the old folder comes back.

    Only for who alone writes there: it would pull the rug from under a `publish` at work.
    """
    path = path.resolve()
    aside, old = _aside(path)
    if old.exists() and not path.exists():
        os.replace(old, path)
    for left in (old, aside):
        shutil.rmtree(left, ignore_errors=True)


def discard(path: Path) -> None:
    """Delete a folder such that a crash leaves none of that name that is not whole."""
    path = path.resolve()
    aside, _ = _aside(path)
    os.replace(path, aside)
    shutil.rmtree(aside)


def _aside(path: Path) -> tuple[Path, Path]:
    """Names for the new folder and the old one; hidden: NAME.old may be the user's own copy."""
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.replaced")


def _to_disk(path: Path) -> None:
    """Wait until a file's contents, or the names in a folder, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network disks cannot do that to a folder
            raise
    finally:
        os.close(file)


def set_aside(run: Path, names: list[str]) -> None:
    """Move what an earlier run left under these names into RUN/before-1, before-2, …; all or none.
    What was rapo/eval.json is rapo-eval.json there.

    Where a move fails, those before it are undone.
    """
    there = [name for name in names if (run / name).exists()]
    if not there:
        return
    # One more than the highest: a count would hit a number in use where one was deleted.
    used = [int(p.name[7:]) for p in run.glob("before-*") if p.name[7:].isdecimal()]
    aside = run / f"before-{max(used, default=0) + 1}"
    aside.mkdir()
    with ExitStack() as undo:
        undo.callback(aside.rmdir)
        for name in there:
            moved = aside / name.replace("/", "-")
            os.replace(run / name, moved)
            undo.callback(os.replace, moved, run / name)
        undo.pop_all()
    say(f"earlier results moved to {aside}")

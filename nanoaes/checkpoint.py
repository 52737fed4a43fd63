"""Files that survive a crash: rows are appended, folders are written aside and renamed.

Left out: optimizer state, random state and data position; exact resume comes with full-size
training.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nanoaes.errors import UserError


def append_row(path: Path, row: dict[str, Any]) -> None:
    """One more line of JSON; on disk when this returns."""
    if path.is_file():
        _drop_torn_line(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _drop_torn_line(path: Path) -> None:
    """Cut off what a crash left behind the last line break."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end and (file.seek(end - 1), file.read(1))[1] != b"\n":
            end -= 1
        file.truncate(end)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a JSON-lines file; a last line cut off by a crash does not count.

    Raises:
        UserError: a line that is no JSON object, with file, line and remedy.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: no JSON ({error.msg}); delete it") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: no JSON object; delete it")
        rows.append(row)
    return rows


def write_json(path: Path, value: Any) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    aside.write_text(json.dumps(value, allow_nan=False), encoding="utf-8")
    os.replace(aside, path)


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `path` only when all went well."""
    aside, old = path.with_name(path.name + ".partial"), path.with_name(path.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    os.replace(aside, path)
    shutil.rmtree(old, ignore_errors=True)


def set_aside(run: Path, names: list[str]) -> None:
    """Move what an earlier run left under these names into RUN/before-1, before-2, …"""
    there = [run / name for name in names if (run / name).exists()]
    if there:
        aside = run / f"before-{1 + len(list(run.glob('before-*')))}"
        aside.mkdir()
        for path in there:
            os.replace(path, aside / path.name)
        print(f"earlier results moved to {aside}")

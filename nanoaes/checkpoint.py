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


def append_row(path: Path, row: dict[str, Any]) -> None:
    """One more line of JSON; on disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every line of a JSON-lines file.

    Raises:
        ValueError: a line that is no JSON object, with file, line and remedy.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: no JSON ({error.msg}); delete it") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: no JSON object; delete it")
        rows.append(row)
    return rows


def write_json(path: Path, value: Any) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    aside.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
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

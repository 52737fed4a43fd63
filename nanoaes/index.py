"""Which pictures have been decoded already: each is checked once in a run's folder, not each start.

RUN/pictures.jsonl has a row for each check, appended as they come, so that a start that was
interrupted goes on where it was. A picture is known by path, size and time of change. What was
whole is believed; what was bad is looked at again, and first: the error comes at once, and is gone
once the file is mended or its decoder installed.
Left out: the pictures' contents; who puts others in place with the same size and time must delete
the file.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from nanoaes.checkpoint import append_rows
from nanoaes.images import problems
from nanoaes.runs import keep_going

ROWS = 256  # that are written at once; a crash costs as many checks, a second's work
Row = dict[str, Any]  # image: whole path; size: bytes; mtime_ns; problem: None if there is none


class Index:
    """The pictures that were checked for a run, and those that are being checked."""

    def __init__(self, run: Path | None = None):
        """run: its folder; None remembers nothing."""
        self.file = run / "pictures.jsonl" if run else None
        self.rows: dict[str, Row] | None = None  # by path; read when first asked

    def check(self, paths: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
        """Each picture once, and what is wrong with it (None: nothing).

        First those that are known to be whole, then those that were bad, then those that are new.
        """
        again: dict[Path, Row] = {}
        new: dict[Path, Row] = {}
        rows = self._read()
        for path in dict.fromkeys(paths):
            row = _look(path)
            known = rows.get(row["image"])
            if known == row:
                yield path, None
            elif known and known | {"problem": None} == row:
                again[path] = row
            else:
                new[path] = row
        yield from self._decode(again | new)

    def _decode(self, waiting: dict[Path, Row]) -> Iterator[tuple[Path, str | None]]:
        """Look at the pictures themselves, and write down what was found."""
        fresh: list[Row] = []
        try:
            with closing(problems(list(waiting))) as found:
                for (path, row), problem in zip(waiting.items(), found, strict=True):
                    fresh.append(row | {"problem": problem})
                    if len(fresh) == ROWS:
                        self._write(fresh)
                        fresh = []
                    yield path, problem
        finally:
            self._write(fresh)

    def _read(self) -> dict[str, Row]:
        if self.rows is None:
            self.rows = {}
            there = self.file is not None and self.file.is_file()
            for line in self.file.read_text("utf-8", "replace").split("\n") if there else ():
                # A line that a crash or a second process has torn costs one check.
                with suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    self.rows[row["image"]] = row
        return self.rows

    def _write(self, rows: list[Row]) -> None:
        """Those of files that are there. A disk that fails costs the index, not the run."""
        rows = [row for row in rows if row["size"] is not None]
        self.rows |= {row["image"]: row for row in rows}
        if self.file is None or not rows:
            return
        with keep_going(str(self.file)) as saving:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            append_rows(self.file, rows)
        if not saving.done:
            self.file = None  # it was said once


def _look(path: Path) -> Row:
    """The row of a picture that nothing is wrong with; size None if it is not there."""
    name = os.path.abspath(path)
    try:
        seen = os.stat(name)
    except (OSError, ValueError):  # a name with a NUL in it
        return {"image": name, "size": None, "mtime_ns": None, "problem": None}
    return {"image": name, "size": seen.st_size, "mtime_ns": seen.st_mtime_ns, "problem": None}

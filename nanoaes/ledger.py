"""scores.jsonl: a line for each picture as soon as it is scored; what is there is not done again.

    {"path", "score" in [0, 1] or null, "critique", "taken" (seconds, by the camera's clock),
     "look" (difference hash), "size", "mtime_ns", "hash" of the file, "by": model and question}

With samples also "std". Without a score "error" says why, and "reply" is what the model wrote, if
it was asked. The last line of a path counts. A picture is known again by path, size and time of
change; where these differ by its content, so that a moved or copied one is not scored again but a
changed one is. One that could not be read is tried again each time: a package may be there now, or
its folder's rights. A torn last line (a crash, a full disk) is cut off. Lines are read back one by
one: in memory a picture costs some hundred bytes.
Left out: the same size and time with another content.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nanoaes.checkpoint import append_rows, whole_row
from nanoaes.errors import UserError

NEEDED = {"path", "score", "size", "mtime_ns", "hash", "by"}
BEGIN = b'{"path": '


class Stamp(NamedTuple):
    """What tells cheaply that a file is as it was; None, None: no such file."""

    size: int | None
    mtime_ns: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """What is kept in memory of a line."""

    place: int  # of its first byte
    stamp: Stamp
    digest: str | None
    score: float | None
    error: str | None
    taken: float | None
    look: str | None

    @property
    def answered(self) -> bool:
        """Has a model seen the picture?"""
        return self.look is not None


def _torn(text: bytes) -> bool:
    """Is it the beginning of a ledger's line?"""
    try:
        json.loads(text)
    except ValueError:
        return BEGIN.startswith(text[: len(BEGIN)])
    return False


def stamp(path: Path) -> Stamp:
    """Of a file as it is now."""
    try:
        at = os.stat(path)
    except OSError:
        return Stamp(None, None)
    return Stamp(at.st_size, at.st_mtime_ns)


def digest(path: Path) -> str | None:
    """Of a file's content; None: it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return None


class Ledger:
    """Of one process, which alone writes the file: `runs.hold_file`."""

    def __init__(self, path: Path, by: str):
        """
        Raises:
            UserError: a line that is none of a ledger, or of another model.
        """
        self.path, self.by = path, by
        self.lines: dict[str, Line] = {}
        self.contents: dict[str, int] = {}  # digest -> place of the line of one that was answered
        self.end = 0
        path.touch()
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if text.endswith(b"\n") or whole_row(text):
                    self._keep(self._row(text, number), len(text.rstrip(b"\n")) + 1)
                elif not self.end and not _torn(text):
                    self._row(text, number)  # a file of something else is not cut
        append_rows(path, [])  # cuts off a torn line, ends a whole one

    def _row(self, text: bytes, number: int) -> dict[str, Any]:
        """A line, if it is one of this model's ledger."""
        try:
            row = json.loads(text)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not row.keys() >= NEEDED:
            raise UserError(f"{self.path}, line {number}: no line of a list of scores; choose "
                            "another --out, or delete the line")
        if row["by"].rpartition("@")[2] != self.by.rpartition("@")[2]:
            raise UserError(f"{self.path} holds scores by {row['by']}, this is {self.by}: another "
                            "model, or asked otherwise; choose another --out")
        return row

    def _keep(self, row: dict[str, Any], size: int) -> None:
        line = Line(self.end, Stamp(row["size"], row["mtime_ns"]), row["hash"], row["score"],
                    row.get("error"), row.get("taken"), row.get("look"))
        self.lines[row["path"]] = line
        if line.answered:
            self.contents[line.digest] = line.place
        self.end += size

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """More lines; on disk when this returns. What failed before in the same way is none.

        Raises:
            UserError: the disk fails. What was there before stays.
        """
        rows = [{**row, "by": self.by} for row in rows if not self._again(row)]
        try:
            append_rows(self.path, rows)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); make room, then "
                            "the same command goes on where it was") from error
        for row in rows:
            self._keep(row, len(json.dumps(row)) + 1)

    def _again(self, row: dict[str, Any]) -> bool:
        """An error that is there already?"""
        line = self.lines.get(row["path"])
        return (line is not None and not line.answered and "look" not in row and
                (line.error, line.stamp) == (row.get("error"), Stamp(row["size"], row["mtime_ns"])))

    def row(self, path: Path) -> dict[str, Any]:
        """The line that counts."""
        return self._at(self.lines[str(path)].place)

    def _at(self, place: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(place)
            return json.loads(file.readline())

    def missing(self, paths: Iterable[Path], tick: Callable[[int], object] = lambda n: None
                ) -> list[Path]:
        """Which pictures no line is about, in order; of those moved or touched one is written."""
        sizes = {line.stamp.size for line in self.lines.values() if line.answered}
        todo, moved = [], []
        for path in paths:
            now, line = stamp(path), self.lines.get(str(path))
            if line is None or line.stamp != now or not line.answered:
                same = self.contents.get(digest(path) or "") if now.size in sizes else None
                if same is None:
                    todo.append(path)
                else:
                    moved.append({**self._at(same), "path": str(path), **now._asdict()})
            tick(1)
        self.add(moved)
        return todo

    def refuse(self, reasons: dict[Path, str]) -> None:
        """Lines of what is no picture at all."""
        self.add({"path": str(path), "score": None, "error": reason, "hash": None,
                  **stamp(path)._asdict()} for path, reason in reasons.items())

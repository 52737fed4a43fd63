"""predictions.jsonl: every answer as it comes, so that an evaluation that was cut off goes on.

The first line says what the answers are of:

    {"about": {"model": fingerprint, "decoding": ..., "sets": {"AVA": digest}, ...}}
    {"set": "AVA", "image": path, "truth": 0.61, "pred": 0.58, "text": "<think>…", "cut": false}

`pred` is null where no score can be read. Where all that changes an answer is the same, nothing is
asked twice; else the earlier files are moved to before-N, as a training run's are.
Left out: the pictures' contents, as in `same.py`.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanoaes.checkpoint import append_rows, read_rows, set_aside
from nanoaes.datasets import Example
from nanoaes.errors import Stopped, UserError
from nanoaes.parallel import first
from nanoaes.progress import say
from nanoaes.runs import claim, keep_going
from nanoaes.stop import Stopping

Item = dict[str, Any]  # "image", "truth", "pred", "text", "cut"


def beside(out: Path) -> tuple[Path, Path]:
    """Where predictions and report lie, of a result OUT: eval.json's are predictions.jsonl and
    report.html, those of x.json are x.predictions.jsonl and x.report.html."""
    start = "" if out.name == "eval.json" else f"{out.stem}."
    return out.with_name(f"{start}predictions.jsonl"), out.with_name(f"{start}report.html")


EVALUATED = ("eval.json", *(path.name for path in beside(Path("eval.json"))))  # beside a model


def check_writable(out: Path) -> None:
    """Before anything is asked: can a file of that name be written?

    Raises:
        UserError: it is a folder, or lies where nothing can be written.
    """
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file, such as {out / 'eval.json'}")
    home = next(p for p in out.absolute().parents if p.exists())
    if not (home.is_dir() and os.access(home, os.W_OK | os.X_OK)):
        raise UserError(f"--out {out}: {home} is no folder that can be written; choose another "
                        "--out")


def digest(examples: Sequence[Example]) -> str:
    """Of a set: its pictures' paths and scores, in order."""
    seen = hashlib.sha256()
    for example in examples:
        seen.update(f"{example.image}\0{example.score!r}\n".encode(errors="surrogateescape"))
    return seen.hexdigest()[:16]


@dataclass
class Log:
    """The file, and what an interrupted evaluation has left in it."""

    path: Path
    kept: dict[str, dict[str, Item]]  # set -> image -> item
    stop: Stopping | None = None

    def add(self, name: str, items: list[Item]) -> None:
        """More answers of a set, of all processes; each calls it, the first one writes. A disk
        that fails costs them their lines, not the evaluation.

        Raises:
            Stopped: a signal has come.
        """
        if first() and items:
            with keep_going(f"{self.path}: a part"):
                append_rows(self.path, [{"set": name, **item} for item in items])
        if self.stop and (number := self.stop.asked()):
            raise Stopped(number, "the same command goes on where this one stopped")


def read_items(path: Path) -> tuple[dict[str, Any] | None, dict[str, dict[str, Item]]]:
    """What the answers are of (None where the first line does not say), and set -> image -> item.

    Raises:
        UserError: a line that is no JSON object, or lacks a field.
    """
    rows = read_rows(path)
    about = rows[0].get("about") if rows else None
    items: dict[str, dict[str, Item]] = {}
    for number, row in enumerate(rows, 1):
        if "about" in row and number == 1:
            continue
        if lacks := [key for key in ("set", "image", "truth", "pred") if key not in row]:
            raise UserError(f"{path}, line {number}: no {', '.join(lacks)}; delete the line")
        items.setdefault(row.pop("set"), {})[row["image"]] = row
    return about, items


def open_log(out: Path, about: dict[str, Any], claimed: ExitStack) -> Log:
    """Go on with the predictions beside `out` if they are of the same; else begin, and move what
    lies there. For one process; all may use what it returns.

    Args:
        about: what changes an answer, as JSON knows it.
        claimed: until it ends no other evaluation may write into that folder.
    Raises:
        UserError: as `read_items`; the folder cannot be written or is in use.
    """
    claimed.enter_context(claim(out.parent, "eval.py", "--out"))
    path, report = beside(out)
    about = json.loads(json.dumps(about))
    before, kept = read_items(path) if path.is_file() else (None, {})
    if before == about:
        n = sum(map(len, kept.values()))
        say(f"going on: {n:,} answers are in {path}; delete it to ask again")
        return Log(path, kept)
    try:
        set_aside(out.parent, [out.name, path.name, report.name])
        append_rows(path, [{"about": about}])
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another --out"
                        ) from None
    return Log(path, {})

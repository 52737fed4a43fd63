"""JSON lists of pictures -> their rows: Q-Align's, ArtiMuse's, and the released Aes-R1 code's.

    [{"image" or "img_path": path, "gt_score" or "score": x, …}, …]
    [{"messages": [{"role": "user", …}, {"role": "assistant", "content": x}], "images": path}, …]

or one such object a line. Fields are found without regard to case. Left out: rows with several
pictures or replies, which are refused.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nanoaes.images import DataError
from nanoaes.progress import say
from nanoaes.tables import Row, short, text_of

IMAGE = ("image", "img_path", "images")
SCORE = ("gt_score", "score", "messages")  # a list with both has a model's score beside the truth


def records(file: Path, fields: Sequence[Sequence[str]], lines: bool) -> Iterator[Row]:
    """(place, image, score and further cells) of each row that has a score.

    Rows of public test lists may have none: they are passed over, and their number is said.

    Args:
        fields: of each cell, the names that it may have, the first that is there wins; the first
            two are image and score.
        lines: one object a line, and places are lines; else one list, and they count its rows.
    Raises:
        DataError: no JSON of this shape, a field twice, no row with a score.
    """
    bare, seen = 0, 0
    for place, row in objects(file, text_of(file), lines):
        try:
            cells = [_cell(row, names) for names in fields]
            if not cells[0]:
                raise ValueError(f"there is no {' or '.join(fields[0])}")
        except ValueError as error:
            raise DataError(_at(file, place, lines, error)) from None
        if cells[1]:
            seen += 1
            yield place, cells
        else:
            bare += 1
    if bare and not seen:
        raise DataError(f"{file}: no row has a {' or '.join(fields[1])}; the last row's fields are "
                        f"{short(', '.join(row))!r}; name the score's with --columns image,score")
    if bare:
        say(f"{file}: {bare} of {bare + seen} rows have no score and are passed over")


def _at(file: Path, place: int, lines: bool, problem: object) -> str:
    return f"{file}, {'line' if lines else 'row'} {place}: {problem}; correct or delete the row"


def objects(file: Path, text: str, lines: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place, object) of each row of that file's text, names in small letters; as `records`."""
    texts = enumerate(text.split("\n"), 1) if lines else [(1, text)]
    for line, part in texts:
        if not part.strip():
            continue
        try:
            found = json.loads(part, object_pairs_hook=_lower)
        except json.JSONDecodeError as error:
            line = line if lines else error.lineno
            raise DataError(f"{file}, line {line}: no JSON ({error.msg}); correct it; one object "
                            "a line is jsonl:, one list is json:") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}{f', line {line}' * lines}: {error}; correct it") from None
        rows = [found] if lines else found
        if not isinstance(rows, list):
            raise DataError(f"{file}: no list of rows but one {type(rows).__name__}; one object a "
                            "line is jsonl:")
        for i, row in enumerate(rows, 1):
            place = line if lines else i
            if not isinstance(row, dict):
                raise DataError(_at(file, place, lines, f"no {{…}} but {short(repr(row), 40)}"))
            yield place, row


def _lower(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with its names in small letters; json.loads alone keeps the last of two."""
    row = {name.lower(): value for name, value in pairs}
    if len(row) < len(pairs):
        names = ", ".join(name for name, _ in pairs)
        raise ValueError(f"an object has a field twice: {short(names)!r}")
    return row


def _cell(row: dict[str, Any], names: Sequence[str]) -> str:
    """The first field of these that is there, as text; "" without one, and for null."""
    name = next((name for name in map(str.lower, names) if row.get(name) is not None), "")
    value = row.get(name, "")
    if name == "messages":
        try:
            value = [turn["content"] for turn in value if turn["role"] == "assistant"]
        except (TypeError, KeyError):
            raise ValueError("messages are no [{role, content}, …]") from None
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{len(value)} {name} where one is scored")
        value = value[0]
    if isinstance(value, dict | list):
        raise ValueError(f"{name} is neither text nor number")
    return str(value).strip()

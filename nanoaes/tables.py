"""A label file -> its rows, whatever its encoding and its delimiter.

UTF-8, UTF-16, UTF-32 and Windows-1252 (which holds Latin-1) are recognised, and so are `,` `;` and
tab between cells and a decimal comma; what is none of these is refused by name. Columns are found
by name without regard to case.
Left out: cells that span lines, which a label file has only by a quote that was never closed.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from nanoaes.images import DataError
from nanoaes.progress import say

T = TypeVar("T")
NUMBER = r"[-+]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][-+]?[0-9]+)?"
Row = tuple[int, Sequence[str]]     # the line that it begins on, from 1; its cells
BOMS = {b"\xff\xfe\0\0": "utf-32-le", b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le",
        b"\xfe\xff": "utf-16-be"}


def short(text: str, limit: int = 80) -> str:
    """For an error's one line: a cell or a header can be a megabyte."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def text_of(file: Path) -> str:
    """A label file's text, every line's end as LF.

    DataError: no such file, or no text. What is not UTF-8 is said, since a guess can be wrong.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file, expected the labels here; check the spec's path")
    data = file.read_bytes()
    encoding = next((name for bom, name in BOMS.items() if data.startswith(bom)), "")
    half = len(data) // 4  # of every second byte: UTF-16 of names and numbers has a zero there
    if not encoding and b"\0" in data:
        encoding = ("utf-16-le" if data[1::2].count(0) > half else
                    "utf-16-be" if data[0::2].count(0) > half else "")
        if not encoding:
            raise DataError(f"{file}: no text but a program's own file; save it as a CSV in UTF-8")
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise DataError(f"{file}: no {encoding} at byte {error.start}, as its first bytes "
                            "promise; save it as UTF-8") from None
        say(f"{file}: not UTF-8, read as Latin-1 (Windows-1252)")
        text = data.decode("cp1252", "replace")
    return io.StringIO(text.removeprefix("\ufeff"), newline=None).read()


def table(file: Path, wanted: Sequence[str], header: str = "", maybe: Sequence[str] = ()
          ) -> Iterator[Row]:
    """The cells of the wanted columns, in that order, of each row that is not blank.

    Args:
        wanted: two names or more.
        maybe: further ones that may be missing; their cells are then empty.
        header: the columns of a blank-separated file that does not name them; "": a CSV that does.
    Raises:
        DataError: a wanted column is missing or named twice, a row is longer or shorter than the
            header, a quote is left open.
    """
    text = text_of(file)
    if header:
        line, names = 1, header.split()
        rows = ((n, line.split()) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    else:
        rows = _cells(file, text, {name.lower() for name in (*wanted, *maybe)})
        line, names = next(rows, (1, None))
        if names is None:
            return
    places, width = _places(f"{file}, line {line}", names, wanted, maybe), len(names)
    pick = itemgetter(*places)
    for line, cells in rows:
        if len(cells) != width:
            raise DataError(f"{file}, line {line}: {len(cells)} cells for {width} columns (a comma "
                            "in a name or in a number?); quote it, correct or delete the row")
        cells.append("")
        yield line, pick(cells)


def _cells(file: Path, text: str, wanted: set[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV, the header's too, without blanks around their cells."""
    reader = csv.reader(io.StringIO(text), delimiter=_delimiter(text, wanted),
                        skipinitialspace=True)
    last = 0
    try:
        for cells in reader:
            line, last, whole = last + 1, reader.line_num, "".join(cells)
            if "\n" in whole:
                raise DataError(f"{file}, line {line}: a quote opened here is closed on line "
                                f"{last} or never; close or delete it")
            if whole and not whole.isspace():
                yield line, [cell.strip() for cell in cells]
    except csv.Error as error:  # a stray quote swallows the lines after it, up to csv's limit
        raise DataError(f"{file}, line {last + 1}: {error}; repair its quotes") from None


def _delimiter(text: str, wanted: set[str]) -> str:
    """The one under which the first row has most of the wanted columns, then most columns."""
    first = text.lstrip("\n").partition("\n")[0]

    def fits(delimiter: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:  # a long header that is one cell to this delimiter
            return 0, 0
        return len(wanted & {cell.strip().lower() for cell in cells}), len(cells)
    return max(",;\t", key=fits)


def _places(where: str, names: list[str], wanted: Sequence[str], maybe: Sequence[str]
            ) -> list[int]:
    """Column numbers of the wanted names; one past the last for what may be missing and is."""
    lower, places = [name.lower() for name in names], []
    for name in (*wanted, *maybe):
        found = [i for i, other in enumerate(lower) if other == name.lower()]
        if len(found) > 1:
            raise DataError(f"{where}: {len(found)} columns are named {name!r}; rename or delete "
                            "one")
        if not found and name not in maybe:
            raise DataError(f"{where}: no column {name!r} in {short(', '.join(names))!r}; rename "
                            "one, or name a csv's own with --columns image,score,std")
        places.append(found[0] if found else len(names))
    return places


def number(cell: str) -> float:
    """A float, or ValueError; float() alone would read "nan", "inf" and "0_5" (as 5).

    A comma is a decimal comma.
    """
    if not re.fullmatch(NUMBER, cell):
        raise ValueError(f"{short(cell, 40)!r} is not a number" if cell else "there is no score")
    return float(cell.replace(",", "."))


def told(file: Path, rows: Iterator[Row], says: Callable[..., T | None], unit: str = "line"
         ) -> Iterator[T]:
    """What each row says; None is passed over. DataError with the line for a ValueError of it."""
    for line, cells in rows:
        try:
            said = says(*cells)
        except ValueError as error:
            raise DataError(f"{file}, {unit} {line}: {error}; correct or delete the row") from None
        if said is not None:
            yield said

"""Real photographs and their scores: readers of the downloads as they are.

A spec `format:path[@lo-hi]` names a download as its authors ship it, or a CSV of one's own. Every
row becomes an `Example` with its score on [0, 1], or a `DataError` that says what to repair.
Left out: FLICKR-AES and JSON lists (a later round), TAD66K's themes and AADB's validation list
(no use for them here).
"""

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nanoaes.images import DataError
from nanoaes.index import Index
from nanoaes.progress import progress

Cells = dict[str, str]              # one row of a label file, by column name
Complete = Callable[[Cells], Cells | None]  # adds what a row lacks; None: it is of the other split


@dataclass(frozen=True)
class Example:
    image: Path
    score: float                    # mean opinion on [0, 1]
    std: float | None               # the raters' standard deviation on the same [0, 1], if known
    dataset: str                    # "AVA", "TAD66K", "PARA", "AADB", or the CSV's stem
    scale: tuple[float, float]      # native (lo, hi): lo became 0 and hi became 1


def _as_it_is(root: Path, split: str) -> Complete:
    """For a file that lists one split's rows, whole."""
    return lambda row: row


class Format(NamedTuple):
    """Where a download keeps its labels and images, relative to its root folder."""
    dataset: str
    scale: tuple[float, float]
    labels: tuple[str, str]         # the label files of train and test
    image: str                      # the image file; {name} stands for that column's cell
    score: str = "score"            # column names; a file without the std column has no std
    std: str = "std"
    header: str = ""                # columns of a blank-separated file; "": a CSV that names them
    completion: Callable[[Path, str], Complete] = _as_it_is  # of a root folder and a split


def read_dataset(
    spec: str, split: str, columns: tuple[str, str, str] = ("image", "score", "std")
) -> list[Example]:
    """The examples of one split ("train" or "test") of the dataset that `spec` names.

    `ava:data/AVA`, `tad66k:...`, `para:...`, `aadb:...` name the download's root folder.
    `csv:photos.csv@1-5`: a CSV and its native scale; image paths are relative to its folder,
    `{split}` in its name stands for the split (without it both splits are the whole file), and
    `columns` are its image, score and optional std columns. Images are not opened here.
    DataError: unknown format, missing label file, a row without a usable score or seen before.
    """
    if split not in ("train", "test"):
        raise DataError(f"{spec}: there is no split {split!r}; use train or test")
    root, known = _parse_spec(spec, split, columns)
    file, complete = root / known.labels[split == "test"], known.completion(root, split)
    examples: dict[Path, Example] = {}
    for line, header, cells in _table(file, known.header):
        try:
            if (row := complete(_named(header, cells))) is None:
                continue
            example = _example(root, row, known)
            if examples.setdefault(example.image, example) is not example:
                raise ValueError(f"{example.image.name!r} is on an earlier row too")
        except KeyError as error:
            raise DataError(f"{file}, line 1: no column {error}; rename one of {header}") from None
        except ValueError as error:
            raise DataError(f"{file}, line {line}: {error}; correct or delete the row") from None
    if not examples:
        raise DataError(f"{file}: no rows for {split}; check that the download is whole")
    return list(examples.values())


def _parse_spec(spec: str, split: str, columns: tuple[str, str, str]) -> tuple[Path, Format]:
    """`format:path[@lo-hi]` -> root folder and format; only a csv has, and needs, a scale."""
    name, path, lo, hi = re.fullmatch(
        r"(?s)([^:]*):?(.*?)(?:@(-?\d+\.?\d*)-(-?\d+\.?\d*))?", spec).groups()
    if name not in [*FORMATS, "csv"] or not path:
        near = difflib.get_close_matches(name.lower(), [*FORMATS, "csv"], n=1, cutoff=0.0)[0]
        raise DataError(f"{spec!r} is not format:path; did you mean {near}:{path or 'PATH'}?")
    if (name == "csv") != bool(lo) or (lo and float(lo) >= float(hi)):
        raise DataError(f"{spec}: a csv needs its lowest and highest score, csv:photos.csv@1-5, "
                        "and the other formats have their own; correct the part after @")
    if name in FORMATS:
        return Path(path), FORMATS[name]
    file, scale = Path(path.replace("{split}", split)), (float(lo), float(hi))
    labels, image = (file.name, file.name), f"{{{columns[0]}}}"
    return file.parent, Format(file.stem, scale, labels, image, *columns[1:])


def _text(file: Path) -> str:
    """A label file's text, CRLF as LF; a name that is not UTF-8 turns up as a missing image."""
    if not file.is_file():
        raise DataError(f"{file}: no such file, expected the labels here; check the spec's path")
    return file.read_text(encoding="utf-8-sig", errors="replace")


def _table(file: Path, header: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """(line number from 1, column names, cells) of each row that is not blank."""
    if header:
        lines = enumerate(_text(file).split("\n"), 1)
        yield from ((line, header.split(), row.split()) for line, row in lines if row.strip())
        return
    reader = csv.reader(io.StringIO(_text(file)), skipinitialspace=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        yield from ((reader.line_num, names, cells) for cells in reader if cells)
    except csv.Error as error:  # a stray quote swallows the lines after it, up to csv's limit
        raise DataError(f"{file}, line {reader.line_num}: {error}; repair its quotes") from None


def _named(header: list[str], cells: list[str]) -> Cells:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells for {len(header)} columns (a comma in a name?)")
    return dict(zip(header, map(str.strip, cells), strict=True))


def _example(root: Path, row: Cells, known: Format) -> Example:
    """A row on its native scale -> Example on [0, 1]; ValueError for what is no score."""
    image = re.sub(r"\{(.*?)\}", lambda name: row[name[1]], known.image)
    if not image or image.endswith("/"):
        raise ValueError("there is no image name")
    score = normalise(_number(row[known.score]), known.scale)
    width = known.scale[1] - known.scale[0]
    std = normalise(_number(row[known.std]), (0.0, width)) if row.get(known.std) else None
    return Example(root / image, score, std, known.dataset, known.scale)


def _number(cell: str) -> float:
    """A finite float, or ValueError; float() alone would read "nan", "inf" and "0_5" (as 5)."""
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", cell):
        raise ValueError(f"{cell[:40]!r} is not a number" if cell else "there is no score")
    return float(cell)


def normalise(score: float, scale: tuple[float, float]) -> float:
    """(score - lo) / (hi - lo): native scale -> [0, 1]. ValueError outside [lo, hi] or for NaN."""
    lo, hi = scale
    if not lo <= score <= hi:
        raise ValueError(f"{score:g} is outside the scale {lo:g} to {hi:g}")
    return (score - lo) / (hi - lo)


def _ava(root: Path, split: str) -> Complete:
    """mean = sum i n_i / sum n_i, std = sqrt(sum n_i (i - mean)^2 / sum n_i), votes i = 1 to 10.

    Test is the list generic_test, train the rest; listed ids without a row are no examples.
    """
    test_ids = set(_text(root / "aesthetics_image_lists" / "generic_test.jpgl").split())

    def complete(row: Cells) -> Cells | None:
        if (row["id"] in test_ids) != (split == "test"):
            return None
        i, n = np.arange(1, 11), np.array([_number(row[f"n{i}"]) for i in range(1, 11)])
        if min(n) < 0 or sum(n) == 0:
            raise ValueError("there is no score: no votes, or fewer than none")
        mean = (i * n).sum() / n.sum()
        std = np.sqrt((n * (i - mean) ** 2).sum() / n.sum())
        return row | {"score": str(mean), "std": str(std)}
    return complete


def _aadb(root: Path, split: str) -> Complete:
    """The new-test folder may put a score before a name: `0.500_name.jpg` is `name.jpg`."""
    folder = {"train": "datasetImages_originalSize", "test": "AADB_newtest_originalSize"}[split]
    names = sorted(path.name for path in (root / folder).glob("*"))
    found = {re.sub(r"^\d\.\d{3}_", "", name): name for name in names}

    def complete(row: Cells) -> Cells:
        plain = re.sub(r"^\d\.\d{3}_", "", row["image"])
        return row | {"image": found.get(plain, row["image"]), "folder": folder}
    return complete


FORMATS = {
    "ava": Format("AVA", (1, 10), ("AVA.txt", "AVA.txt"), "images/{id}.jpg", completion=_ava,
                  header="index id n1 n2 n3 n4 n5 n6 n7 n8 n9 n10 tag1 tag2 challenge"),
    "tad66k": Format("TAD66K", (1, 10), ("labels/merge/train.csv", "labels/merge/test.csv"),
                     "TAD66K/{image}"),
    "para": Format(
        "PARA", (1, 5), ("annotation/PARA-GiaaTrain.csv", "annotation/PARA-GiaaTest.csv"),
        "imgs/{sessionId}/{imageName}", "aestheticScore_mean", "aestheticScore_std"),
    "aadb": Format("AADB", (0, 1), ("imgListFiles_label/imgListTrainRegression_score.txt",
                                    "imgListFiles_label/imgListTestNewRegression_score.txt"),
                   "{folder}/{image}", header="image score", completion=_aadb),
}


def check_images(examples: Sequence[Example], bad_images: str = "refuse",
                 index: Index | None = None) -> list[Example]:
    """Decode every image; those whose image is whole, in order. Prints n kept / n expected.

    A bad image: DataError at the first ("refuse"), or dropped with the first five listed ("skip";
    DataError if none is left).
    index: of the images that need not be decoded again.
    """
    paths, bad, seen = [example.image for example in examples], {}, 0
    with closing((index or Index()).check(paths)) as found:
        for path, problem in progress(found, "checking images", len(paths), delay=1):
            seen += 1
            if problem:
                bad[path] = problem
            if problem and bad_images != "skip":
                raise DataError(f"{problem} (the first bad one of {seen} checked, of {len(paths)} "
                                "expected), or drop such images with --bad_images skip")
    kept = [example for example in examples if example.image not in bad]
    listed = [bad[path] for path in paths if path in bad]
    if not kept:
        raise DataError(f"{listed[0]} (all {len(paths)} images are bad)")
    print(f"images: {len(kept)} kept / {len(paths)} expected")
    print("".join(f"  skipped {problem}\n" for problem in listed[:5]), end="")
    return kept


def read_all(specs: str, split: str, bad_images: str, index: Index | None = None
             ) -> list[Example]:
    """The examples of several specs with a comma between, one after another, images checked.

    Raises DataError as `read_dataset` and `check_images` do, and for a set named twice.
    """
    examples: list[Example] = []
    for spec in filter(None, specs.split(",")):
        more = check_images(read_dataset(spec, split), bad_images, index)
        if more[0].dataset in {e.dataset for e in examples}:
            raise DataError(f"{spec}: a set named {more[0].dataset} is there already; rename one")
        examples += more
    return examples

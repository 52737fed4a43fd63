"""Real photographs and their scores: what the command line names -> `Example`s.

A spec `format:path[@lo-hi][*ratio]` names a download as its authors ship it (`downloads.py`), or a
CSV or JSON list of one's own. Every row becomes an `Example` with its score on [0, 1], or a
`DataError` says what to repair. Left out: splitting a list of one's own into training and test.
"""

import gc
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nanoaes.downloads import DOWNLOADS, Download, Label, Source
from nanoaes.images import DataError
from nanoaes.index import Index
from nanoaes.mixture import counts, draw
from nanoaes.progress import progress, say
from nanoaes.records import IMAGE, SCORE, records
from nanoaes.specs import Spec, named_columns, parse_spec, split_specs
from nanoaes.tables import number, short, table, told

COLUMNS = ("image", "score", "std", "theme")
LEAST_SPREAD = 0.02  # of the scale: people agree on no picture set as a whole so well


@dataclass(frozen=True)
class Example:
    image: Path
    score: float                    # mean opinion on [0, 1]
    std: float | None               # the raters' standard deviation on the same [0, 1], if known
    dataset: str                    # "AVA", "TAD66K", ..., or the stem of one's own list
    scale: tuple[float, float]      # native (lo, hi): lo became 0 and hi became 1
    theme: str = ""                 # what it shows, in its set's own words, if known


Sets = dict[str, tuple[str, list[Example]]]  # name -> ("in" or "ood", examples)


def read_dataset(spec: str, split: str, columns: tuple[str, ...] = ()) -> list[Example]:
    """The examples of one split ("train" or "test") of the dataset that `spec` names.

    `ava:data/AVA`, `tad66k:...` and the other `DOWNLOADS` name the download's root folder.
    `csv:photos.csv@1-5`, `json:...`, `jsonl:...`: one's own list and its native scale; image paths
    are relative to its folder, `{split}` in its name stands for the split (without it both splits
    are the whole file). Images are not opened here, and a `*ratio` is `read_all`'s.

    Args:
        columns: of one's own list, the names of image, score and, where there are, std and theme;
            (): `COLUMNS`, of a JSON list its usual names too.
    Raises:
        DataError: unknown format, missing label file, a row without a usable score or seen before,
            a spread that cannot be on the score's scale.
    """
    if split not in ("train", "test"):
        raise DataError(f"{spec}: there is no split {split!r}; use train or test")
    asked = parse_spec(spec, split)
    known = DOWNLOADS.get(asked.format) or _own(asked, columns)
    source = known.read(asked.path, split)
    with _uncollected():
        examples = list(_examples(known, source))
    if not examples:
        raise DataError(f"{source.file}: no rows for {split}; check that the download is whole")
    _check_spread(source.file, examples)
    return examples


@contextmanager
def _uncollected() -> Iterator[None]:
    """Python's collector would look at AVA's million new objects again and again: half the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _examples(known: Download, source: Source) -> Iterator[Example]:
    """Rows on their native scale -> Examples on [0, 1]."""
    folder, dataset, scale, seen = source.folder, known.dataset, known.scale, set()
    width = scale[1] - scale[0]
    most = width / 2 * (1 + 1e-9)  # half the votes at each end; and rounding

    def says(*cells: str) -> Example | None:
        if (label := source.says(*cells)) is None:
            return None
        image, score, std, theme = label
        if image[-1:] in ("", "/"):
            raise ValueError("there is no image name")
        same = os.path.normpath(image) if "/" in image else image  # a Path's own hash is slow
        if same in seen:
            raise ValueError(f"{short(image)!r} is on an earlier row too")
        seen.add(same)
        if std is not None:
            if not 0 <= std <= most:
                raise ValueError(f"a spread of {std:g} cannot be on the scale {scale[0]:g} to "
                                 f"{scale[1]:g}, of which half, {width / 2:g}, is the most")
            std /= width
        return Example(folder / image, normalise(score, scale), std, dataset, scale, theme)

    return told(source.file, source.rows, says, source.unit)


def normalise(score: float, scale: tuple[float, float]) -> float:
    """(score - lo) / (hi - lo): native scale -> [0, 1]. ValueError outside [lo, hi] or for NaN."""
    lo, hi = scale
    if not lo <= score <= hi:
        raise ValueError(f"{score:g} is outside the scale {lo:g} to {hi:g}")
    return (score - lo) / (hi - lo)


def _check_spread(file: Path, examples: Sequence[Example]) -> None:
    """KonIQ's public list has scores 0 to 100 beside spreads of .5, of the ratings 1 to 5."""
    spreads = [e.std for e in examples if e.std]
    if 2 * sum(std < LEAST_SPREAD for std in spreads) > len(spreads):
        lo, hi = examples[0].scale
        raise DataError(f"{file}: most of the spreads are below {LEAST_SPREAD * (hi - lo):g}, too "
                        f"little for people's ratings on the scale {lo:g} to {hi:g}: another "
                        "scale, or the mean's error? convert them, or leave them out with "
                        "--columns image,score")


def _own(asked: Spec, columns: tuple[str, ...]) -> Download:
    """One's own list as a download: its folder, one file, its columns."""
    image, score, std, theme = (*columns, "", "")[:4] if columns else COLUMNS
    file, maybe = asked.path, [name for name in (std, theme) if name]

    def says(name: str, value: str, *more: str) -> Label:
        cells = dict(zip(maybe, more, strict=True))
        spread = cells.get(std)
        return Label(name, number(value), number(spread) if spread else None,
                     cells.get(theme, ""))

    def read(path: Path, split: str) -> Source:
        if asked.format == "csv":
            return Source(file, table(file, [image, score], maybe=maybe), file.parent, says)
        lines = asked.format == "jsonl"
        fields = [[image], [score]] if columns else [IMAGE, SCORE]
        rows = records(file, [*fields, *([name] for name in maybe)], lines)
        return Source(file, rows, file.parent, says, "line" if lines else "row")

    return Download(file.stem, asked.scale, read)


def check_images(examples: Sequence[Example], bad_images: str = "refuse",
                 index: Index | None = None, dropped: Counter[str] | None = None
                 ) -> list[Example]:
    """Decode every image; those whose image is whole, in order. Prints n kept / n expected.

    A bad image: DataError at the first ("refuse"), or dropped with the first five listed ("skip";
    DataError if none is left).
    index: of the images that need not be decoded again. dropped: told how many of each set.
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
    if dropped is not None:
        dropped.update(example.dataset for example in examples if example.image in bad)
    return kept


def read_all(specs: str, split: str, bad_images: str, *, columns: str = "", limit: int = 0,
             index: Index | None = None, dropped: Counter[str] | None = None) -> list[Example]:
    """The examples of several specs with a comma between, one after another, images checked.

    With ratios or a limit, of each set a part (`mixture.counts`, `mixture.draw`): the same one
    every time, no picture twice.

    Args:
        columns: as --columns.
        limit: pictures in all; 0: no limit.
        index, dropped: as in `check_images`.
    Raises:
        DataError: as `read_dataset` and `check_images` do; a set named twice; a ratio for a test
            set, which counts whole; none of a set's pictures is there.
    """
    asked = split_specs(specs)
    ratios = [parse_spec(spec, split).ratio for spec in asked]
    if split == "test" and any(ratios):
        raise DataError(f"{short(specs)}: a test set counts whole; leave out the *ratio")
    sets: dict[str, list[Example]] = {}
    for spec in asked:
        examples = read_dataset(spec, split, named_columns(columns))
        if (name := examples[0].dataset) in sets:
            raise DataError(f"{spec}: a set named {name} is there already; rename one")
        sets[name] = examples
    chosen: list[Example] = []
    wanted = counts([len(examples) for examples in sets.values()], ratios, limit)
    for (name, examples), n in zip(sets.items(), wanted, strict=True):
        if n < len(examples):
            say(f"{name}: {n} of {len(examples)} pictures drawn")
            examples = [examples[i] for i in draw([e.image.name for e in examples], n)]
        if not examples:
            raise DataError(f"{name}: the ratios and --limit {limit} leave none of its pictures; "
                            "raise the limit")
        _refuse_missing(name, examples)
        chosen += check_images(examples, bad_images, index, dropped)
    return chosen


def _refuse_missing(name: str, examples: Sequence[Example]) -> None:
    """Said of the folder, once, before each picture is looked for."""
    if not any(os.path.exists(e.image) for e in examples):
        folder = os.path.commonpath([os.path.abspath(e.image.parent) for e in examples])
        raise DataError(f"{folder}: none of {name}'s {len(examples)} pictures is there, such as "
                        f"{short(examples[0].image.name)}; put them there, or correct the spec's "
                        "path")

"""The public sets, as their authors ship them: which file, which columns, what a row says.

Each function takes a download's root folder and a split and returns a `Source`; scores stay on
the set's own scale. Official splits; FLICKR-AES ships none.
Left out: validation lists (AADB's overlaps its new test), FLICKR-AES's split by workers, whose
test list is not in the download (a csv can say it).
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nanoaes.mixture import name_hash
from nanoaes.tables import Row, number, short, table, text_of, told


class Label(NamedTuple):
    """What one row says, on its set's own scale."""
    image: str                      # relative to the source's folder
    score: float
    std: float | None = None        # of the raters, the population's
    theme: str = ""


class Source(NamedTuple):
    """One split of a set: rows of a file and how to read one."""
    file: Path
    rows: Iterator[Row]
    folder: Path                    # of the images
    says: Callable[..., Label | None]  # of a row's cells; None: it is of the other split
    unit: str = "line"              # what the rows are counted in


class Download(NamedTuple):
    dataset: str
    scale: tuple[float, float]
    read: Callable[[Path, str], Source]  # of the root folder and "train" or "test"


def ava(root: Path, split: str) -> Source:
    """Test is the list generic_test, train the rest; listed ids without a row are no examples.

    The theme is the challenge, by name where `challenges.txt` lies there.
    """
    tests = set(text_of(root / "aesthetics_image_lists" / "generic_test.jpgl").split())
    file, is_test = root / "AVA.txt", split == "test"
    names = _challenges(root / "challenges.txt")

    def says(image: str, challenge: str, *votes: str) -> Label | None:
        if (image in tests) != is_test:
            return None
        mean, std = moments(votes)
        return Label(f"{image}.jpg", mean, std, names.get(challenge, challenge))

    votes = " ".join(f"n{i}" for i in range(1, 11))
    return Source(file, table(file, ["id", "challenge", *votes.split()],
                              f"index id {votes} tag1 tag2 challenge"), root / "images", says)


def _challenges(file: Path) -> dict[str, str]:
    """`1396 A name` on each line."""
    lines = text_of(file).split("\n") if file.is_file() else []
    return {number: name.strip() for number, _, name in (x.strip().partition(" ") for x in lines)}


def moments(votes: Sequence[str]) -> tuple[float, float]:
    """mean = sum i n_i / sum n_i, std = sqrt(sum n_i (i - mean)^2 / sum n_i), votes i = 1 to 10.

    In whole numbers up to the last division: N sum i^2 n_i - (sum i n_i)^2 is N^2 std^2. Written
    out: AVA's quarter of a million rows take a third of the time of loops.
    """
    try:
        a, b, c, d, e, f, g, h, i, j = map(COUNTS.__getitem__, votes)
    except KeyError:
        a, b, c, d, e, f, g, h, i, j = map(_count, votes)
    total = a + b + c + d + e + f + g + h + i + j
    if not total:
        raise ValueError("there is no score: no votes")
    first = a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j
    second = a + 4 * b + 9 * c + 16 * d + 25 * e + 36 * f + 49 * g + 64 * h + 81 * i + 100 * j
    return first / total, math.sqrt(total * second - first * first) / total


COUNTS = {str(n): n for n in range(1000)}  # most cells there are; int() would read 0_5, too


def _count(cell: str) -> int:
    value = number(cell)
    if value < 0 or value % 1:
        raise ValueError(f"{short(cell, 40)!r} is no number of votes")
    return int(value)


def tad66k(root: Path, split: str) -> Source:
    """`merge` alone: its unmerged train lists hold 478 pictures of the merged test.

    Where the unmerged lists lie there, the theme is the file's name that lists the picture.
    """
    labels = _first(root, "labels/merge", "dataset/merge").parent
    themes: dict[str, str] = {}
    for part in (split, "test" if split == "train" else "train"):
        for file in sorted((labels / "unmerge" / part).glob("*.csv")):
            for _, (image, _) in table(file, ["image", "score"]):
                themes.setdefault(image, file.stem)

    def says(image: str, score: str) -> Label:
        return Label(image, number(score), None, themes.get(image, ""))

    file = labels / "merge" / f"{split}.csv"
    return Source(file, table(file, ["image", "score"]), root / "TAD66K", says)


def para(root: Path, split: str) -> Source:
    """The theme is its semantic class."""
    file = root / "annotation" / f"PARA-Giaa{split.title()}.csv"

    def says(session: str, image: str, score: str, std: str, theme: str) -> Label:
        return Label(f"{session}/{image}", number(score), number(std) if std else None, theme)

    rows = table(file, ["sessionId", "imageName", "aestheticScore_mean"],
                 maybe=["aestheticScore_std", "semantic"])
    return Source(file, rows, root / "imgs", says)


def aadb(root: Path, split: str) -> Source:
    """The new-test folder may put a score before a name: `0.500_name.jpg` is `name.jpg`."""
    folder = (root / "datasetImages_originalSize" if split == "train" else
              _first(root, "AADB_newtest_originalSize", "AADB_newtest"))
    found = {_unscored(path.name): path.name for path in sorted(folder.glob("*"))}
    part = {"train": "Train", "test": "TestNew"}[split]
    file = root / "imgListFiles_label" / f"imgList{part}Regression_score.txt"

    def says(image: str, score: str) -> Label:
        return Label(found.get(_unscored(image), image), number(score))

    return Source(file, table(file, ["image", "score"], "image score"), folder, says)


def _unscored(name: str) -> str:
    return re.sub(r"^\d\.\d{3}_", "", name)


def flickr_aes(root: Path, split: str) -> Source:
    """Random 9:1 by a hash of the name, so that no other row decides where a picture belongs.

    The score is the mean of votes 1 to 5, over 5: the scale is .2 to 1. The spread comes from the
    list of each worker's votes, where that lies there and a picture has two or more.
    """
    folder = _first(root, "40K", "FLICKR-AES-001/40K")
    spread = _spread(root / "FLICKR-AES_image_labeled_by_each_worker.csv")
    file = root / "FLICKR-AES_image_score.txt"

    def says(image: str, score: str) -> Label | None:
        if (name_hash(image) < TENTH) != (split == "test"):
            return None
        return Label(image, number(score), spread.get(image))

    return Source(file, table(file, ["image", "score"], "image score"), folder, says)


TENTH = (2**256 // 10).to_bytes(32, "big")  # of all hashes a tenth is less


def _spread(file: Path) -> dict[str, float]:
    """Picture -> the standard deviation of its workers' votes, over 5 as its score is."""
    votes: dict[str, list[float]] = {}

    def says(image: str, vote: str) -> None:
        votes.setdefault(image, []).append(number(vote))

    if file.is_file():
        list(told(file, table(file, ["imagePair", "score"]), says))
    return {image: math.sqrt(len(v) * sum(x * x for x in v) - sum(v) ** 2) / len(v) / 5
            for image, v in votes.items() if len(v) > 1}


def baid(root: Path, split: str) -> Source:
    """The lists lie in `dataset/`, as in the authors' repository, or beside `images/`."""
    name = f"{split}_set.csv"
    file = _first(root, f"dataset/{name}", name)
    return Source(file, table(file, ["image", "score"]), root / "images",
                  lambda image, score: Label(image, number(score)))


def _first(root: Path, *places: str) -> Path:
    """Of the places where a download may keep it, the first that is there; else the first."""
    return next((root / place for place in places if (root / place).exists()), root / places[0])


DOWNLOADS = {
    "ava": Download("AVA", (1, 10), ava),
    "tad66k": Download("TAD66K", (1, 10), tad66k),
    "para": Download("PARA", (1, 5), para),
    "aadb": Download("AADB", (0, 1), aadb),
    "flickr_aes": Download("FLICKR-AES", (0.2, 1), flickr_aes),
    "baid": Download("BAID", (0, 10), baid),
}

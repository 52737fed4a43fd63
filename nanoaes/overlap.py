"""Do training and test sets share pictures? Then a test says how well they were learnt by heart.

Known sets do: TAD66K's unmerged list holds 478 pictures of the merged test; EVA, AADB, FLICKR-AES
and TAD66K took theirs where AVA did. A file is the same by its place on the disk, whatever the link
or folder that leads there; a copy by name and size. On request a picture is the same by how it
looks, saved anew or smaller; that decodes all of them. A difference hash alone takes any two small
things on white for the same, so rough colours have to agree as well.
A cold start leaves a list of its pictures beside its model; RAPO asks the same of them.
Left out: crops, mirrored ones, other exposures: other pictures to this eye.
"""

import os
from collections.abc import Iterable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from nanoaes.checkpoint import write_whole
from nanoaes.images import difference_hash, load_image
from nanoaes.progress import progress, say

SIDE = 16  # a hash compares so many neighbours in each of so many rows
NEAR = 16  # of its 256 bits may differ
LEVELS = 4  # of 255, by which 8 x 8 spots of colour may differ on average
LEARNED = "learned.txt"


def warn(train: Sequence[Path], tests: dict[str, Sequence[Path]], by: str = "names") -> None:
    """One line for each test set that shares pictures with the training sets, and how many.

    Args:
        by: "names", or "hash": also by how they look.
    Raises:
        DataError: "hash", and a picture cannot be decoded.
    """
    files = {key for path in train for key in _keys(path)}
    looks = _looks(train) if by == "hash" else None
    for name, paths in tests.items():
        same = {path for path in paths if not files.isdisjoint(_keys(path))}
        if looks is not None:
            same |= _alike(paths, looks)
        _tell(name, paths, same, "training pictures")


def write_learned(folder: Path, paths: Iterable[Path]) -> None:
    """The pictures of a cold start, beside its model: size and name."""
    write_whole(folder / LEARNED, (f"{line}\n" for line in dict.fromkeys(map(_line, paths))))


def warn_of_learned(folder: Path, sets: dict[str, Sequence[Path]]) -> None:
    """As `warn`, of what the cold start in that folder has learned, if it has left a list."""
    file = folder / LEARNED
    if not file.is_file():
        return
    known = set(file.read_text("utf-8").split("\n"))
    for name, paths in sets.items():
        _tell(name, paths, {p for p in paths if _line(p) in known}, "pictures of the cold start")


def _line(path: Path) -> str:
    """Of the list; a name that is no text as `write_whole` writes it."""
    name, size = _keys(path)[1]
    return f"{size} {name}".encode("utf-8", "backslashreplace").decode()


def _tell(name: str, paths: Sequence[Path], same: set[Path], what: str) -> None:
    if same:
        first = next(path for path in paths if path in same)
        say(f"warning: {name}: {len(same)} of {len(paths)} pictures are {what} too, {first} the "
            "first; take them out of one of both")


def _keys(path: Path) -> tuple[tuple, tuple]:
    """The file itself, and what a copy of it has."""
    seen = os.stat(path)
    return (seen.st_dev, seen.st_ino), (path.name, seen.st_size)


Looks = tuple[np.ndarray, np.ndarray]  # (n, 4) uint64 `hash_of`, (n, 192) int16 spots


def _alike(paths: Sequence[Path], known: Looks) -> set[Path]:
    """Those that look like one of the known."""
    found = set()
    for path, bits, spots in zip(paths, *_looks(paths), strict=True):
        near = np.bitwise_count(known[0] ^ bits).sum(1, dtype=np.uint16) <= NEAR
        if (np.abs(known[1][near] - spots).mean(1) <= LEVELS).any():
            found.add(path)
    return found


def _looks(paths: Sequence[Path]) -> Looks:
    with ThreadPool() as pool:
        found: Iterable = pool.imap(_look, paths, chunksize=8)
        bits, spots = zip(*progress(found, "looking for shared pictures", len(paths), delay=1),
                          strict=True)
    return np.stack(bits), np.stack(spots)


def _look(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = load_image(path)
    spots = image.resize((8, 8), Image.Resampling.BOX)
    return hash_of(image), np.asarray(spots, dtype=np.int16).ravel()


def hash_of(image: Image.Image) -> np.ndarray:
    """(4,) uint64 of 256 bits."""
    return np.packbits(difference_hash(image, SIDE)).view(np.uint64)

"""What was named on the command line -> the pictures to score, each file once.

    photos/        the pictures in it and below; hidden folders and files are left alone
    a.jpg          itself
    @names.txt     a list: one file or folder a line, relative to the list's own folder
    -              such a list on stdin, relative to where the command runs

A folder holds much that is no picture (.DS_Store, .MOV, .xmp, raw files beside their JPEGs): that
is passed over in silence. What a person named and what is none is said. Links are followed, each
folder once, so that a circle of links ends. Order: as named; within a folder by name.
Left out: names with line breaks in lists, lists within lists, looking into files to find pictures
that bear another suffix.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from nanoaes.config import OptionError
from nanoaes.images import DataError

PICTURES = frozenset(f".{name}" for name in (
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "heic",
    "heif", "hif", "avif", "jp2", "j2k", "jpx", "ppm", "pgm", "pnm", "pbm", "tga", "ico", "icns",
    "dds", "blp", "pcx", "psd", "sgi", "qoi"))


@dataclass
class Found:
    """Paths are absolute, as they were come upon: a link keeps its own name."""

    pictures: list[Path] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)  # path -> what is wrong with it
    passed: Counter[str] = field(default_factory=Counter)  # suffix -> files that are no pictures


def find(words: Sequence[str], stdin: BinaryIO) -> Found:
    """All pictures that the words name.

    Raises:
        OptionError: no words, a list that cannot be read.
        DataError: no picture at all, nor anything that ought to be one.
    """
    if not words:
        raise OptionError("name what to score: files, folders, @LIST, or - for names on stdin")
    search = _Search()
    for word in words:
        if word == "-":
            search.names(stdin.read(), Path())
        elif word.startswith("@") and not os.path.lexists(word):
            search.names(_read(Path(word[1:]).expanduser()), Path(word[1:]).expanduser().parent)
        else:
            search.named(Path(word))
    found = search.found
    if not (found.pictures or found.refused):
        others = ", ".join(f"{n:,} {suffix}" for suffix, n in found.passed.most_common(5))
        raise DataError(f"{' '.join(words)[:200]}: no picture there"
                        + f" (but {others})" * bool(others) + "; name another folder")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionError(f"@{path}: the list cannot be read ({error.strerror}); mend the name"
                          ) from None


class _Search:
    """What has been found so far."""

    def __init__(self) -> None:
        self.found = Found()
        self.files: set[str] = set()  # without links
        self.folders: set[tuple[int, int]] = set()  # device and inode

    def names(self, text: bytes, beside: Path) -> None:
        """A list. Its lines are file names, bytes that need not be UTF-8."""
        for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
            if line.strip():
                self.named(beside / os.path.expanduser(os.fsdecode(line.rstrip(b"\r"))))

    def named(self, path: Path) -> None:
        """What a person named."""
        path = Path(os.path.abspath(path))
        if path.is_dir():
            self.folder(path)
        elif os.path.lexists(path) and path.suffix.lower() not in PICTURES:
            kind = path.suffix or "name without suffix"
            a_list = f", or write @{path.name} if it is a list of names"
            self.found.refused[path] = (f"no picture by its {kind}; convert it to JPEG or leave it "
                                        "out" + a_list * (path.suffix.lower() in ("", ".txt")))
        else:
            self.file(path, os.path.realpath(path))

    def folder(self, top: Path) -> None:
        """All that is in it and below."""
        for here, folders, files in os.walk(top, onerror=self.shut, followlinks=True):
            at = os.stat(here)
            if (at.st_dev, at.st_ino) in self.folders:
                folders.clear()
                continue
            self.folders.add((at.st_dev, at.st_ino))
            folders[:] = sorted(_seen(folders))
            real = os.path.realpath(here)
            for name in sorted(_seen(files)):
                suffix = os.path.splitext(name)[1].lower()
                if suffix not in PICTURES:
                    self.found.passed[suffix or "without suffix"] += 1
                    continue
                full = os.path.join(real, name)
                self.file(Path(here, name),
                          os.path.realpath(full) if os.path.islink(full) else full)

    def shut(self, error: OSError) -> None:
        """A folder that may not be listed."""
        self.found.refused[Path(error.filename)] = (
            f"the folder cannot be listed ({error.strerror}); mend its rights")

    def file(self, path: Path, real: str) -> None:
        """A picture by its name."""
        if real in self.files:
            return
        self.files.add(real)
        try:
            # A pipe would be read for ever, a device might be.
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except OSError as error:
            self.found.refused[path] = f"cannot be read ({error.strerror}); mend the name"
        else:
            if regular:
                self.found.pictures.append(path)
            else:
                self.found.refused[path] = "no regular file (a pipe, a socket, a device)"


def _seen(names: Iterable[str]) -> list[str]:
    """Without hidden ones, such as the ._NAME that macOS leaves beside each file."""
    return [name for name in names if not name.startswith(".")]

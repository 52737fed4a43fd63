"""What is named becomes pictures, each file once; what is none is passed over or said."""

import io
import os
from pathlib import Path

import pytest

from nanoaes.config import OptionError
from nanoaes.found import PICTURES, Found, find
from nanoaes.images import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def look(*words: object, stdin: bytes = b"") -> Found:
    return find([str(word) for word in words], io.BytesIO(stdin))


def names(found: Found, root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in found.pictures]


def test_a_folder_and_all_below_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", "sub/deep/c.HEIC", "sub/d.jpeg", "E.webp",
          ".DS_Store", "IMG.MOV", "a.PNG.xmp", "IMG.CR2", "Thumbs.db", "notes", "._b.jpg",
          ".cache/x.jpg", "sub/.hidden/y.jpg")
    found = look(tmp_path)
    assert names(found, tmp_path) == ["E.webp", "a.PNG", "b.jpg", "sub/d.jpeg", "sub/deep/c.HEIC"]
    assert not found.refused
    assert found.passed == {".mov": 1, ".xmp": 1, ".cr2": 1, ".db": 1, "without suffix": 1}


def test_what_is_named_by_hand_is_answered(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "film.MOV", "noname", "names.txt")
    found = look(*(tmp_path / name for name in ("film.MOV", "a.jpg", "noname", "gone.jpg",
                                                "names.txt", "gone")))
    assert names(found, tmp_path) == ["a.jpg"]
    told = {path.name: reason for path, reason in found.refused.items()}
    assert set(told) == {"film.MOV", "noname", "gone.jpg", "names.txt", "gone"}
    assert "no picture by its .MOV" in told["film.MOV"] and "@" not in told["film.MOV"]
    assert "write @names.txt if it is a list" in told["names.txt"]
    assert "No such file" in told["gone.jpg"] and "No such file" in told["gone"]


def test_each_file_once_whatever_leads_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "photos/sub/b.jpg", "other/c.jpg")
    os.link(tmp_path / "photos/a.jpg", tmp_path / "photos/hard.jpg")  # a file of its own name
    os.symlink(tmp_path / "photos", tmp_path / "photos/sub/circle")
    os.symlink("..", tmp_path / "photos/sub/up")
    os.symlink("a.jpg", tmp_path / "photos/z.jpg")
    os.symlink(tmp_path / "other", tmp_path / "photos/more")
    os.symlink("nowhere.jpg", tmp_path / "photos/dangling.jpg")
    photos = tmp_path / "photos"
    found = look(photos, photos / "sub", photos / "a.jpg", photos / "sub/../a.jpg",
                 photos / "sub/circle/sub/b.jpg")
    assert names(found, tmp_path) == ["photos/a.jpg", "photos/hard.jpg", "photos/more/c.jpg",
                                      "photos/sub/b.jpg"]
    assert [path.name for path in found.refused] == ["dangling.jpg"]


def test_relative_words_are_absolute_paths(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert look("a.jpg").pictures == look(".").pictures == [tmp_path / "a.jpg"]


def test_lists_and_stdin(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "in/a.jpg", "in/b c.jpg", "in/d/e.png", "@odd.jpg")
    (tmp_path / "in/names.txt").write_bytes(
        b"\xef\xbb\xbfa.jpg\r\n\n  \nb c.jpg\r\nd\ngone.png\n" + os.fsencode(tmp_path / "in/a.jpg"))
    found = look(f"@{tmp_path / 'in/names.txt'}")
    assert names(found, tmp_path) == ["in/a.jpg", "in/b c.jpg", "in/d/e.png"]
    assert [path.name for path in found.refused] == ["gone.png"]
    monkeypatch.chdir(tmp_path)
    assert names(look("-", stdin=b"in/d\nin/a.jpg"), tmp_path) == ["in/d/e.png", "in/a.jpg"]
    assert names(look("@odd.jpg"), tmp_path) == ["@odd.jpg"]  # a file of that name is one
    monkeypatch.setenv("HOME", str(tmp_path / "in"))
    assert len(look("@~/names.txt").pictures) == len(look("-", stdin=b"~/").pictures) == 3
    with pytest.raises(OptionError, match="@none.txt: the list cannot be read"):
        look("@none.txt")


def test_a_name_need_not_be_text(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\xe9.jpg"
    with open(raw, "wb"):
        pass
    for found in (look(tmp_path), look("-", stdin=raw + b"\n")):
        assert [os.fsencode(path) for path in found.pictures] == [raw]


def test_pipes_folders_and_shut_folders(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "album.jpg/inner.png", "shut/a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    real = os.scandir

    def scandir(path):  # the superuser may list any folder
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = look(tmp_path)
    assert names(found, tmp_path) == ["album.jpg/inner.png"]
    told = {path.name: reason for path, reason in found.refused.items()}
    assert set(told) == {"pipe.jpg", "shut"}
    assert "no regular file" in told["pipe.jpg"] and "Permission denied" in told["shut"]


def test_nothing_to_score_is_said_with_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "1.CR2", "2.CR2", "a.mov")
    with pytest.raises(DataError, match=r"no picture there \(but 2 \.cr2, 1 \.mov\)"):
        look(tmp_path)
    with pytest.raises(OptionError, match="name what to score"):
        look()
    with pytest.raises(DataError, match="no picture there; name another"):
        look("-")


def test_suffixes_are_those_of_lower_case() -> None:
    assert {suffix.lower() for suffix in PICTURES} == PICTURES and ".jpg" in PICTURES

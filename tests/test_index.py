"""A picture is decoded once in a run's folder, and again only if it has changed or was bad."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from nanoaes import evaluation, images
from nanoaes.datasets import Example, check_images
from nanoaes.images import DataError
from nanoaes.index import ROWS, Index


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are decoded, as they are."""
    names, load = [], images.load_image

    def noted(path: Path) -> Image.Image:
        names.append(path.name)
        return load(path)
    monkeypatch.setattr(images, "load_image", noted)
    return names


def album(folder: Path, n: int, bad: tuple[int, ...] = ()) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.new("RGB", (4, 4), (i % 256, 0, 0)).save(folder / f"{i}.png")
    for i in bad:
        (folder / f"{i}.png").write_bytes(b"no picture")
    return [folder / f"{i}.png" for i in range(n)]


def examples(paths: list[Path]) -> list[Example]:
    return [Example(path, 0.5, None, "AVA", (1, 10)) for path in paths]


def written(run: Path) -> int:
    """Pictures of which there is a row; one that was bad twice has two."""
    return len((run / "pictures.jsonl").read_text().splitlines())


def test_a_second_start_decodes_nothing(tmp_path: Path, decoded: list[str]) -> None:
    paths, run = album(tmp_path / "a", 5), tmp_path / "run"
    assert dict(Index(run).check(paths)) == dict.fromkeys(paths)
    assert sorted(decoded) == [p.name for p in paths]
    decoded.clear()
    assert dict(Index(run).check([*paths, *paths])) == dict.fromkeys(paths)
    assert decoded == []
    dict(Index().check(paths))  # remembers nothing and knows nothing
    assert len(decoded) == 5
    assert written(run) == 5


def test_a_path_is_whole_and_links_are_their_own(tmp_path: Path, decoded: list[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    paths = album(tmp_path / "a", 2)
    index = Index(tmp_path / "run")
    dict(index.check(paths))
    decoded.clear()
    monkeypatch.chdir(tmp_path)
    assert dict(index.check([Path("a/0.png"), Path("a/../a/1.png")])) == {
        Path("a/0.png"): None, Path("a/../a/1.png"): None}
    assert decoded == []


def test_what_has_changed_is_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    paths, run = album(tmp_path / "a", 4), tmp_path / "run"
    dict(Index(run).check(paths))
    decoded.clear()
    seen = paths[1].stat()
    os.utime(paths[1], ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))  # another time
    paths[2].write_bytes(paths[2].read_bytes() + b"more")
    seen_3 = paths[3].stat()
    paths[3].write_bytes(b"not a picture any more")  # another size at the same time
    os.utime(paths[3], ns=(seen_3.st_atime_ns, seen_3.st_mtime_ns))
    found = dict(Index(run).check(paths))
    assert sorted(decoded) == ["1.png", "2.png", "3.png"]
    assert [bool(found[p]) for p in paths] == [False, False, False, True]
    decoded.clear()
    dict(Index(run).check(paths))
    assert decoded == ["3.png"]


def test_the_bad_ones_are_looked_at_first_and_may_be_mended(tmp_path: Path, decoded: list[str]
                                                            ) -> None:
    paths, run = album(tmp_path / "a", 60, bad=(50,)), tmp_path / "run"
    found = dict(Index(run).check(paths[40:]))
    assert [p.name for p, problem in found.items() if problem] == ["50.png"]
    decoded.clear()
    with pytest.raises(DataError, match="50.png: .*first bad one of 20 checked, of 60 expected"):
        check_images(examples(paths), "refuse", Index(run))  # 19 are known to be whole
    decoded.clear()
    order = [path for path, _ in Index(run).check(paths)]
    assert order.index(paths[50]) < min(map(order.index, paths[:40]), default=99)
    Image.new("RGB", (4, 4)).save(paths[50])
    assert check_images(examples(paths), "refuse", Index(run)) == examples(paths)


def test_refusing_stops_at_the_first_bad_picture(tmp_path: Path, decoded: list[str],
                                                 capsys: pytest.CaptureFixture) -> None:
    paths, run = album(tmp_path / "a", 600, bad=(20, 30)), tmp_path / "run"
    with pytest.raises(DataError, match="20.png: .* of 21 checked, of 600 expected.*skip"):
        check_images(examples(paths), "refuse", Index(run))
    assert len(decoded) < 600 and written(run) == 21  # how far ahead is up to the threads
    kept = check_images(examples(paths), "skip", Index(run))  # what was checked is not lost
    assert kept == examples(paths[:20] + paths[21:30] + paths[31:])
    assert written(run) == 21 + 580 and "598 kept / 600 expected" in capsys.readouterr().out


def test_a_start_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Rows are written as they come; the last may be torn."""
    paths, run = album(tmp_path / "a", ROWS + 40), tmp_path / "run"
    going = Index(run).check(paths)
    for _ in range(ROWS + 10):
        next(going)
    rows = (run / "pictures.jsonl").read_text()  # as a kill would leave it
    assert written(run) == ROWS
    going.close()  # as Ctrl-C does
    assert written(run) == ROWS + 10
    (run / "pictures.jsonl").write_text(rows[:-30])
    assert dict(Index(run).check(paths)) == dict.fromkeys(paths)
    assert written(run) == ROWS - 1 + 41
    lines = (run / "pictures.jsonl").read_text().splitlines()
    assert {json.loads(line)["image"] for line in lines} == set(map(str, paths))


def test_a_disk_that_fails_costs_the_index_only(tmp_path: Path, capsys: pytest.CaptureFixture
                                                ) -> None:
    paths = album(tmp_path / "a", ROWS + 1, bad=(3,))
    (tmp_path / "run").write_text("a file, not a folder")
    found = dict(Index(tmp_path / "run").check([*paths, tmp_path / "gone.png"]))
    assert [p.name for p, problem in found.items() if problem] == ["3.png", "gone.png"]
    assert capsys.readouterr().out.count("is not saved") == 1


def test_names_that_are_no_utf8_and_pictures_that_come_later(tmp_path: Path, decoded: list[str]
                                                             ) -> None:
    index, odd, late = Index(tmp_path / "run"), tmp_path / "a\udcff\n.png", tmp_path / "late.png"
    Image.new("RGB", (4, 4)).save(str(odd), "PNG")
    found = dict(index.check([odd, late, Path("a\0.png")]))
    assert found[odd] is None and "No such file" in found[late] and "null" in found[Path("a\0.png")]
    Image.new("RGB", (4, 4)).save(late)
    decoded.clear()
    assert dict(Index(tmp_path / "run").check([odd, late])) == {odd: None, late: None}
    assert decoded == ["late.png"]


def test_the_scripts_keep_it_under_the_run(tmp_path: Path, decoded: list[str]) -> None:
    album(tmp_path, 3)
    (tmp_path / "p.csv").write_text("image,score\n0.png,0\n1.png,1\n2.png,1\n")
    for times in (3, 0):
        evaluation.read_sets(f"csv:{tmp_path / 'p.csv'}@0-1", "", "refuse",
                              index=Index(tmp_path / "r"))
        assert len(decoded) == times
        decoded.clear()
    assert (tmp_path / "r" / "pictures.jsonl").is_file()

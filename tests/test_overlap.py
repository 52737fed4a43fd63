"""Test pictures that are training pictures are counted: files, copies and, on request, looks."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval as eval_script
from nanoaes.config import RAPOConfig
from nanoaes.images import DataError
from nanoaes.overlap import hash_of, warn, write_learned


def photo(seed: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    """Like a photograph in that detail gets weaker as it gets finer (1 / f)."""
    rng, sum_ = np.random.default_rng(seed), np.zeros((*size[::-1], 3))
    for k in (3, 6, 12, 24, 48):
        part = Image.fromarray(rng.integers(0, 255, (k, k * 4 // 3, 3), dtype=np.uint8))
        sum_ += np.asarray(part.resize(size, Image.Resampling.BICUBIC), float) / k**0.7
    return Image.fromarray((255 * (sum_ - sum_.min()) / np.ptp(sum_)).astype(np.uint8))


@pytest.fixture
def train(tmp_path: Path) -> list[Path]:
    (tmp_path / "train").mkdir()
    paths = [tmp_path / "train" / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        photo(i).save(path)
    return paths


def told(capsys: pytest.CaptureFixture) -> str:
    return capsys.readouterr().out


def test_the_same_file_by_whatever_way(train: list[Path], tmp_path: Path,
                                       capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "link.png").symlink_to(train[0])
    os.link(train[1], tmp_path / "test" / "hard.png")
    (tmp_path / "folder").symlink_to(train[2].parent)
    new = tmp_path / "test" / "new.png"
    photo(9).save(new)
    test = [new, tmp_path / "test" / "link.png", tmp_path / "test" / "hard.png",
            tmp_path / "folder" / "2.png", train[3].parent / ".." / "train" / "3.png"]
    warn(train, {"TAD66K": test, "PARA": [new]})
    said = told(capsys)
    assert said.count("\n") == 1 and "TAD66K: 4 of 5 pictures" in said and "link.png" in said


def test_a_copy_has_name_and_size(train: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
                                  ) -> None:
    (tmp_path / "test").mkdir()
    copy, renamed, other = (tmp_path / "test" / name for name in ("0.png", "x.png", "1.png"))
    shutil.copy(train[0], copy)
    shutil.copy(train[2], renamed)  # another name
    photo(7).save(other)            # another size
    assert other.stat().st_size != train[1].stat().st_size
    warn(train, {"a": [renamed, copy, other]})
    assert "a: 1 of 3" in (said := told(capsys)) and str(copy) in said
    warn(train, {"a": [renamed, other]})
    assert told(capsys) == ""


def test_by_looks_on_request(train: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
                             ) -> None:
    (tmp_path / "test").mkdir()
    small, worse, new = (tmp_path / "test" / name for name in ("s.png", "w.jpg", "n.png"))
    photo(0).resize((128, 96), Image.Resampling.LANCZOS).save(small)
    photo(1).save(worse, quality=60)
    photo(8).save(new)
    warn(train, {"a": [new, small, worse]})
    assert told(capsys) == ""
    warn(train, {"a": [new, small, worse], "b": [new]}, "hash")
    assert "a: 2 of 3" in (said := told(capsys)) and str(small) in said and "b:" not in said
    worse.write_bytes(b"gone bad since")
    with pytest.raises(DataError, match="w.jpg"):
        warn(train, {"a": [worse]}, "hash")


def test_two_things_on_white_are_not_the_same(tmp_path: Path, capsys: pytest.CaptureFixture
                                              ) -> None:
    """Their hashes are: on plain ground no neighbour is darker."""
    paths = []
    for colour in ("red", "navy"):
        image = Image.new("RGB", (160, 160), "white")
        image.paste(colour, (30, 30, 130, 130))
        paths.append(tmp_path / f"{colour}.png")
        image.save(paths[-1])
    a, b = (hash_of(Image.open(path)) for path in paths)
    assert np.bitwise_count(a ^ b).sum() == 0
    warn(paths[:1], {"a": paths[1:]}, "hash")
    assert told(capsys) == ""


def test_a_hash_has_the_bits_it_says() -> None:
    levels = np.zeros((16, 17), np.uint8)
    levels[3, 5:] = 9  # one step up: spot 4 of row 3 is darker than spot 5
    bits = np.unpackbits(hash_of(Image.fromarray(levels)).view(np.uint8)).reshape(16, 16)
    assert bits.sum() == 1 and bits[3, 4] == 1


def test_a_training_run_says_so(train: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
                                ) -> None:
    """Held-out pictures count: they choose the checkpoint."""
    rows = "image,score\n" + "".join(f"train/{p.name},0.{i}\n" for i, p in enumerate(train))
    (tmp_path / "mine.csv").write_text(rows)
    (tmp_path / "theirs.csv").write_text(rows)
    cfg = RAPOConfig(train=f"csv:{tmp_path / 'mine.csv'}@0-1", model="x", heldout=3,
                     test_in=f"csv:{tmp_path / 'theirs.csv'}@0-1")
    eval_script.pictures(cfg, tmp_path / "run")
    assert "theirs: 6 of 6 pictures are training pictures" in told(capsys)


def test_what_the_cold_start_has_learned_is_said(train: list[Path], tmp_path: Path,
                                                 capsys: pytest.CaptureFixture) -> None:
    """AesCoT that held out fewer than RAPO does: then its checkpoint is chosen by heart."""
    for name, numbers in (("mine", range(5)), ("theirs", [5])):
        (tmp_path / f"{name}.csv").write_text("image,score\n" + "".join(
            f"train/{i}.png,0.{i}\n" for i in numbers))
    cfg = RAPOConfig(train=f"csv:{tmp_path / 'mine.csv'}@0-1", model=str(tmp_path / "sft"),
                     heldout=3, test_in=f"csv:{tmp_path / 'theirs.csv'}@0-1")
    (tmp_path / "sft").mkdir()
    examples, held, _ = eval_script.pictures(cfg, tmp_path / "run")
    assert "warning" not in told(capsys)
    moved = shutil.copytree(tmp_path / "train", tmp_path / "elsewhere")
    lessons = [e.image for e in examples] + [held["mine"][1][0].image, train[5]]
    write_learned(tmp_path / "sft", [moved / path.name for path in lessons])
    eval_script.pictures(cfg, tmp_path / "run")
    said = told(capsys)
    assert "mine, held out: 1 of 3 pictures are pictures of the cold start too" in said
    assert "theirs: 1 of 1 pictures are pictures of the cold start" in said

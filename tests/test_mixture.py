"""Mixtures: how many of each set, which ones, and that they are the same for every script."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_datasets import write

from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example, read_all
from nanoaes.images import DataError
from nanoaes.mixture import counts, draw
from nanoaes.options import parse
from nanoaes.presets import PRESETS
from nanoaes.sampler import hold_out
from train_rapo import pictures

TWO, ONE = Fraction(2), Fraction(1)


@pytest.mark.parametrize("sizes, ratios, limit, drawn", [
    ([235_600, 52_248, 35_900], [TWO, TWO, ONE], 15_000, [6000, 6000, 3000]),  # the paper's
    ([235_600, 52_248, 35_900], [TWO, TWO, ONE], 0, [52_248, 52_248, 26_124]),
    ([100, 100], [TWO, None], 0, [100, 50]), ([3000, 50], [ONE, ONE], 15_000, [50, 50]),
    ([100, 50], [None, None], 0, [100, 50]), ([100, 50], [None, None], 15, [10, 5]),
    ([100, 50], [None, None], 999, [100, 50]), ([7], [None], 0, [7]), ([7], [TWO], 3, [3]),
    ([10, 10], [Fraction("0.5"), Fraction("0.25")], 0, [10, 5]), ([], [], 5, []),
])
def test_counts(sizes: list, ratios: list, limit: int, drawn: list) -> None:
    assert counts(sizes, ratios, limit) == drawn


@given(st.lists(st.tuples(st.integers(1, 500), st.none() | st.fractions(Fraction(1, 9), 9)),
                min_size=1, max_size=5), st.integers(0, 600))
def test_counts_keep_the_ratios_and_no_set_is_exhausted(sets: list, limit: int) -> None:
    sizes, ratios = zip(*sets, strict=True)
    drawn = counts(sizes, ratios, limit)
    weights = sizes if not any(ratios) else [ONE if r is None else r for r in ratios]
    assert all(n <= size for n, size in zip(drawn, sizes, strict=True))
    assert not limit or sum(drawn) <= limit
    share = Fraction(sum(drawn), 1) / sum(weights)
    assert all(abs(n - share * w) < 1 for n, w in zip(drawn, weights, strict=True))
    # one more in all would ask too much of some set, or of the limit
    more = Fraction(sum(drawn) + 1) / sum(weights)
    assert sum(drawn) == limit or any(more * w > s for w, s in zip(weights, sizes, strict=True))


@given(st.lists(st.text(), unique=True), st.integers(0, 20), st.integers(0, 20))
def test_a_smaller_draw_is_part_of_a_larger_one_whatever_the_order(
        names: list[str], n: int, more: int) -> None:
    chosen = [names[i] for i in draw(names, n)]
    assert len(chosen) == min(n, len(names)) and chosen == [x for x in names if x in chosen]
    assert set(chosen) <= {names[i] for i in draw(names, n + more)}
    assert set(chosen) == {names[::-1][i] for i in draw(names[::-1], n)}


def test_a_draw_is_of_all_levels() -> None:
    places = draw([f"{i}.jpg" for i in range(10_000)], 1000)
    assert np.histogram(places, bins=10, range=(0, 10_000))[0] == pytest.approx(100, abs=40)


@pytest.fixture
def albums(tmp_path: Path) -> list[str]:
    """Two sets of 40 and 10 pictures as specs."""
    picture = np.zeros((28, 28, 3), np.uint8)
    specs = []
    for name, n in (("a", 40), ("b", 10)):
        rows = [f"{name}{i}.png,{1 + i % 5}" for i in range(n)]
        for i in range(n):
            Image.fromarray(picture).save(tmp_path / f"{name}{i}.png")
        specs.append(f"csv:{write(tmp_path / f'{name}.csv', chr(10).join(['image,score', *rows]))}"
                     "@1-5")
    return specs


def names(examples: list[Example]) -> list[str]:
    return [e.image.stem for e in examples]


def test_a_mixture_is_read_by_ratio(albums: list[str], capsys: pytest.CaptureFixture) -> None:
    drawn = names(read_all(f"{albums[0]}*2,{albums[1]}*1", "train", "refuse"))
    assert len(drawn) == 30 and sum(x[0] == "a" for x in drawn) == 20
    assert "a: 20 of 40 pictures drawn\n" in capsys.readouterr().out
    assert names(read_all(f"{albums[0]}*2, {albums[1]}", "train", "refuse")) == drawn
    less = names(read_all(f"{albums[0]}*2,{albums[1]}*1", "train", "refuse", limit=15))
    assert len(less) == 15 and sum(x[0] == "a" for x in less) == 10 and set(less) < set(drawn)


def test_the_same_pictures_are_held_out_whatever_the_limit(albums: list[str]) -> None:
    specs = ",".join(albums)
    held = [names(hold_out(read_all(specs, "train", "refuse", limit=limit), 3)[1])
            for limit in (0, 40, 20)]
    assert held[0] == held[1] == held[2] and len(held[0]) == 6


@pytest.mark.parametrize("change, problem", [
    (lambda a, b: dict(specs=f"{a}*2,{b}", split="test"), "a test set counts whole; leave out"),
    (lambda a, b: dict(specs=f"{a},{a}"), "a set named a is there already"),
    (lambda a, b: dict(specs=f"{a},{b}", limit=1), "--limit 1 leave none of its pictures"),
    (lambda a, b: dict(specs=f"{a},{b}", columns="image"), "--columns image: name the image's"),
])
def test_a_mixture_that_cannot_be_is_named(albums: list[str], change, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_all(**{"split": "train", "bad_images": "refuse", **change(*albums)})


def test_no_set_is_no_example() -> None:
    assert read_all("", "test", "refuse") == []


def test_columns_reach_the_reader(albums: list[str], tmp_path: Path) -> None:
    write(tmp_path / "c.csv", "Name;MOS;Genre\na1.png;3;sea\n")
    (one,) = read_all(f"csv:{tmp_path}/c.csv@1-5", "train", "refuse", columns="name,mos,,genre")
    assert (one.score, one.std, one.theme) == (0.5, None, "sea")


@pytest.mark.parametrize("bad_images", ["refuse", "skip"])
def test_pictures_that_are_all_missing_are_said_once(tmp_path: Path, bad_images: str) -> None:
    write(tmp_path / "annotation/PARA-GiaaTest.csv", "imageName,sessionId,aestheticScore_mean\n"
          + "".join(f"{i}.jpg,session{i % 9},5\n" for i in range(3000)))
    with pytest.raises(DataError) as error:
        read_all(f"para:{tmp_path}", "test", bad_images)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'imgs'}: none of PARA's 3000 pictures is there, such")
    assert "0.jpg" in message and "\n" not in message


def test_columns_and_limit_reach_a_training_run(tmp_path: Path) -> None:
    """And what is held out stays the same."""
    rows = []
    for i in range(30):
        Image.fromarray(np.full((28, 28, 3), i, np.uint8)).save(tmp_path / f"p{i}.png")
        rows.append(f"p{i}.png;{1 + i % 5};{i}")
    file = write(tmp_path / "p.csv", "\n".join(["File;MOS;note", *rows]))
    test = write(tmp_path / "t.csv", "File;MOS\np1.png;1,5\np2.png;4,5\n")

    def seen(**more: object) -> tuple[set[str], set[str], list[float]]:
        given = {"train": f"csv:{file}@1-5", "test_in": f"csv:{test}@1-5", "model": "x",
                 "heldout": 3, "columns": "file,mos", **more}
        cfg = parse(RAPOConfig, [w for k, v in given.items() for w in (f"--{k}", str(v))])
        train, held, tests = pictures(cfg, tmp_path / "run")
        return ({e.image.name for e in train}, {e.image.name for e in held["p"][1]},
                [e.score for e in tests["t"][1]])

    train, held, scores = seen()
    fewer, same, _ = seen(limit=10)
    assert (len(train), len(held), scores) == (27, 3, [0.125, 0.875])
    assert len(fewer) == 7 and fewer < train and same == held
    with pytest.raises(DataError, match="no column 'image'"):
        seen(columns="")


def test_the_papers_number_is_in_the_presets() -> None:
    sizes = {cls.__name__: values["limit"] for name in ("paper", "qwen7b", "qwen3b_lora")
             for cls, values in PRESETS[name].items() if "limit" in values}
    assert sizes == {"RAPOConfig": 15_000}

"""Pictures are decoded before they are asked for, in order, few at once; an error has its turn."""

import dataclasses
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_vlm

from nanoaes.ahead import ahead
from nanoaes.images import DataError, load_image


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for i in range(9):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(9)]


def number(image: Image.Image) -> int:
    return image.getpixel((0, 0))[0]


@pytest.mark.parametrize("n", [0, 1, 4, 20])
def test_all_come_in_order_whoever_is_ready_first(paths: list[Path], n: int) -> None:
    def slow(image: Image.Image) -> Image.Image:
        time.sleep(0.02 if number(image) % 3 == 0 else 0)
        return image
    assert [number(image) for image in ahead([*paths, paths[0]], slow, n)] == [*range(9), 0]
    assert list(ahead([], slow, n)) == []


def test_the_next_n_are_done_while_nobody_asks_and_no_more(paths: list[Path]) -> None:
    done: list[int] = []

    def fit(image: Image.Image) -> Image.Image:
        done.append(number(image))
        return image
    shown = ahead(iter(paths), fit, 3)
    assert done == []
    for taken in (1, 2):
        next(shown)
        deadline = time.monotonic() + 5
        while len(done) < taken + 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        assert sorted(done) == list(range(taken + 3))
    shown.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pictures")]


def test_an_error_is_raised_where_the_picture_has_its_turn(paths: list[Path]) -> None:
    paths[2].unlink()
    shown = ahead(paths, lambda image: image, 5)
    assert [number(next(shown)) for _ in range(2)] == [0, 1]
    with pytest.raises(DataError, match="2.png"):
        next(shown)


def test_work_goes_on_meanwhile(paths: list[Path]) -> None:
    """Decoding and the work between take the time of the longer, not of both."""
    def slow(image: Image.Image) -> Image.Image:
        time.sleep(0.05)
        return image
    shown = ahead(paths, slow, 2)
    next(shown)
    begun, waited = time.perf_counter(), 0.0
    for _ in range(8):
        time.sleep(0.1)
        since = time.perf_counter()
        next(shown)
        waited += time.perf_counter() - since
    assert waited < 0.25 * (time.perf_counter() - begun)


@pytest.mark.parametrize("size, max_pixels, smaller", [
    ((640, 480), 262_144, True), ((57, 57), 262_144, True), ((56, 28), 262_144, False),
    ((8, 8), 262_144, False), ((5600, 28), 262_144, False),
    ((36, 5896), 262_144, False),  # would be 28 x 5908, which is too long to be asked about
    ((20, 3000), 4096, False)])    # would be 28 x 756, and then be shrunk once more
def test_a_fitted_picture_gives_the_same_prompt_to_the_bit(
    size: tuple[int, int], max_pixels: int, smaller: bool
) -> None:
    vlm = tiny_vlm(0)
    vlm.asking = dataclasses.replace(vlm.asking, max_pixels=max_pixels)
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    fitted = vlm.fit(image)
    assert (fitted.width * fitted.height < image.width * image.height) == smaller
    assert vlm.prompt_length(fitted) == vlm.prompt_length(image)
    for a, b in zip(vars(vlm.prompts([image])).values(), vars(vlm.prompts([fitted])).values(),
                    strict=True):
        assert torch.equal(a, b)


def test_what_the_model_sees_is_what_is_on_disk(tmp_path: Path) -> None:
    vlm = tiny_vlm(0)
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (shown,) = ahead([tmp_path / "a.jpg"], vlm.fit, 1)
    assert torch.equal(vlm.prompts([shown]).pixels,
                       vlm.prompts([load_image(tmp_path / "a.jpg")]).pixels)

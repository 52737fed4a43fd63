"""Pictures of every kind become upright RGB, or are refused by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanoaes.images import DataError, load_image


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def colours(path: Path) -> list[tuple[int, int, int]]:
    image = load_image(path)
    assert image.mode == "RGB"
    return [tuple(int(level) for level in pixel) for pixel in np.asarray(image).reshape(-1, 3)]


def test_grey_alpha_and_palette_go_on_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]):
        rgba.putpixel((x, 0), pixel)
    red, white, pale = (255, 0, 0), (255, 255, 255), (204, 204, 204)  # 255 * (1 - 51/255) = 204
    assert colours(saved(tmp_path, rgba, "rgba.png")) == [red, white, pale]
    grey = Image.fromarray(np.array([[[0, 51], [90, 255]]], dtype=np.uint8), "LA")
    assert colours(saved(tmp_path, grey, "la.png")) == [pale, (90, 90, 90)]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert colours(saved(tmp_path, palette, "p.png")) == [red, (0, 0, 255)]
    assert colours(saved(tmp_path, palette, "pt.png", transparency=1)) == [red, white]
    plain = Image.new("RGB", (1, 1), (9, 8, 7))
    assert colours(saved(tmp_path, plain, "key.png", transparency=(9, 8, 7))) == [white]


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    image = Image.fromarray(levels)
    assert image.mode == "I;16"
    assert colours(saved(tmp_path, image, name)) == [(g, g, g) for g in (0, 1, 128, 255)]


def test_cmyk_bilevel_and_grey(tmp_path: Path) -> None:
    cmyk = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "c.jpg", quality=95)
    assert np.abs(np.array(colours(cmyk)) - (255, 0, 0)).max() <= 4
    assert colours(saved(tmp_path, Image.new("1", (1, 1), 1), "one.png")) == [(255, 255, 255)]
    assert colours(saved(tmp_path, Image.new("L", (1, 1), 77), "l.png")) == [(77, 77, 77)]


def test_pixels_without_a_known_white_are_refused(tmp_path: Path) -> None:
    for i, levels in enumerate([np.float32([[0.5]]), np.int32([[70_000]]), np.int32([[-1]])]):
        with pytest.raises(DataError, match="without a known white"):
            load_image(saved(tmp_path, Image.fromarray(levels), f"{i}.tif"))


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, mode: str) -> None:
    upright = np.array([[10, 200, 90], [30, 60, 120]])
    stored = {  # how a camera stores the upright picture under each orientation
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]
    levels = (stored * 257).astype(np.uint16) if mode == "I;16" else np.repeat(
        stored[..., None], 3, axis=2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(levels)), "x.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(path))[..., 0], upright)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit, refused", [(200, False), (199, True), (99, True), (None, False)])
def test_decompression_bomb_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, refused: bool
) -> None:
    path = saved(tmp_path, Image.new("L", (20, 10)), "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    if refused:
        with pytest.raises(DataError, match="big.png.*ecompression"):
            load_image(path)
    else:
        assert load_image(path).size == (20, 10)


def test_a_picture_too_long_for_the_model_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 4)).save(tmp_path / "long.png")
    with pytest.raises(DataError, match=r"long.png.*200 times"):
        load_image(tmp_path / "long.png")

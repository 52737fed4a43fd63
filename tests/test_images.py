"""Pictures of every kind become upright RGB, or are refused by name."""

import os
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanoaes import images
from nanoaes.images import DataError, _problem, load_image


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


def test_an_open_picture_without_a_known_white_is_refused_too() -> None:
    for mode in ("I", "F"):
        with pytest.raises(ValueError, match="without a known white"):
            images.upright(Image.new(mode, (2, 2), 70_000))
    assert images.upright(Image.new("LA", (1, 1), (0, 51))).getpixel((0, 0)) == (204, 204, 204)


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


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_tiff_is_that_of_any_compression(tmp_path: Path, orientation: int, mode: str
                                                  ) -> None:
    """Pillow maps one without into memory, at the size that it has when it is turned."""
    levels = np.random.default_rng(0).integers(0, 255, (32, 64, 4), dtype=np.uint8)
    picture = (Image.fromarray(levels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else
               Image.fromarray(levels[..., 0] if mode == "L" else levels[..., :len(mode)], mode))
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, packed = (np.asarray(load_image(saved(
        tmp_path, picture, f"{kind}.tif", exif=exif, compression=kind)))
        for kind in ("raw", "tiff_lzw"))
    assert plain.shape[:2] == ((64, 32) if orientation > 4 else (32, 64))
    assert np.array_equal(plain, packed)


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


@pytest.mark.parametrize("name", ["x.dds", "x.blp", "x.avif", "x.jpg", "x.png", "x.tif", "x.webp",
                                  "x.gif", "x.qoi", "x.jp2"])
def test_whatever_a_decoder_raises_is_a_bad_picture(tmp_path: Path, name: str) -> None:
    """Files cut off or scribbled over at random: a picture or one line, never a traceback."""
    rng, kind = np.random.default_rng(0), "P" if name == "x.blp" else "RGB"
    pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    try:
        whole = saved(tmp_path, Image.fromarray(pixels).convert(kind), name).read_bytes()
    except (KeyError, ValueError):
        pytest.skip("this Pillow does not write it")
    refused = 0
    for trial in range(60):
        damaged = bytearray(whole[: rng.integers(0, len(whole))] if trial % 3 == 0 else whole)
        for place in rng.integers(0, min(len(whole), (16, 200, 5000)[trial % 3]), 1 + trial % 9):
            damaged[place : place + 1] = bytes([rng.integers(0, 256)])
        (tmp_path / name).write_bytes(damaged)
        try:
            assert load_image(tmp_path / name).mode == "RGB"
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path / name}: ") and "\n" not in str(error)
    assert refused >= 5


def test_a_dds_of_128_bytes(tmp_path: Path) -> None:
    """PIL raises NotImplementedError, beside which stands no OSError."""
    (tmp_path / "x.dds").write_bytes(b"DDS " + (124).to_bytes(4, "little") + b"\0" * 120)
    with pytest.raises(DataError, match="x.dds: cannot be decoded .*replace the file"):
        load_image(tmp_path / "x.dds")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe would be waited for until somebody writes into it."""
    os.mkfifo(tmp_path / "pipe.jpg")
    waiting = threading.Thread(target=_problem, args=[tmp_path / "pipe.jpg"], daemon=True)
    waiting.start()
    waiting.join(10)
    assert not waiting.is_alive()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "folder.jpg", "link.jpg"):
        with pytest.raises(DataError, match=f"{name}: no regular file"):
            load_image(tmp_path / name)
    saved(tmp_path, Image.new("RGB", (4, 2)), "real.png")
    (tmp_path / "good.png").symlink_to(tmp_path / "real.png")
    assert load_image(tmp_path / "good.png").size == (4, 2)


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "a.jpg", "No such file"), (tmp_path / "a\0b.jpg", "null byte"),
                         (tmp_path / ("a" * 300 + ".jpg"), "too long")):
        with pytest.raises(DataError, match=reason):
            load_image(path)


def test_a_raw_file_is_refused_and_not_its_thumbnail_read(tmp_path: Path) -> None:
    thumbnail, dng = Image.new("RGB", (16, 12), "red"), {50706: b"\x01\x04\0\0"}
    for i, tags in enumerate([{254: 1}, dng, {254: 1, **dng}]):
        with pytest.raises(DataError, match=f"{i}.tif: .*export it as JPEG"):
            load_image(saved(tmp_path, thumbnail, f"{i}.tif", tiffinfo=tags))
    assert load_image(saved(tmp_path, thumbnail, "x.tif", tiffinfo={254: 0})).size == (16, 12)
    saved(tmp_path, thumbnail, "y.tif").rename(tmp_path / "y.CR2")  # Canon's has neither tag
    (tmp_path / "y.cr3").write_bytes(b"\0\0\0\x18ftypcrx ")
    for name in ("y.CR2", "y.cr3"):
        with pytest.raises(DataError, match=f"{name}: a camera's raw file"):
            load_image(tmp_path / name)


def test_heic_wants_pillow_heif_and_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                            ) -> None:
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    images._reads_heif.cache_clear()
    with pytest.raises(DataError, match="convert to JPEG, or install pillow-heif"):
        load_image(tmp_path / "x.heic")

    def opens(file: object, name: str) -> Image.Image:
        return Image.open(saved(tmp_path, Image.new("RGB", (6, 4)), "inside.png"))

    stand_in = types.ModuleType("pillow_heif")
    stand_in.register_heif_opener = lambda: Image.register_open(
        "TEST_HEIF", opens, lambda head: head[4:12] == b"ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", stand_in)
    images._reads_heif.cache_clear()
    try:
        assert load_image(tmp_path / "x.heic").size == (6, 4)
    finally:
        Image.ID.remove("TEST_HEIF")
        images._reads_heif.cache_clear()


def test_a_jpeg_over_the_limit_is_decoded_at_half_its_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = np.repeat(np.arange(0, 240, 8, dtype=np.uint8), 2)[None].repeat(41, 0)  # 41 x 60
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, mode in (("a.jpg", "RGB"), ("c.jpg", "CMYK"), ("g.jpg", "L")):
        saved(tmp_path, Image.fromarray(levels).convert(mode), name, quality=98, exif=exif)
    pixels = 41 * 60
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    whole = {name: load_image(tmp_path / name) for name in ("a.jpg", "c.jpg", "g.jpg")}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", -(-pixels // 3))  # PIL would refuse it
    for name, image in whole.items():
        half = load_image(tmp_path / name)
        assert image.size == (41, 60) and half.size == (21, 30)  # turned: height and width
        shrunk = image.resize((21, 30), Image.Resampling.BOX)
        assert np.abs(np.asarray(half, float) - np.asarray(shrunk)).mean() < 4
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", -(-pixels // 3) - 1)
    with pytest.raises(DataError, match="60x41, more pixels than .* limit times 3"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"])
def test_damaged_exif_turns_nothing(tmp_path: Path, exif: bytes) -> None:
    path = saved(tmp_path, Image.new("RGB", (6, 4)), "x.jpg", exif=b"Exif\0\0" + exif)
    assert load_image(path).size == (6, 4)


@pytest.mark.parametrize("name", ["x.gif", "x.webp", "x.png", "x.tif", "x.mpo"])
def test_of_several_pictures_the_first_is_seen(tmp_path: Path, name: str) -> None:
    """Animations, a TIFF's pages, and the views that phones write behind a JPEG."""
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = saved(tmp_path, first, name, save_all=True, append_images=[second])
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert np.abs(np.array(colours(path)) - (255, 0, 0)).max() <= 2


def test_no_program_is_started_for_a_picture(tmp_path: Path, monkeypatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    monkeypatch.setattr("subprocess.Popen", lambda *words, **options: pytest.fail("started"))
    with pytest.raises(DataError, match="a.eps: a PostScript program; export it as JPEG"):
        load_image(tmp_path / "a.eps")

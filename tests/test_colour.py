"""One photograph in other colour spaces, depths and turns is seen as the plain sRGB one.

The other spaces' numbers come from their standards' formulas, not from the code under test.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from icc import cmyk_profile, grey_profile, light_to_srgb, rgb_profile, srgb_to_light, to_xyz
from PIL import Image, ImageCms

from nanoaes.images import DataError, load_image


def gamma(value: np.ndarray) -> np.ndarray:
    return value ** (563 / 256)  # Adobe RGB's


def lens(inks: np.ndarray) -> np.ndarray:
    """Inks that spread more than PIL's own conversion thinks: value = (1 - ink)^1.4 (1 - black)."""
    return (1 - inks[..., :3]) ** 1.4 * (1 - inks[..., 3:])


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(96, 128, 3) on [0, 1]: colours of every kind, soft edges, a little noise."""
    y, x = np.mgrid[0:96, 0:128] / 32.0
    waves = [np.sin(a * x + b * y + c)
             for a, b, c in ((2.1, 1.3, 0), (1.7, -2.2, 1), (3.0, 0.4, 2))]
    noise = np.random.default_rng(0).normal(0, 0.003, (96, 128, 3))
    return np.clip(0.5 + 0.48 * np.stack(waves, -1) + noise, 0, 1).round(3)


def as_bytes(values: np.ndarray) -> np.ndarray:
    return (values * 255).round().astype(np.uint8)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    Image.fromarray(pixels, mode).save(path, quality=97, subsampling=0, lossless=True, **options)
    return path


def off(path: Path, plain: Path) -> float:
    """Levels of 255 by which two pictures differ, on average."""
    a, b = (np.asarray(load_image(p), dtype=float) for p in (path, plain))
    return np.abs(a - b).mean()


@pytest.fixture
def plain(photo: np.ndarray, tmp_path: Path) -> Path:
    return saved(tmp_path / "plain.jpg", as_bytes(photo))


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("name, to_light, from_light", [
    ("Display P3", srgb_to_light, light_to_srgb),
    ("Adobe RGB", gamma, lambda light: light ** (256 / 563))])
def test_wide_gamuts(photo: np.ndarray, plain: Path, name: str, to_light, from_light, kind: str
                     ) -> None:
    light = srgb_to_light(photo) @ np.linalg.solve(to_xyz(name), to_xyz("sRGB")).T
    pixels = as_bytes(from_light(light.clip(0, 1)))
    bare = saved(plain.with_name(f"bare.{kind}"), pixels)
    assert off(bare, plain) > 5  # what ignoring the profile would cost
    wide = saved(plain.with_name(f"wide.{kind}"), pixels, icc_profile=rgb_profile(name, to_light))
    assert off(wide, plain) < 2


def test_cmyk_by_its_profile(photo: np.ndarray, plain: Path) -> None:
    inks = np.concatenate([1 - photo ** (1 / 1.4), np.zeros_like(photo[..., :1])], axis=-1)
    bare = saved(plain.with_name("bare.tif"), as_bytes(inks), "CMYK")
    assert off(bare, plain) > 5
    for name in ("inks.tif", "inks.jpg"):
        assert off(saved(plain.with_name(name), as_bytes(inks), "CMYK",
                         icc_profile=cmyk_profile(lens)), plain) < 2


def test_cmyk_without_a_profile_is_one_minus_ink(photo: np.ndarray, plain: Path) -> None:
    inks = np.concatenate([1 - photo, np.zeros_like(photo[..., :1])], axis=-1)
    assert off(saved(plain.with_name("inks.jpg"), as_bytes(inks), "CMYK"), plain) < 2


def test_turned_by_exif_with_a_profile(photo: np.ndarray, plain: Path) -> None:
    light = srgb_to_light(photo) @ np.linalg.solve(to_xyz("Display P3"), to_xyz("sRGB")).T
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn it right
    turned = np.ascontiguousarray(np.rot90(as_bytes(light_to_srgb(light.clip(0, 1)))))
    path = saved(plain.with_name("turned.jpg"), turned, exif=exif,
                 icc_profile=rgb_profile("Display P3", srgb_to_light))
    assert off(path, plain) < 2


def test_grey_by_its_profile_or_one_for_rgb(photo: np.ndarray, plain: Path) -> None:
    levels = photo[..., 0]
    want = saved(plain.with_name("want.png"), as_bytes(levels))
    light = srgb_to_light(levels)
    wide = rgb_profile("Adobe RGB", gamma)
    for name, icc in (("grey", grey_profile(lambda v: v)), ("rgb", wide)):
        pixels = as_bytes(light if name == "grey" else light ** (256 / 563))
        path = saved(plain.with_name(f"{name}.png"), pixels, icc_profile=icc)
        assert off(path, want) < 2
        assert off(saved(plain.with_name("bare.png"), pixels), want) > 0.5


def test_alpha_and_profile(photo: np.ndarray, plain: Path) -> None:
    """White behind is white, whatever the profile; what is opaque is converted."""
    alpha = np.zeros_like(photo[..., :1])
    alpha[:48] = 1
    wide = rgb_profile("Adobe RGB", gamma)
    path = saved(plain.with_name("a.png"), as_bytes(np.concatenate([photo, alpha], -1)),
                 icc_profile=wide)
    seen = np.asarray(load_image(path))
    opaque = load_image(saved(plain.with_name("o.png"), as_bytes(photo), icc_profile=wide))
    assert (seen[48:] == 255).all() and np.array_equal(seen[:48], np.asarray(opaque)[:48])


def test_a_profile_of_srgb_changes_no_pixel(photo: np.ndarray, plain: Path) -> None:
    pixels = as_bytes(photo)
    for icc in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
                rgb_profile("sRGB", srgb_to_light),
                rgb_profile("sRGB", srgb_to_light, 16)):  # a coarse one, off by a level here, there
        path = saved(plain.with_name("s.png"), pixels, icc_profile=icc)
        assert np.array_equal(np.asarray(load_image(path)), pixels)


def test_a_profile_that_is_damaged_or_of_another_mode_counts_as_srgb(photo: np.ndarray, plain: Path
                                                                     ) -> None:
    pixels, whole = as_bytes(photo), rgb_profile("Adobe RGB", gamma)
    for icc in (b"no profile", whole[:200], whole[:128] + b"\xff" * 300, cmyk_profile(lens, 2),
                grey_profile(gamma)):
        path = saved(plain.with_name("d.png"), pixels, icc_profile=icc)
        assert np.array_equal(np.asarray(load_image(path)), pixels)


def test_a_profile_that_is_no_bytes_counts_as_srgb(tmp_path: Path) -> None:
    """A TIFF says of what type its profile is."""
    path = tmp_path / "a.tif"
    Image.new("RGB", (4, 4), (200, 10, 10)).save(path, icc_profile=b"no profile")
    whole = bytearray(path.read_bytes())
    tag = whole.index((34675).to_bytes(2, "little"))
    whole[tag + 2 : tag + 8] = (3).to_bytes(2, "little") + (2).to_bytes(4, "little")  # two shorts
    path.write_bytes(whole)
    with Image.open(path) as image:
        assert not isinstance(image.info["icc_profile"], bytes)
    assert np.asarray(load_image(path))[0, 0].tolist() == [200, 10, 10]


def png16(path: Path, levels: np.ndarray) -> Path:
    """An RGB PNG of 16 bits (H, W, 3), which PIL reads but does not write."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data))
    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(
        ">IIBBBBB", width, height, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b""))
    return path


def test_twelve_bits_in_sixteen_are_refused_and_not_black(photo: np.ndarray, tmp_path: Path
                                                          ) -> None:
    grey = (photo[..., 0] * 4095).round().astype(np.uint16)
    rgb = (photo * 4095).round().astype(np.uint16)
    paths = [tmp_path / "g.png", tmp_path / "g.tif", png16(tmp_path / "rgb.png", rgb)]
    for path in paths[:2]:
        Image.fromarray(grey).save(path)
    for path in paths:
        with pytest.raises(DataError, match=rf"{path.name}: .*12 bits in 16.*full range"):
            load_image(path)
    full = load_image(png16(tmp_path / "full.png", (rgb / 4095.0 * 65535).round()))
    assert np.abs(np.asarray(full) - photo * 255.0).max() <= 1
    assert np.asarray(load_image(png16(tmp_path / "black.png", 0 * rgb))).max() == 0


def test_a_grey_map_of_sixteen_bits_is_scaled(tmp_path: Path) -> None:
    """PIL scales a PGM's own maximum to 65535, in a mode that elsewhere knows no white."""
    for most, levels in ((65535, [0, 65535, 32768]), (4095, [0, 4095, 2048])):
        (tmp_path / "g.pgm").write_bytes(b"P5 3 1 %d\n" % most + np.array(levels, ">u2").tobytes())
        assert np.asarray(load_image(tmp_path / "g.pgm"))[0, :, 0].tolist() == [0, 255, 128]

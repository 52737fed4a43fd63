"""A path -> an upright 8-bit sRGB picture, or one line that says why not.

What is seen is what a viewer shows: turned as Exif says, colours by the profile, the first picture
of several. What would only seem to be seen (a raw file's thumbnail, levels without a known white)
is refused with the remedy.
Left out: raw files (developing one is a photographer's decision), JPEG's reduced decoding where the
whole fits in memory (it would change pixels).
"""

import stat
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from nanoaes.colour import Unfit, refuse_dark, to_rgb
from nanoaes.errors import UserError

MAX_RATIO = 200  # of a picture's sides: Qwen's resizing refuses more
REDUCED = 3  # times PIL's limit: the largest JPEG, 268 megapixels; phones write 200
HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
RAW = {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc",
       ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl",
       ".sr2", ".srf", ".srw", ".x3f"}
REDUCED_COPY, DNG_VERSION = 254, 50706  # TIFF's tags
THREADS = 4  # that check pictures


class DataError(UserError):
    """Data that cannot be used: the file, the row, the remedy."""


def load_image(path: Path) -> Image.Image:
    """The photograph as upright 8-bit RGB on sRGB, alpha on white.

    A JPEG of more than Image.MAX_IMAGE_PIXELS is decoded at half its sides.
    DataError if it cannot be decoded, is no picture of its own, or exceeds Image.MAX_IMAGE_PIXELS,
    where PIL only warns; a JPEG, three times that (a progressive one needs 6 bytes a pixel).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe waits for ever
            raise Unfit("no regular file but a folder, pipe or device; leave it out")
        if path.suffix.lower() in RAW:
            raise _raw()
        with open_image(path) as image:
            _check_size(image)
            _check_kind(image)
            deep = image.mode[:3] == "RGB" and any(";16" in str(tile[3]) for tile in image.tile)
            rgb = to_rgb(ImageOps.exif_transpose(image))
        if deep:
            refuse_dark(max(high for _, high in rgb.getextrema()), 16)
        return rgb
    except Unfit as error:
        raise DataError(f"{path}: {error}") from None
    # Of a damaged file PIL's decoders raise whatever went wrong in them: beside OSError and
    # SyntaxError NotImplementedError, RuntimeError, IndexError, MemoryError, zlib.error and more.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path}: cannot be read ({error.strerror}); mend its name or rights, "
                            "or leave it out") from error
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise DataError(f"{path}: cannot be decoded ({reason}); replace the file") from error


def open_image(path: Path) -> Image.Image:
    """Image.open, with HEIC if pillow-heif is there, and JPEGs that are too large for it."""
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(path)
    try:
        image = Image.open(path)
        if isinstance(image, TiffImageFile):
            image.filename = ""  # or Pillow maps the file, a turned one at its turned size (13.0)
        return image
    except UnidentifiedImageError:
        if head[4:8] != b"ftyp" or head[8:12] not in HEIF:
            raise
        if not _reads_heif():
            raise Unfit("HEIC or HEIF; convert to JPEG, or install pillow-heif") from None
        return Image.open(path)


@cache
def _reads_heif() -> bool:
    """Is pillow-heif there? If so, PIL reads HEIC from now on."""
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def _check_size(image: Image.Image) -> None:
    """Before anything is decoded. A large JPEG is told to be decoded at half its sides."""
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    width, height = image.size
    jpeg = isinstance(image, JpegImageFile)
    if width * height > (REDUCED * limit if jpeg else limit):
        raise Unfit(f"{width}x{height}, more pixels than PIL's decompression limit"
                    + f" times {REDUCED}" * jpeg + "; save it smaller")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise Unfit(f"one side more than {MAX_RATIO} times the other; crop it")
    if width * height > limit:
        image.draft(None, (width // 2, height // 2))


def _check_kind(image: Image.Image) -> None:
    """Of a raw file PIL reads the thumbnail; of whole numbers without a white, something dark."""
    if image.format == "EPS":  # PIL would start Ghostscript
        raise Unfit("a PostScript program; export it as JPEG")
    if isinstance(image, TiffImageFile) and (
            DNG_VERSION in image.tag_v2 or image.tag_v2.get(REDUCED_COPY, 0) & 1):
        raise _raw()
    if image.mode in ("I", "F") and image.format != "PPM":  # whose levels PIL scales to 65535
        raise Unfit(f"pixels of mode {image.mode} without a known white; save it with 8 or 16 bits")


def _raw() -> Unfit:
    return Unfit("a camera's raw file, or a thumbnail without its picture; export it as JPEG")


def difference_hash(image: Image.Image, side: int) -> np.ndarray:
    """(side, side) bool: of side + 1 x side grey levels, is each darker than its right neighbour?

    Source: N. Krawetz, "Kind of Like That" (2013).
    """
    spots = image.resize((side + 1, side), Image.Resampling.BOX).convert("L")
    levels = np.asarray(spots)
    return levels[:, :-1] < levels[:, 1:]


def problems(paths: Sequence[Path]) -> Iterator[str | None]:
    """What is wrong with each picture, in order; None: it can be decoded."""
    with ThreadPool(THREADS) as pool:
        yield from pool.imap(_problem, paths, chunksize=8)


def _problem(path: Path) -> str | None:
    try:
        load_image(path)
    except DataError as error:
        return str(error)
    return None


def upright(image: Image.Image) -> Image.Image:
    """A picture that is open already, as `load_image` gives it.

    Raises:
        Unfit: a ValueError; of whole numbers or floats without a known white.
    """
    _check_kind(image)
    return to_rgb(ImageOps.exif_transpose(image))

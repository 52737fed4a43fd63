"""A path -> an upright 8-bit RGB picture, or one line that says why not.

Left out: colour profiles (sRGB is assumed).
"""

import struct
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nanoaes.errors import UserError

MAX_RATIO = 200  # of a picture's sides: Qwen's resizing refuses more


class DataError(UserError):
    """Data that cannot be used: the file, the row, the remedy."""


def load_image(path: Path) -> Image.Image:
    """The photograph as upright 8-bit RGB, alpha on white.

    DataError if it cannot be decoded or exceeds Image.MAX_IMAGE_PIXELS, where PIL only warns.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
                raise ValueError("more pixels than PIL's decompression limit")
            if max(image.size) > MAX_RATIO * min(image.size):
                raise ValueError(f"one side more than {MAX_RATIO} times the other")
            return _to_rgb(ImageOps.exif_transpose(image))
    except (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error,
            Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise DataError(f"{path}: cannot be decoded ({reason}); replace the file") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB. convert() alone clips 16-bit grey at 255 and puts alpha on black."""
    if image.mode[0] in "IF":  # I, I;16, I;16B, F
        levels = np.asarray(image)
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"pixels of mode {image.mode} without a known white")
        return Image.fromarray(np.rint(levels / 257.0).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def problems(paths: Sequence[Path], workers: int = 4) -> Iterator[str | None]:
    """What is wrong with each picture, in order; None: it can be decoded."""
    with ThreadPool(workers) as pool:
        yield from pool.imap(_problem, paths, chunksize=8)


def _problem(path: Path) -> str | None:
    try:
        load_image(path)
    except DataError as error:
        return str(error)
    return None

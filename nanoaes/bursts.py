"""Shots of one moment: pictures taken within seconds of each other that look alike.

A burst is what hangs together: two pictures of a burst are at most GAP seconds apart and differ in
at most BITS of their 64-bit difference hashes, directly or by way of others in between.
Left out: pictures without a capture time (each stands alone), the camera's time zone (one camera
has one clock), series with exposures that differ on purpose.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from nanoaes.images import difference_hash, open_image

GAP = 3.0  # seconds
# Of 64; two pictures that have nothing in common differ in half of them. Not measured on bursts.
BITS = 16
BACK = 64  # pictures that one is compared with: a scanner stamps thousands with one time
EXIF, TIME, FRACTION = 0x8769, 0x9003, 0x9291  # IFD, DateTimeOriginal, SubSecTimeOriginal


def look_of(image: Image.Image) -> str:
    """Its difference hash of 64 bits, in 16 hexadecimal digits."""
    return np.packbits(difference_hash(image, 8)).tobytes().hex()


def taken(path: Path) -> float | None:
    """When by the camera's own clock, in seconds; None: the file does not say, or unreadably."""
    try:
        with open_image(path) as image:
            told = image.getexif().get_ifd(EXIF)
            return seconds(str(told.get(TIME, "")), str(told.get(FRACTION, "")))
    except Exception:  # as of pixels, Pillow raises whatever went wrong; a time is no need
        return None


def seconds(time: str, fraction: str) -> float | None:
    """Exif's "2026:05:01 10:20:30" and "25" -> seconds since 1970 as if in UTC."""
    try:
        whole = datetime.strptime(time.strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:  # "0000:00:00 00:00:00" and blanks stand for unknown
        return None
    digits = re.match(r"\d*", fraction.strip())[0]
    return whole.timestamp() + float(f"0.{digits or 0}")


def bursts(times: Sequence[float | None], looks: Sequence[str | None]) -> list[int]:
    """Numbers of bursts, from 0 in order of time; those without a time get the last, one each."""
    dated = sorted((t, i) for i, t in enumerate(times) if t is not None and looks[i] is not None)
    order = [i for _, i in dated]
    marks = [int(looks[i], 16) for i in order]
    leader = list(range(len(order)))

    def first(i: int) -> int:
        while leader[i] != i:
            leader[i] = i = leader[leader[i]]
        return i

    for i, (t, _) in enumerate(dated):
        for j in range(i - 1, max(i - 1 - BACK, -1), -1):
            if t - dated[j][0] > GAP:
                break
            if (marks[i] ^ marks[j]).bit_count() <= BITS:
                a, b = sorted((first(i), first(j)))
                leader[b] = a
    names: dict[int, int] = {}
    group = dict(zip(order, (names.setdefault(first(i), len(names)) for i in range(len(order))),
                     strict=True))
    for i in range(len(times)):
        group.setdefault(i, len(names) + i)
    return [group[i] for i in range(len(times))]

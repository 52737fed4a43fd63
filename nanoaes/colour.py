"""A decoded picture of any mode -> 8-bit sRGB: depth, profile, alpha.

A photograph's numbers are colours only by its profile. Phones write Display P3, cameras Adobe RGB;
read as sRGB they lose up to a quarter of their saturation, which is part of what people judge.
Where the profile is damaged or does not fit the picture's mode it counts as sRGB, as in browsers.
Left out: colours that are told otherwise than by an embedded profile (Exif's Adobe RGB mark, PNG's
cICP and gAMA, AVIF's nclx) and are read as sRGB; the brighter half of HDR pictures.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms


class Unfit(ValueError):
    """Decoded, but its pixels cannot be known for what they are: why, and the remedy."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode but F, any profile -> RGB on sRGB, alpha on white. Mode I: white is 65535.

    convert() alone ignores profiles, clips 16-bit grey at 255 and puts alpha on black.
    Raises:
        Unfit: levels without a known white.
    """
    profile = image.info.get("icc_profile") or b""
    if image.mode[0] == "I":  # I;16, I;16B, and I as PIL reads a PGM
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return _on_srgb(image, profile)
    clear = image.convert("RGBA")
    opaque = image.convert("L") if image.mode == "LA" else clear.convert("RGB")
    shown = _on_srgb(opaque, profile)
    shown.putalpha(clear.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), shown).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey -> L, 65535 as white."""
    levels = np.asarray(image)
    refuse_dark(int(levels.max()), 4096)
    return Image.fromarray(np.rint(levels / 257.0).astype(np.uint8))


def refuse_dark(brightest: int, white: int) -> None:
    """Of a file of 16 bits: does it hold 12 bits at the lower end, which would look black?

    Args:
        brightest: the highest level.
        white: what white is, plus 1, if there are 12 bits only.
    Raises:
        Unfit: it seems so. A black picture is black in either case; one of 14 bits is not told
            from a dark one of 16.
    """
    if 0 < brightest < white:
        raise Unfit("no pixel is brighter than a sixteenth of white: 12 bits in 16? scale its "
                    "levels to the full range")


def _on_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Without alpha, of 8 bits -> RGB, by its profile if that fits."""
    modes = {"1": ("L", "RGB"), "L": ("L", "RGB"), "CMYK": ("CMYK",)}.get(image.mode, ("RGB",))
    for mode in modes if profile else ():  # grey pictures with a profile for RGB are common
        if transform := _transform(profile, mode):
            return transform.apply(image.convert(mode))
    return image.convert("RGB")


@lru_cache(maxsize=32)  # as many cameras and programs as one set may well have been made with
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB; None where there is nothing to do, or the profile is none for this mode.

    Relative colorimetric with black point compensation, as image editors convert: what both
    spaces can show stays what it is, ink's black becomes black, the rest is clipped.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
            mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION)
    except (OSError, TypeError, ImageCms.PyCMSError):  # a TIFF's may be no bytes at all
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Is it sRGB already? By what it does: profiles of sRGB have many names and lengths."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    after = np.asarray(transform.apply(Image.fromarray(probe)))
    return np.abs(after.astype(int) - probe).max() <= 1

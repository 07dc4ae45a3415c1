"""Colours of a decoded image: sRGB in 8 bits, with transparency laid over white."""

import io
import re
import struct

import numpy as np
from PIL import Image, ImageCms, ImageFile, JpegImagePlugin

from laion_etl.download.declared_colours import profile_of_codes
from laion_etl.download.usable_profile import usable

_MASK = "laion_etl.mask"  # in an image's info: its alpha, of a transparent colour in 16 bits
_AVIF_COLOURS = re.compile(rb"colrnclx(.{4})", re.DOTALL)  # primaries and curve
_AVIF_HEAD_BYTES = 65_536
_ICC = b"ICC_PROFILE\0"
_INTENTS = (ImageCms.Intent.PERCEPTUAL, ImageCms.Intent.RELATIVE_COLORIMETRIC)  # some have tables of one only
_GREY_STEPS = {"L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}  # raw modes of PNG: bits of a pixel, its unit


def in_srgb_without_alpha(image: Image.Image) -> Image.Image:
    """Converts to sRGB, then lays transparency over white: the profile describes colours without it."""
    colours, alpha = _separated(image)
    if alpha is None:
        alpha = image.info.get(_MASK)
    opaque = _to_srgb(colours, image.info.get("icc_profile"))
    if alpha is None:
        return opaque
    white = Image.new("RGB", opaque.size, "white")
    white.paste(opaque, mask=alpha)
    return white


def _separated(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Returns the colours in 8 bits, in a mode without alpha, and the alpha if there is any."""
    key = image.info.get("transparency")
    if image.mode in ("I;16", "I;16B", "I", "F"):
        alpha = None
        if isinstance(key, int):  # the one value that is transparent
            alpha = Image.fromarray((np.asarray(image) != key).astype(np.uint8) * np.uint8(255))
        return _eight_bits(image), alpha
    if image.mode in ("PA", "RGBA", "La", "RGBa") or (key is not None and image.mode != "L"):
        coloured = image.convert("RGBA")
        return coloured.convert("RGB"), coloured.getchannel("A")
    if image.mode == "LA" or key is not None:
        grey = image.convert("LA")
        return grey.convert("L"), grey.getchannel("A")
    if image.mode in ("P", "1"):
        return image.convert("RGB" if image.mode == "P" else "L"), None
    return image, None


def scale_key(image: Image.Image, data: bytes) -> None:
    """Make the transparent colour of a PNG one of the pixels that Pillow decodes, as libpng does.

    Pillow widens grey of 2 and 4 bits to 8, but leaves the key. Of RGB in 16 bits it keeps the high bytes, so
    that the low ones have to be decoded for the key. `data` is the file that `image` was opened from.
    """
    key = image.info.get("transparency")
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    kind = str(tiles[0].args) if tiles else ""
    if isinstance(key, tuple) and kind == "RGB;16B":
        del image.info["transparency"]
        image.info[_MASK] = _mask(data, key)
    elif isinstance(key, tuple):
        image.info["transparency"] = tuple(value & 0xFF for value in key)
    elif isinstance(key, int) and kind in _GREY_STEPS:
        mask, step = _GREY_STEPS[kind]
        image.info["transparency"] = (key & mask) * step


def declare_colours(image: Image.Image, data: bytes) -> None:
    """Give an image the profile that browsers apply: of a JPEG that in all segments up to its pixels, of an
    AVIF without a profile the one that the numbers in it stand for. `data` is its file.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        image.info["icc_profile"] = _joined([body for kind, body in image.applist if kind == "APP2"])
        return
    found = _AVIF_COLOURS.search(data, 0, _AVIF_HEAD_BYTES) if image.format == "AVIF" else None
    if found is not None and not image.info.get("icc_profile"):
        image.info["icc_profile"] = profile_of_codes(*struct.unpack(">HH", found[1]))


def _joined(segments: list[bytes]) -> bytes | None:
    """Return the profile in segments of a JPEG, in any order; None if they make none. Copies do not count."""
    parts: dict[int, bytes] = {}
    counts: set[int] = set()
    for body in segments:
        if body.startswith(_ICC) and len(body) > len(_ICC) + 2:
            number, count = body[len(_ICC)], body[len(_ICC) + 1]
            if not 1 <= number <= count:
                return None
            parts.setdefault(number, body[len(_ICC) + 2 :])
            counts.add(count)
    if counts != {len(parts)}:
        return None
    return b"".join(parts[number] for number in sorted(parts))


def _mask(data: bytes, key: tuple[int, ...]) -> Image.Image:
    """Return the alpha of RGB in 16 bits with a transparent colour."""
    differs: np.ndarray | bool = False
    for shift, raw_mode in (
        (8, "RGB;16B"),
        (0, "RGB;16L"),
    ):  # little-endian, a pixel's high byte is the low one
        with Image.open(io.BytesIO(data), formats=("PNG",)) as half:
            half.tile = [tile._replace(args=raw_mode) for tile in half.tile]
            for band, value in enumerate(key):
                differs |= np.asarray(half.getchannel(band)) != value >> shift & 0xFF
    return Image.fromarray(np.asarray(differs, np.uint8) * np.uint8(255))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduces a 16-bit grey PNG to the high byte of each pixel."""
    return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _in_space(image: Image.Image, space: str) -> Image.Image:
    """Return grey as RGB for a profile of colours, as browsers do, and as grey what a decoder made RGB."""
    if image.mode == "L" and space == "RGB":
        return image.convert("RGB")
    if image.mode == "RGB" and space == "GRAY":
        red, green, blue = image.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():  # grey with alpha in 16 bits, AVIF
            return red
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    profile = usable(profile) if profile and image.mode in ("RGB", "CMYK", "L") else None
    if profile is not None:
        for intent in _INTENTS:
            try:
                source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
                image = _in_space(image, source.profile.xcolor_space.strip())
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, source, target, intent, "RGB")
            except (ImageCms.PyCMSError, OSError, ValueError):
                continue  # ignore a broken profile, or one of another colour space
            if converted is not None:
                return converted
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() would copy it

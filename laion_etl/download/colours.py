"""Colours of a decoded image: sRGB in 8 bits, with transparency laid over white."""

import io

import numpy as np
from PIL import Image, ImageCms, ImageFile

_GREY_STEPS = {"L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}  # raw modes of PNG: bits of a pixel, its unit


def in_srgb_without_alpha(image: Image.Image) -> Image.Image:
    """Converts to sRGB, then lays transparency over white: the profile describes colours without it."""
    colours, alpha = _separated(image)
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


def scale_key(image: Image.Image) -> None:
    """Make the transparent colour of a PNG one of the pixels that Pillow decodes, as libpng does.

    Pillow widens grey of 2 and 4 bits to 8 and keeps the high bytes of RGB in 16 bits, but leaves the key.
    """
    key = image.info.get("transparency")
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    kind = str(tiles[0].args) if tiles else ""
    if isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 if kind == "RGB;16B" else value & 0xFF for value in key)
    elif isinstance(key, int) and kind in _GREY_STEPS:
        mask, step = _GREY_STEPS[kind]
        image.info["transparency"] = (key & mask) * step


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduces a 16-bit grey PNG to the high byte of each pixel."""
    return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # ignore a broken profile, or one of another colour space
        if converted is not None:
            return converted
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() would copy it

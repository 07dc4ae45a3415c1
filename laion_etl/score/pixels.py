"""From image bytes to the pixels image models take: open_clip's inference transform, only faster.

open_clip scales the shorter side to the input size, cuts the middle out, and normalises. Here large JPEGs are
scaled by powers of two while they are decoded, to no less than twice the input size, unless a plan forbids it
(LAION_ETL_CLIP_JPEG_SCALING; docs/accuracy.md has what that changes). All other images with 8
bits of red, green and blue, or of grey, come out the same to the last bit (`resize.py`, `jpeg.py`). Palettes,
1 bit, CMYK and partly transparent images do not: they become RGB before they are resized, open_clip resizes
them first, palettes to the nearest pixel. Of grey with 16 bits the high bytes count, which open_clip makes
white. Normalising is left to the device
(`ClipModel.embed_pixels`). An image is decoded once, however many models use it. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laion_etl.sandbox.pillow_safety import DECODE_ERRORS
from laion_etl.score.jpeg import decode_whole_jpeg
from laion_etl.score.resize import middle_of_resized

Pixels = NDArray[np.uint8]

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF"}
_DRAFT_GAP = 2.0  # times the input size that a JPEG scaled while decoding keeps at least
_MAX_WHOLE = 1 << 22  # pixels up to which an image is copied out of Pillow: 12 MB a copy
_MAX_RESIZED = 1 << 26  # pixels that Pillow resizes to: 256 MiB
_GREY_16 = ("I;16", "I;16B", "I;16L", "I")


def format_of(data: bytes) -> str | None:
    """The format of an image by its first bytes, as FORMATS names it; None for all others."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "avif" if data[4:12] == b"ftypavif" else None


@dataclass(frozen=True, slots=True)
class PixelPlan:
    """What an image model takes: a square of `side` pixels. `squash`: without regard to the aspect ratio.

    `scale_jpegs`: large JPEGs may be scaled while they are decoded.
    """

    side: int
    squash: bool = False
    bilinear: bool = False
    max_pixels: int = 89_478_484
    scale_jpegs: bool = True

    @property
    def bytes(self) -> int:
        return self.side * self.side * 3


def load_pixels(data: bytes, ending: str, plans: Sequence[PixelPlan]) -> list[Pixels] | None:
    """RGB pixels (side, side, 3) by each plan; None when the image is too large or cannot be decoded."""
    found = [np.empty((plan.side, plan.side, 3), np.uint8) for plan in plans]
    return found if write_pixels(data, ending, plans, found) else None


def write_pixels(
    data: bytes | memoryview, ending: str, plans: Sequence[PixelPlan], out: Sequence[Pixels]
) -> bool:
    """Write RGB pixels by each plan to `out` (side, side, 3); return whether the image could be decoded."""
    if ending == "jpg" and (whole := decode_whole_jpeg(data, partial(_is_whole, plans))) is not None:
        for plan, pixels in zip(plans, out, strict=True):
            _write_middle(whole, plan, _scaled_size(plan, whole.shape[1], whole.shape[0]), pixels)
        return True
    try:
        with Image.open(BytesIO(data), formats=[FORMATS[ending]]) as image:
            if image.width * image.height > min(plan.max_pixels for plan in plans):
                return False
            sizes = [_scaled_size(plan, *image.size) for plan in plans]
            if _may_scale(plans) and image.format == "JPEG" and image.mode in ("RGB", "L"):
                image.draft(None, _draft_size(sizes))
            decoded = _in_8_bits(image).convert("RGB")
            for plan, size, pixels in zip(plans, sizes, out, strict=True):
                _cut(decoded, plan, size, pixels)
    except DECODE_ERRORS:
        return False
    return True


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return grey of 16 bits as its high bytes: Pillow takes all values above 255 for white."""
    if image.mode not in _GREY_16:
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


def _is_whole(plans: Sequence[PixelPlan], width: int, height: int) -> bool:
    """Whether a JPEG is decoded as it is: neither refused for its size nor scaled while it is decoded."""
    if not 0 < width * height <= min(_MAX_WHOLE, *(plan.max_pixels for plan in plans)):
        return False
    if not _may_scale(plans):
        return True
    wide, high = _draft_size([_scaled_size(plan, width, height) for plan in plans])
    return width < 2 * wide or height < 2 * high


def _may_scale(plans: Sequence[PixelPlan]) -> bool:
    return all(plan.scale_jpegs for plan in plans)


def _scaled_size(plan: PixelPlan, width: int, height: int) -> tuple[int, int]:
    """What the image is scaled to before the square is cut out of its middle."""
    side = plan.side
    if plan.squash:
        return side, side
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _draft_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    wide, high = (max(lengths) for lengths in zip(*sizes, strict=True))
    return int(wide * _DRAFT_GAP), int(high * _DRAFT_GAP)


def _cut(image: Image.Image, plan: PixelPlan, size: tuple[int, int], out: Pixels) -> None:
    # Of a very narrow image, only the middle fits into memory once it is resized.
    if image.width * image.height <= _MAX_WHOLE or size[0] * size[1] > _MAX_RESIZED:
        _write_middle(np.array(image), plan, size, out)  # writable, as all arrays the loops are compiled for
        return
    if size != image.size:
        how = Image.Resampling.BILINEAR if plan.bilinear else Image.Resampling.BICUBIC
        image = image.resize(size, how)
    side, (wide, high) = plan.side, size
    left, top = round((wide - side) / 2), round((high - side) / 2)
    out[:] = np.asarray(image.crop((left, top, left + side, top + side)))


def _write_middle(pixels: Pixels, plan: PixelPlan, size: tuple[int, int], out: Pixels) -> None:
    middle_of_resized(pixels, size, plan.side, smooth=not plan.bilinear, out=out)

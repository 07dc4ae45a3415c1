"""From image bytes to the pixels a CLIP image tower takes: open_clip's inference transform, only faster.

open_clip scales the shorter side to the input size, cuts the middle out, and normalises. Here large JPEGs are
scaled by powers of two while they are decoded, to no less than twice the input size; all others come out the
same to the last bit. Normalising is left to the device (`ClipModel.embed_pixels`). Imports no torch.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laion_etl.imagefiles import DECODE_ERRORS

Pixels = NDArray[np.uint8]

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF"}
_DRAFT_GAP = 2.0  # times the input size that a JPEG scaled while decoding keeps at least


@dataclass(frozen=True, slots=True)
class PixelPlan:
    """What an image tower takes: a square of `side` pixels. `squash`: without regard to the aspect ratio."""

    side: int
    squash: bool = False
    bilinear: bool = False
    max_pixels: int = 89_478_484

    @property
    def bytes(self) -> int:
        return self.side * self.side * 3


def load_pixels(data: bytes, ending: str, plan: PixelPlan) -> Pixels | None:
    """RGB pixels (side, side, 3); None when the image is too large or can't be decoded."""
    try:
        with Image.open(BytesIO(data), formats=[FORMATS[ending]]) as image:
            if image.width * image.height > plan.max_pixels:
                return None
            return _scaled(image, plan)
    except DECODE_ERRORS:
        return None


def _scaled(image: Image.Image, plan: PixelPlan) -> Pixels:
    side, (width, height) = plan.side, image.size
    if plan.squash:
        wide, high = side, side
    elif width <= height:
        wide, high = side, int(side * height / width)
    else:
        wide, high = int(side * width / height), side
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        image.draft(None, (int(wide * _DRAFT_GAP), int(high * _DRAFT_GAP)))
    picture = image.convert("RGB")
    if (wide, high) != picture.size:
        how = Image.Resampling.BILINEAR if plan.bilinear else Image.Resampling.BICUBIC
        picture = picture.resize((wide, high), how)
    left, top = round((wide - side) / 2), round((high - side) / 2)
    return np.asarray(picture.crop((left, top, left + side, top + side)))

"""Images and captions that are always the same: models are tried on them, and known ones compared by them.

The images are drawn with integers alone and kept as PNG, so they have the same pixels everywhere. They are
wide, tall and square, so that the way images become square shows, and have fine and coarse detail, so that
the interpolation does.
"""

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laion_etl.score.pixels import PixelPlan, Pixels, load_pixels

VERSION = 1  # of the images and captions: raise it when one changes, and record all references again

CAPTIONS = (
    "a photo of a lamp",
    "a red circle on a blue ground, drawn by hand",
    "Zwei Katzen auf dem Sofa & ein Hund",
    "кошка спит на диване",
    "公園で遊ぶ犬の写真",
    "قطة على الأريكة",
    "IMG_2020.jpg -- ISO 100, f/2.8 😀",
    "word " * 90,  # longer than any context
)


@cache
def fixed_images() -> tuple[bytes, ...]:
    """PNG files of the images."""
    return tuple(_png(pixels) for pixels in (_ramps(), _tiles(), _rings(), _leaves()))


def fixed_pixels(plan: PixelPlan) -> Pixels:
    """The images as a model takes them (n, side, side, 3)."""
    found = [load_pixels(data, "png", [plan]) for data in fixed_images()]
    return np.stack([pixels[0] for pixels in found if pixels is not None])


def _grid(width: int, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    return x, y


def _ramps() -> NDArray[np.int64]:
    x, y = _grid(480, 320)
    return np.stack([x * 255 // 479, y * 255 // 319, (x + y) * 255 // 798], axis=-1)


def _tiles() -> NDArray[np.int64]:
    x, y = _grid(360, 360)
    fine, coarse = (x // 3 + y // 3) % 2, (x // 60 + y // 90) % 2
    return np.stack([fine * 200 + 20, coarse * 180 + 40, 255 - coarse * 120 - fine * 60], axis=-1)


def _rings() -> NDArray[np.int64]:
    x, y = _grid(300, 520)
    distance = (x - 130) ** 2 + (y - 240) ** 2
    ring, inside = (distance // 900) % 3, distance < 110**2
    return np.stack([np.where(inside, 220, ring * 60), ring * 100, np.where(inside, 30, 200)], axis=-1)


def _leaves() -> NDArray[np.int64]:
    """Blots of a few sizes, by a multiplicative hash of their places."""
    x, y = _grid(600, 400)
    channels = []
    for channel, size in enumerate((7, 23, 61)):
        places = (x // size * 73_856_093) ^ (y // size * 19_349_663) ^ (channel * 83_492_791)
        hashed = places.astype(np.uint64) * np.uint64(2_654_435_761) >> np.uint64(16)
        channels.append((hashed % np.uint64(256)).astype(np.int64))
    return np.stack(channels, axis=-1)


def _png(pixels: NDArray[np.int64]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()

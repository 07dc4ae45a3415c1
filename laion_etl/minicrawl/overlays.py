"""Watermarks as stock sites print them on images: the demo's watermark model detects them.

Half see-through white or dark lettering, laid over the whole image in rows, across its middle, or as a
signature in a corner; the agencies are invented.
"""

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

NAMES = ("Pixelhoard", "FOTOLAGER", "imagora", "StockNest", "VistaBank", "© lumen & co", "PREVIEW", "SAMPLE")
_OPACITY = (80, 150)  # of 255
_BRIGHT = 130  # mean of an image, of 255, on which black lettering shows
_WHITE, _BLACK = (255, 255, 255), (20, 20, 20)
_SLOPES = (-35, 35)  # degrees


def watermarked(image: Image.Image, rng: random.Random) -> Image.Image:
    """The RGB image with a watermark; equal generators give equal pixels."""
    layer = rng.choice(_LAYERS)(image.size, rng)
    bright = image.convert("L").resize((1, 1)).tobytes()[0] > _BRIGHT
    tone = rng.choice((_WHITE, _BLACK)) if bright else _WHITE
    opacity = rng.randint(*_OPACITY)
    marked = image.copy()
    marked.paste(tone, (0, 0), layer.point([value * opacity // 255 for value in range(256)]))
    return marked


Size = tuple[int, int]


def _tiled(size: Size, rng: random.Random) -> Image.Image:
    """Sloping rows of small lettering over the whole image."""
    short, diagonal = min(size), int((size[0] ** 2 + size[1] ** 2) ** 0.5) + 1
    font = ImageFont.load_default(max(9, short * rng.uniform(0.06, 0.1)))
    text = rng.choice(NAMES)
    wide, high = _extent(text, font)
    layer = Image.new("L", (diagonal, diagonal))
    pen = ImageDraw.Draw(layer)
    step = max(4, int(high * rng.uniform(2.2, 3.2)))
    for row, y in enumerate(range(0, diagonal, step)):
        for x in range(-(row % 2) * wide, diagonal, int(wide * 1.5) + 1):
            pen.text((x, y), text, 255, font)
    turned = layer.rotate(rng.uniform(*_SLOPES), Image.Resampling.BILINEAR)
    left, top = (diagonal - size[0]) // 2, (diagonal - size[1]) // 2
    return turned.crop((left, top, left + size[0], top + size[1]))


def _across(size: Size, rng: random.Random) -> Image.Image:
    """One large word across the middle."""
    text = rng.choice(NAMES)
    wide, _ = _extent(text, ImageFont.load_default(100))
    font = ImageFont.load_default(max(10, 100 * size[0] * rng.uniform(0.6, 0.85) / wide))
    layer = Image.new("L", size)
    ImageDraw.Draw(layer).text((size[0] / 2, size[1] / 2), text, 255, font, anchor="mm")
    return layer.rotate(rng.uniform(*_SLOPES) / 2, Image.Resampling.BILINEAR)


def _signed(size: Size, rng: random.Random) -> Image.Image:
    """A signature in a corner."""
    text = rng.choice(NAMES)
    wide, _ = _extent(text, ImageFont.load_default(100))
    font = ImageFont.load_default(max(10, 100 * size[0] * rng.uniform(0.35, 0.5) / wide))
    layer = Image.new("L", size)
    gap = min(size) * 0.04
    right, low = rng.random() < 0.5, rng.random() < 0.7
    place = (size[0] - gap if right else gap, size[1] - gap if low else gap)
    anchor = ("r" if right else "l") + ("d" if low else "a")
    ImageDraw.Draw(layer).text(place, text, 255, font, anchor=anchor)
    return layer


def _extent(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Size:
    left, top, right, low = font.getbbox(text)
    return max(1, int(right - left)), max(1, int(low - top))


_LAYERS: tuple[Callable[[Size, random.Random], Image.Image], ...] = (_tiled, _across, _signed)

"""Drawn scenes: the images and alt texts of the mini crawl, and what the tiny CLIP is trained on.

A scene is a few coloured shapes in front of a background ("two red stars on a sandy beach"), so it is
known exactly whether a text fits an image, and a CLIP of 4 million parameters can learn it in minutes.
Everything is drawn from a seeded `random.Random`: the same seed gives the same pixels.

All shapes lie in the central square of the image, because CLIP's preprocessing crops to it.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from laion_etl.minicrawl.backgrounds import BACKGROUNDS, background
from laion_etl.minicrawl.lexicon import LEXICONS

LANGUAGES: tuple[str, ...] = tuple(LEXICONS)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (208, 32, 40),
    "orange": (245, 132, 20),
    "yellow": (250, 215, 40),
    "green": (38, 150, 66),
    "blue": (36, 84, 205),
    "purple": (122, 48, 162),
    "pink": (246, 132, 184),
    "white": (244, 244, 240),
}

LAYOUTS: dict[str, tuple[tuple[float, float, float], ...]] = {
    # centre x, centre y, radius; in units of half the central square
    "single": ((0.0, 0.0, 0.66),),
    "two": ((-0.47, 0.0, 0.42), (0.47, 0.0, 0.42)),
    "row": ((-0.62, 0.0, 0.29), (0.0, 0.0, 0.29), (0.62, 0.0, 0.29)),
    "grid": ((-0.45, -0.45, 0.38), (0.45, -0.45, 0.38), (-0.45, 0.45, 0.38), (0.45, 0.45, 0.38)),
}

HAZARD_SHARE = 0.04
_SIGN_PLACE = (-0.36, 0.0, 0.58)
_NEXT_TO_SIGN = (0.58, 0.34, 0.34)

MIN_SIDE, MAX_SIDE = 64, 3000
_NOISE_TILE = 256
_NOISE_SIGMA = 7.0

Floats = NDArray[np.float32]
Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Scene:
    """What an image shows.

    `hazard` puts a warning sign next to a single shape, whatever the layout. It is the harmless stand-in
    for unsafe content: it exercises the whole safety path (tags, drops, counts) without a single
    unsafe image.
    """

    colour: str
    shape: str
    background: str
    layout: str
    hazard: bool = False


def random_scene(rng: random.Random) -> Scene:
    """Any scene, all parts equally likely; about one in 25 has the hazard sign."""
    return Scene(
        colour=rng.choice(list(COLOURS)),
        shape=rng.choice(list(SHAPES)),
        background=rng.choice(list(BACKGROUNDS)),
        layout=rng.choice(list(LAYOUTS)),
        hazard=rng.random() < HAZARD_SHARE,
    )


def caption(scene: Scene, language: str, rng: random.Random) -> str:
    """A sentence naming everything in the scene, in one of LANGUAGES (KeyError for others)."""
    lexicon = LEXICONS[language]
    subject = lexicon.subject(scene.colour, scene.shape, scene.layout, hazard=scene.hazard)
    text = rng.choice(lexicon.templates).format(subject=subject, place=lexicon.places[scene.background])
    return text[0].upper() + text[1:]


def draw(scene: Scene, width: int, height: int, rng: random.Random) -> Image.Image:
    """The scene as an RGB image, width and height in pixels; positions, tints and noise vary with rng."""
    noise = np.random.default_rng(rng.getrandbits(64))
    image = background(scene.background, width, height, rng, noise)
    half = min(width, height) / 2
    offset = (width / 2 + rng.uniform(-0.05, 0.05) * half, height / 2 + rng.uniform(-0.05, 0.05) * half)
    places = (_NEXT_TO_SIGN,) if scene.hazard else LAYOUTS[scene.layout]
    tint = _jitter(COLOURS[scene.colour], rng)
    for x, y, radius in places:
        centre = (offset[0] + x * half, offset[1] + y * half)
        size = radius * half * rng.uniform(0.92, 1.04)
        outline = _turned(SHAPES[scene.shape], math.radians(rng.uniform(-10, 10)))
        _stamp(image, outline, centre, size, tint)
    if scene.hazard:
        x, y, radius = _SIGN_PLACE
        _hazard_sign(image, (offset[0] + x * half, offset[1] + y * half), radius * half)
    return _grain(image, noise)


# Shapes: outlines in [-1, 1], y downwards.


def _ring(radius: float, start: float, end: float, steps: int = 72) -> Points:
    angles = [start + (end - start) * i / steps for i in range(steps + 1)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> Points:
    corners = []
    for i in range(10):
        radius, angle = (1.0, 0.42)[i % 2], math.pi * (i / 5 - 0.5)
        corners.append((radius * math.cos(angle), radius * math.sin(angle)))
    return corners


def _heart() -> Points:
    points = []
    for i in range(72):
        t = math.tau * i / 72
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -(y + 2.5) / 15.5))
    return points


def _crescent() -> Points:
    inner = [(0.45 + 0.8 * math.cos(a), 0.8 * math.sin(a)) for a in np.linspace(4.02, 2.263, 36)]
    return _ring(1.0, 0.67, math.tau - 0.67) + inner


SHAPES: dict[str, Points] = {
    "circle": _ring(0.95, 0.0, math.tau),
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0.0, -0.95), (1.0, 0.78), (-1.0, 0.78)],
    "star": _star(),
    "heart": _heart(),
    "crescent": _crescent(),
}
_DIAMOND: Points = [(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]
_BAR: Points = [(-0.15, -0.52), (0.15, -0.52), (0.08, 0.16), (-0.08, 0.16)]


def _turned(points: Points, angle: float) -> Points:
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def _moved(points: Points, factor: float, dx: float = 0.0, dy: float = 0.0) -> Points:
    return [(x * factor + dx, y * factor + dy) for x, y in points]


def _mask(points: Points, box: int, size: float) -> Image.Image:
    """Coverage of the outline, scaled to `size` pixels, in a square of `box` pixels; antialiased."""
    zoom = 4 if box < 240 else 2
    mask = Image.new("L", (box * zoom, box * zoom))
    middle = box * zoom / 2
    ImageDraw.Draw(mask).polygon(_moved(points, size * zoom, middle, middle), fill=255)
    return mask.reduce(zoom)


def _stamp(
    image: Image.Image,
    points: Points,
    centre: tuple[float, float],
    size: float,
    colour: tuple[int, int, int],
) -> None:
    """Draws a filled outline with a dark rim, a soft shadow and a gentle light from above."""
    box = max(8, math.ceil(size * 2.6))
    corner = (round(centre[0] - box / 2), round(centre[1] - box / 2))
    shadow = _mask(points, 64, 64 / 2.6).filter(ImageFilter.GaussianBlur(3)).resize((box, box))
    lower = (corner[0] + round(size * 0.07), corner[1] + round(size * 0.1))
    image.paste((25, 25, 35), lower, shadow.point([v * 2 // 5 for v in range(256)]))
    image.paste(_scaled(colour, 0.32), corner, _mask(points, box, size * 1.09))
    light = ImageOps.colorize(
        Image.linear_gradient("L").resize((box, box)), _scaled(colour, 1.1), _scaled(colour, 0.86)
    )
    image.paste(light, corner, _mask(points, box, size))


def _hazard_sign(image: Image.Image, centre: tuple[float, float], size: float) -> None:
    """A yellow diamond with a black rim and an exclamation mark."""
    black = (20, 18, 16)
    _stamp(image, _DIAMOND, centre, size, black)
    _stamp(image, _moved(_DIAMOND, 0.8), centre, size, (255, 204, 0))
    _stamp(image, _BAR, centre, size, black)
    _stamp(image, _moved(_ring(0.12, 0.0, math.tau), 1.0, 0.0, 0.4), centre, size, black)


def _scaled(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue


def _jitter(colour: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, part + rng.randint(-10, 10))) for part in colour)
    return red, green, blue


def _grain(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Film grain, as real photographs have: without it, JPEGs would be smaller than any photograph."""
    tile = noise.normal(0, _NOISE_SIGMA, (_NOISE_TILE, _NOISE_TILE, 1)).astype(np.int16)
    tile = tile + noise.normal(0, 2.5, (_NOISE_TILE, _NOISE_TILE, 3)).astype(np.int16)
    pixels = np.asarray(image)
    grained = np.empty_like(pixels)
    for top in range(0, pixels.shape[0], _NOISE_TILE):
        for left in range(0, pixels.shape[1], _NOISE_TILE):
            block = pixels[top : top + _NOISE_TILE, left : left + _NOISE_TILE]
            summed = block + tile[: block.shape[0], : block.shape[1]]
            grained[top : top + _NOISE_TILE, left : left + _NOISE_TILE] = summed.clip(0, 255)
    return Image.fromarray(grained)

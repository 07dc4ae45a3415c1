"""Backgrounds of drawn scenes: functions of x, y (units of the short side, from the centre) and smooth noise.

The noise is in [-1, 1]; colours are floats (rows, columns, 3) from 0 to 255.
"""

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WORKING_SIDE = 512  # backgrounds are painted at this size and enlarged: large images stay fast

Floats = NDArray[np.float32]


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], share: Floats) -> Floats:
    share = np.clip(share, 0, 1)[..., None]
    return np.asarray(low, np.float32) * (1 - share) + np.asarray(high, np.float32) * share


def _meadow(_x: Floats, y: Floats, cloud: Floats) -> Floats:
    sky = _mix((120, 178, 228), (205, 228, 242), y + 0.6 + cloud * 0.5)
    grass = _mix((118, 160, 70), (70, 118, 44), y * 1.3 + cloud * 0.4)
    return np.where((y + 0.04 * cloud < -0.12)[..., None], sky, grass)


def _beach(x: Floats, y: Floats, cloud: Floats) -> Floats:
    water = _mix((60, 140, 170), (150, 205, 210), 0.5 + 0.5 * np.sin(y * 50 + cloud * 3) * 0.4 + y)
    sand = _mix((232, 210, 160), (205, 176, 122), y + cloud * 0.4)
    return np.where((y + 0.05 * np.sin(x * 5 + cloud) < -0.05)[..., None], water, sand)


def _night(_x: Floats, y: Floats, cloud: Floats) -> Floats:
    return _mix((12, 16, 42), (48, 52, 96), y + 0.4 + cloud * 0.35)


def _snow(_x: Floats, y: Floats, cloud: Floats) -> Floats:
    return _mix((236, 240, 246), (206, 216, 230), y * 0.5 + 0.4 + cloud * 0.7)


def _bricks(x: Floats, y: Floats, cloud: Floats) -> Floats:
    row = np.floor(y * 8)
    column = x * 4 + 0.5 * (row % 2)
    mortar = (y * 8 - row < 0.14) | (column - np.floor(column) < 0.07)
    varied = np.sin(np.floor(column) * 12.9 + row * 7.3).astype(np.float32)
    return np.where(
        mortar[..., None],
        np.float32(196),
        _mix((150, 74, 58), (112, 50, 42), 0.5 + cloud * 0.4 + varied * 0.25),
    )


def _wood(x: Floats, y: Floats, cloud: Floats) -> Floats:
    grain = 0.5 + 0.3 * np.sin(y * 60 + cloud * 9 + np.sin(x * 3) * 2) + 0.2 * cloud
    board = (y * 3 - np.floor(y * 3) < 0.03)[..., None]
    return np.where(board, np.float32(58), _mix((176, 128, 80), (128, 86, 48), grain))


def _chequered(x: Floats, y: Floats, cloud: Floats) -> Floats:
    odd = (np.floor(x * 7) + np.floor(y * 7)) % 2
    return _mix((222, 224, 216), (112, 118, 122), odd * 0.9 + cloud * 0.12)


def _striped(x: Floats, y: Floats, cloud: Floats) -> Floats:
    wave = np.clip(np.sin(x * 34) * 4, -1, 1) * 0.45 + 0.5
    return _mix((236, 226, 200), (150, 190, 182), wave + cloud * 0.12 + y * 0.05)


BACKGROUNDS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "snow": _snow,
    "bricks": _bricks,
    "wood": _wood,
    "chequered": _chequered,
    "striped": _striped,
}


def background(
    name: str, width: int, height: int, rng: random.Random, noise: np.random.Generator
) -> Image.Image:
    """Return a background of width and height pixels; place, zoom and brightness vary with `rng`."""
    scale = min(1.0, _WORKING_SIDE / max(width, height))
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    short, zoom = min(columns, rows), rng.uniform(0.9, 1.15)
    x = (np.arange(columns, dtype=np.float32) - columns / 2) / short * zoom + rng.uniform(-0.06, 0.06)
    y = (np.arange(rows, dtype=np.float32) - rows / 2) / short * zoom + rng.uniform(-0.06, 0.06)
    grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    coarse = Image.fromarray(noise.uniform(-1, 1, (7, 7)).astype(np.float32))
    cloud = np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC))
    painted = BACKGROUNDS[name](grid_x, grid_y, cloud) * rng.uniform(0.9, 1.06)
    if name == "night":
        painted[noise.random(grid_x.shape) < 0.0025] = 235
    image = Image.fromarray(np.clip(painted, 0, 255).astype(np.uint8))
    return image if scale == 1.0 else image.resize((width, height), Image.Resampling.BICUBIC)

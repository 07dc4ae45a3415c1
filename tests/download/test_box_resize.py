"""Scaling by compiled loops: the pixels of Pillow's box filter."""

import numpy as np
import pytest
from PIL import Image

from laion_etl.download.box_resize import averaged

SIZES = [
    ((512, 384), (341, 256)),
    ((384, 512), (256, 341)),
    ((300, 300), (256, 256)),
    ((512, 512), (256, 256)),
    ((513, 511), (257, 256)),
    ((399, 200), (200, 199)),
    ((5, 3), (3, 2)),
    ((2, 2), (1, 1)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(("old", "new"), SIZES, ids=str)
def test_pixels_are_those_of_pillow(old: tuple[int, int], new: tuple[int, int]) -> None:
    noise = np.random.default_rng(old[0]).integers(0, 256, (old[1], old[0], 3), np.uint8)
    image = Image.fromarray(noise)
    found = averaged(image, new)
    assert found is not None
    assert found.mode == "RGB"
    assert found.tobytes() == image.resize(new, Image.Resampling.BOX).tobytes()


@pytest.mark.parametrize(
    ("mode", "old", "new"),
    [
        ("RGB", (513, 300), (256, 256)),  # more than a half
        ("RGB", (300, 200), (400, 267)),  # larger
        ("RGB", (100, 500), (90, 300)),  # Pillow begins with columns
        ("L", (300, 300), (256, 256)),
    ],
)
def test_the_rest_is_left_to_pillow(mode: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    assert averaged(Image.new(mode, old), new) is None

"""PDQ, the 256-bit perceptual hash of Meta's Threat Exchange, which hotlines share lists of.

By the reference (D. Dalins et al., "PDQ & TMK + PDQF", 2019, and its C++ code): luma, two passes of a box
("Jarosz") filter, 64 x 64 samples, the 16 x 16 lowest frequencies of a DCT without the constant one, each bit
tells whether a coefficient is above their median. All of it before the median is linear, so it is done as
two matrix products; the matrices of a length are kept.
"""

from functools import lru_cache

import numpy as np
from PIL import Image

PDQ_BITS = 256
_SAMPLES = 64
_LOW = 16
_LONGEST_SIDE = 512  # larger pictures are scaled down first, as the reference does
_PASSES = 2


def pdq_hash(grey: Image.Image) -> str:
    """The hash of a decoded picture in mode L as 64 hexadecimal digits, the reference's order of bits."""
    return _hex(_coefficients(_samples(grey)))


def _samples(grey: Image.Image) -> np.ndarray:
    """The filtered picture at 64 x 64 points, float32."""
    longest = max(grey.size)
    if longest > _LONGEST_SIDE:
        width, height = (max(1, round(side * _LONGEST_SIDE / longest)) for side in grey.size)
        grey = grey.resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(grey, dtype=np.float32)
    height, width = pixels.shape
    samples: np.ndarray = _sampler(height) @ pixels @ _sampler(width).T
    return samples


@lru_cache(maxsize=1_024)
def _sampler(length: int) -> np.ndarray:
    """64 x length: row i takes sample i of a line after both passes of the box filter."""
    window = (length + 2 * _SAMPLES - 1) // (2 * _SAMPLES)
    right = (window + 2) // 2  # of a window that many pixels lie at or right of its middle
    left = window - right
    place = np.arange(length)
    sizes = np.minimum(place + right, length) - np.maximum(place - left, 0)
    rows = np.zeros((_SAMPLES, length))
    rows[np.arange(_SAMPLES), ((np.arange(_SAMPLES) + 0.5) * length / _SAMPLES).astype(int)] = 1
    for _ in range(_PASSES):
        # Column k gathers from all windows that contain pixel k: a window sum, by a running sum.
        running = np.concatenate([np.zeros((_SAMPLES, 1)), np.cumsum(rows / sizes, axis=1)], axis=1)
        first, last = np.maximum(place - right + 1, 0), np.minimum(place + left + 1, length)
        rows = running[:, last] - running[:, first]
    return rows.astype(np.float32)


def _dct_matrix() -> np.ndarray:
    waves = np.arange(1, _LOW + 1)[:, None]
    places = np.arange(_SAMPLES)[None, :]
    cosines = np.cos(np.pi / (2 * _SAMPLES) * waves * (2 * places + 1))
    return np.asarray(np.sqrt(2 / _SAMPLES) * cosines)


_DCT = _dct_matrix()


def _coefficients(samples: np.ndarray) -> np.ndarray:
    return np.ravel(_DCT @ samples.astype(np.float64) @ _DCT.T)


def _hex(coefficients: np.ndarray) -> str:
    # Rounded, so that the order of a sum decides no bit; the lower median, as the reference takes it.
    rounded = np.rint(coefficients * 16)
    bits = rounded > np.partition(rounded, PDQ_BITS // 2 - 1)[PDQ_BITS // 2 - 1]
    # Bit k is bit k % 16 of word k // 16, and the last word comes first: the first bit is the last of all.
    return np.packbits(bits[::-1]).tobytes().hex()

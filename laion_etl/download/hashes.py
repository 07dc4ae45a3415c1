"""Hashes of an image: digests of its bytes, and two hashes of what it looks like.

`perceptual_hash` is the 64-bit DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions" (2010): 32 x 32 luma, two-dimensional DCT-II, the 8 x 8 lowest frequencies, one bit per coefficient
(is it above their median?). Scaling and recompression change few bits (0 to 6), another image about half.

`pdq_hash` is PDQ, the 256-bit hash of Meta's Threat Exchange that hotlines share lists of. It follows the
reference (D. Dalins et al., "PDQ & TMK + PDQF", 2019, and its C++ code): luma, two passes of a box ("Jarosz")
filter, 64 x 64 samples, the 16 x 16 lowest frequencies of a DCT without the constant one, one bit per
coefficient. Everything before the median is linear: the rows are weighted sums of few neighbours, the columns
a matrix product; the weights of a side length are cached. Rows as a matrix product, which is mostly zeros,
take twice as long. Of images from twice 768 pixels on, squares of pixels are averaged first: that changes at
most 2 bits of 100 images with the spectrum of photographs; scaling to 512 pixels instead changed up to 16.

Its quality, 0 to 100, is the reference's too: the differences of neighbouring samples, each in whole
hundredths of the range from black to white, summed up. The reference says to discard hashes of 49 and less:
those of blank images, text on white and soft gradients are alike although the images are not.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

_PHASH_SIDE = 32
_PHASH_LOW = 8
_PHASH_MIDDLE = (_PHASH_LOW**2 - 1) // 2  # place of the median of all coefficients but the first

_PDQ_BITS = 256
_PDQ_SAMPLES = 64
_PDQ_LOW = 16
_PDQ_ENOUGH = 768  # pixels of a side that stay when squares of a larger image's are averaged first
_PDQ_MIN_SIDE = 5  # pixels; smaller images have quality 0
_PDQ_PASSES = 2
_PDQ_LEVELS = 256  # steps of a sample's value, so that the order of summation decides no difference
_PDQ_GRADIENTS = 90  # of the sum of differences, for each point of quality


@dataclass(frozen=True, slots=True)
class Digests:
    """Hex digests of an image file as it was downloaded."""

    sha256: str
    md5: str

    @classmethod
    def from_bytes(cls, data: bytes) -> "Digests":
        """Computes both digests."""
        return cls(hashlib.sha256(data).hexdigest(), hashlib.md5(data, usedforsecurity=False).hexdigest())


def _phash_matrix() -> np.ndarray:
    """Rows are the lowest cosine waves over the side (DCT-II without normalisation)."""
    waves = np.arange(_PHASH_LOW)[:, None]
    samples = np.arange(_PHASH_SIDE)[None, :]
    return np.cos(np.pi * (2 * samples + 1) * waves / (2 * _PHASH_SIDE))


_PHASH_DCT = _phash_matrix()


def perceptual_hash(grey: Image.Image) -> str:
    """Hashes a decoded image in mode L: 16 hexadecimal digits, the highest bit is the lowest frequency."""
    small = grey.resize((_PHASH_SIDE, _PHASH_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    low = np.rint(_PHASH_DCT @ pixels @ _PHASH_DCT.T).ravel()
    bits = low > np.partition(low[1:], _PHASH_MIDDLE)[_PHASH_MIDDLE]
    return np.packbits(bits).tobytes().hex()


@dataclass(frozen=True, slots=True)
class Pdq:
    """A PDQ hash, 64 hexadecimal digits in the reference's order of bits, and its quality from 0 to 100."""

    hash: str
    quality: int


def pdq_hash(grey: Image.Image) -> Pdq:
    """Hashes a decoded image in mode L."""
    samples = _pdq_samples(grey)
    quality = _pdq_quality(samples) if min(grey.size) >= _PDQ_MIN_SIDE else 0
    return Pdq(_pdq_hex(_pdq_coefficients(samples)), quality)


def turned_pdq_hashes(grey: Image.Image) -> tuple[int, list[str]]:
    """Returns the quality, and the hashes of the image as it is, mirrored and turned by right angles.

    As in the reference they come from the same coefficients: a mirror negates every second one, and rows are
    columns of an image that lies on its side.
    """
    pdq_samples = _pdq_samples(grey)
    quality = _pdq_quality(pdq_samples) if min(grey.size) >= _PDQ_MIN_SIDE else 0
    whole = _pdq_coefficients(pdq_samples).reshape(_PDQ_LOW, _PDQ_LOW)
    return quality, [
        _pdq_hex(np.ravel(position * signs)) for position in (whole, whole.T) for signs in _PDQ_SIGNS
    ]


def _pdq_quality(samples: np.ndarray) -> int:
    levels = np.rint(samples * _PDQ_LEVELS).astype(np.int32)
    steps = (np.abs(np.diff(levels, axis=axis)) * 100 // (255 * _PDQ_LEVELS) for axis in (0, 1))
    return min(100, int(sum(int(step.sum()) for step in steps) // _PDQ_GRADIENTS))


def _pdq_samples(grey: Image.Image) -> np.ndarray:
    """Samples the filtered image at 64 x 64 points, float32."""
    factor = max(grey.size) // _PDQ_ENOUGH
    if factor > 1:
        grey = grey.reduce(factor)
    pixels = np.asarray(grey)
    height, width = pixels.shape
    (first, *rest), (weight, *weights) = _pdq_neighbours(height)
    rows: np.ndarray = pixels[first] * weight
    for place, share in zip(rest, weights, strict=True):
        rows += pixels[place] * share
    samples: np.ndarray = rows @ _pdq_sampler(width).T
    return samples


@lru_cache(maxsize=1_024)
def _pdq_neighbours(length: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights of `_pdq_sampler` that are not zero: places in a line, and a column of weights for each."""
    matrix = _pdq_sampler(length)
    first, last = (matrix > 0).argmax(axis=1), length - 1 - (matrix[:, ::-1] > 0).argmax(axis=1)
    count = int((last - first).max()) + 1
    places = np.minimum(first, length - count)[:, None] + np.arange(count)
    weights = np.take_along_axis(matrix, places, axis=1)
    return list(places.T), [weights[:, [number]] for number in range(count)]


@lru_cache(maxsize=1_024)
def _pdq_sampler(length: int) -> np.ndarray:
    """A matrix of 64 x length: row i takes sample i of a line after both passes of the box filter."""
    window = (length + 2 * _PDQ_SAMPLES - 1) // (2 * _PDQ_SAMPLES)
    right = (window + 2) // 2  # pixels of a window at or right of its middle
    left = window - right
    place = np.arange(length)
    sizes = np.minimum(place + right, length) - np.maximum(place - left, 0)
    rows = np.zeros((_PDQ_SAMPLES, length))
    rows[np.arange(_PDQ_SAMPLES), ((np.arange(_PDQ_SAMPLES) + 0.5) * length / _PDQ_SAMPLES).astype(int)] = 1
    for _ in range(_PDQ_PASSES):
        # Column k sums over all windows that contain pixel k, by a running sum.
        running = np.concatenate([np.zeros((_PDQ_SAMPLES, 1)), np.cumsum(rows / sizes, axis=1)], axis=1)
        first, last = np.maximum(place - right + 1, 0), np.minimum(place + left + 1, length)
        rows = running[:, last] - running[:, first]
    return rows.astype(np.float32)


def _pdq_matrix() -> np.ndarray:
    waves = np.arange(1, _PDQ_LOW + 1)[:, None]
    places = np.arange(_PDQ_SAMPLES)[None, :]
    cosines = np.cos(np.pi / (2 * _PDQ_SAMPLES) * waves * (2 * places + 1))
    return np.asarray(np.sqrt(2 / _PDQ_SAMPLES) * cosines)


_PDQ_DCT = _pdq_matrix()
_MIRRORED = np.where(np.arange(_PDQ_LOW) % 2 == 0, -1.0, 1.0)[None, :]  # waves are counted from one
_PDQ_SIGNS = (np.ones((1, 1)), _MIRRORED, _MIRRORED.T, _MIRRORED * _MIRRORED.T)


def _pdq_coefficients(samples: np.ndarray) -> np.ndarray:
    return np.ravel(_PDQ_DCT @ samples.astype(np.float64) @ _PDQ_DCT.T)


def _pdq_hex(coefficients: np.ndarray) -> str:
    # Rounded, so that the order of summation decides no bit; the lower median, as in the reference.
    rounded = np.rint(coefficients * 16)
    bits = rounded > np.partition(rounded, _PDQ_BITS // 2 - 1)[_PDQ_BITS // 2 - 1]
    # Bit k is bit k % 16 of word k // 16, and the last word comes first: the first bit is the last of all.
    return np.packbits(bits[::-1]).tobytes().hex()

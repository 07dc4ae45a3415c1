"""The loop of box_resize.py."""

import numpy as np
import numpy.typing as npt

from laion_etl.core.kernels import Ints
from laion_etl.core.numba_cache import kernel

Words = npt.NDArray[np.uint32]  # a pixel each: its four bytes

_HALVES = np.uint32(0x7F7F7F7F)
_ONE = np.uint32(1)


@kernel
def fill_neighbours(length: int, first: Ints, last: Ints) -> None:
    """Fill in the first and last of the pixels that each pixel of a shorter line averages.

    `length`: pixels of the longer line. The arithmetic is that of Pillow's Resample.c for its box filter.
    """
    scale = length / len(first)
    for place in range(len(first)):
        centre = (place + 0.5) * scale
        begin = max(int(centre - 0.5 * scale + 0.5), 0)
        end = min(int(centre + 0.5 * scale + 0.5), length)
        while begin < end - 1 and (begin - centre + 0.5) * (1.0 / scale) <= -0.5:
            begin += 1
        while end > begin + 1 and (end - 1 - centre + 0.5) * (1.0 / scale) > 0.5:
            end -= 1
        first[place], last[place] = begin, end - 1


@kernel
def average_neighbours(pixels: Words, out: Words) -> None:
    """Write an image (height, width) to `out`, which has at least half its height and width.

    Pillow rounds after each of its two passes, along the lines first.
    """
    left, right = np.empty(out.shape[1], np.int32), np.empty(out.shape[1], np.int32)
    fill_neighbours(pixels.shape[1], left, right)
    upper, lower = np.empty(out.shape[0], np.int32), np.empty(out.shape[0], np.int32)
    fill_neighbours(pixels.shape[0], upper, lower)
    narrower = np.empty((2, out.shape[1]), np.uint32)  # the line of an odd number and that of an even one
    done = -1
    for place in range(out.shape[0]):
        for number in range(max(upper[place], done + 1), lower[place] + 1):
            line, narrow = pixels[number], narrower[number & 1]
            for x in range(out.shape[1]):
                narrow[x] = _average(line[left[x]], line[right[x]])
            done = number
        above, below, written = narrower[upper[place] & 1], narrower[lower[place] & 1], out[place]
        for x in range(out.shape[1]):
            written[x] = _average(above[x], below[x])


@kernel
def _average(one: np.uint32, other: np.uint32) -> np.uint32:
    """Average each byte of two words, rounded up."""
    return (one | other) - (((one ^ other) >> _ONE) & _HALVES)

"""Loops of resize.py: Pillow's resize with integers, of a square in the middle only.

Both passes, along rows and along columns, are the same loop over whole lines, which compiles to vector
instructions: for the pass along rows the image is turned, so that its columns are lines, and turned back.
"""

import numpy as np
import numpy.typing as npt

from laion_etl.core.intrinsics import WEIGHED, WEIGHT_BITS, copy_bytes, weigh_lines
from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.numba_cache import kernel

Lines = npt.NDArray[np.uint8]  # (lines, bytes)

_BITS = WEIGHT_BITS  # of the fraction of a weight, as in Pillow's Resample.c
_HALF = 1 << (_BITS - 1)
_TURNED_ROWS = 64  # that are turned at a time, so that what is read and written stays in the cache
_CHANNELS = 3
_SLACK = 16  # bytes at the end of a turned line: pixels of 3 bytes are written 4 bytes at a time


@kernel
def bicubic(x: float) -> float:
    """Pillow's bicubic filter (a = -0.5)."""
    x = abs(x)
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@kernel
def bilinear(x: float) -> float:
    """Pillow's bilinear filter."""
    return max(0.0, 1.0 - abs(x))


@kernel
def fill_weights(length: int, resized: int, skipped: int, smooth: bool, first: Ints, weights: Ints) -> None:
    """Fill in the weights of consecutive pixels of a line of `length` pixels resized to `resized`.

    Args:
        length: Pixels of the line.
        resized: Pixels that it is resized to.
        skipped: Pixels of the resized line before the first that is wanted.
        smooth: Bicubic instead of bilinear.
        first: Of each wanted pixel the first pixel of the line that counts.
        weights: (wanted, taps) with 22 bits of fraction: those of this pixel and of the next ones.
    """
    scale = length / resized
    stretch = max(scale, 1.0)
    support = (2.0 if smooth else 1.0) * stretch
    inverse = 1.0 / stretch
    raw = np.empty(weights.shape[1])
    for place in range(len(first)):
        centre = (place + skipped + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), length) - begin
        total = 0.0
        for tap in range(count):
            x = (tap + begin - centre + 0.5) * inverse
            raw[tap] = bicubic(x) if smooth else bilinear(x)
            total += raw[tap]
        first[place] = begin
        for tap in range(weights.shape[1]):
            value = raw[tap] / total * (1 << _BITS) if tap < count and total != 0.0 else 0.0
            weights[place, tap] = int(value - 0.5) if value < 0 else int(value + 0.5)


@kernel
def turn(source: Bytes, start: int, line: int, width: int, height: int, out: Bytes) -> None:
    """Write a part of an image to `out` with its columns as lines.

    Args:
        source: Pixels.
        start: Place of the first byte of the part.
        line: Bytes from one line to the next.
        width: Pixels of a line of the part.
        height: Its lines.
        out: Room for `width` lines of `height` pixels, each line with slack.
    """
    out_line = height * _CHANNELS + _SLACK
    for top in range(0, height, _TURNED_ROWS):
        rows = min(_TURNED_ROWS, height - top)
        for column in range(width):
            read = start + column * _CHANNELS + top * line
            write = column * out_line + top * _CHANNELS
            # Only of the last row the fourth byte may be missing: a loop that asks takes half as long again.
            whole = rows if read + (rows - 1) * line + 4 <= source.size else rows - 1
            for row in range(whole):
                copy_bytes(out, write + row * _CHANNELS, source, read + row * line, 4)
            if whole < rows:
                copy_bytes(out, write + whole * _CHANNELS, source, read + whole * line, _CHANNELS)


@kernel
def combine_lines(lines: Lines, width: int, base: int, first: Ints, weights: Ints, out: Lines) -> None:
    """Write weighted sums of lines to the lines of `out`.

    Args:
        lines: Lines of an image (lines, at least `width` bytes).
        width: Bytes of a line that count.
        base: Number of the first of these lines as `first` counts them.
        first: Of each line of `out` the number of the first line that counts.
        weights: (lines of `out`, taps) with 22 bits of fraction.
        out: (lines, at least `width` bytes).
    """
    stride, out_stride, most = lines.shape[1], out.shape[1], weights.shape[1]
    for place in range(len(first)):
        start, at = (first[place] - base) * stride, place * out_stride
        taps = most
        while taps and weights[place, taps - 1] == 0:  # beyond the last line that counts there may be none
            taps -= 1
        for x in range(0, width - WEIGHED + 1, WEIGHED):
            weigh_lines(out, at + x, lines, start + x, stride, weights, place * most, taps)
        if width >= WEIGHED:
            x = width - WEIGHED
            weigh_lines(out, at + x, lines, start + x, stride, weights, place * most, taps)
        else:
            for x in range(width):
                level = _HALF
                for tap in range(taps):
                    level += lines[first[place] - base + tap, x] * weights[place, tap]
                out[place, x] = min(max(level >> _BITS, 0), 255)


def turned(source: Bytes, start: int, line: int, width: int, height: int) -> Lines:
    """Return a part of an image with its columns as lines, which end with slack; arguments as of `turn`."""
    out = np.empty(width * (height * _CHANNELS + _SLACK), np.uint8)
    turn(source, start, line, width, height, out)
    return out.reshape(width, -1)

"""JPEGs by libjpeg-turbo without Pillow around it, for images that need no scaling.

Pillow uses the same library and gives the same pixels, but decodes into 4 bytes a pixel, from which they are
copied out: 0.64 ms of CPU for an image of 256 pixels where simplejpeg takes 0.35 ms. What simplejpeg does not
take without a warning (damage, truncation, CMYK) is left to Pillow, which decides; so is everything where
simplejpeg is not installed.

Refused: torchvision's decoder, whose wheels do not load with a CPU build of torch, and which brings torch
into the processes that decode hostile images; PyTurboJPEG, which needs a system library; nvJPEG, which
would decode them in the process that holds the model, outside all limits.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_PLAIN = ("YCbCr", "Gray")


def decode_whole_jpeg(
    data: bytes | memoryview, wanted: Callable[[int, int], bool]
) -> NDArray[np.uint8] | None:
    """Return RGB (height, width, 3) of a JPEG without any damage, or None.

    Args:
        data: The file.
        wanted: Whether to decode an image of this width and height.
    """
    if simplejpeg is None:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in _PLAIN or not wanted(width, height):
            return None
        found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except (ValueError, OverflowError, MemoryError):
        return None
    return found

"""Pillow on files of strangers: what it may raise on damaged ones, and its own limit of pixels taken off.

Every reader checks a limit of its own on the header, before any pixel is decoded.
"""

import struct
import zlib

from PIL import Image, UnidentifiedImageError

# By Pillow's documentation and its bug reports.
DECODE_ERRORS = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

Image.MAX_IMAGE_PIXELS = None

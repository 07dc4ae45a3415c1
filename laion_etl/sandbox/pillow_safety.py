"""Uses Pillow on untrusted files: the errors it raises on damaged ones, and its own pixel limit turned off.

Every reader checks its own limit by the header, before any pixel is decoded.
"""

import struct
import zlib

from PIL import AvifImagePlugin, Image, UnidentifiedImageError

# From Pillow's documentation and bug reports.
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
AvifImagePlugin.DEFAULT_MAX_THREADS = (
    1  # confined processes start no threads; and bytes do not depend on cores
)

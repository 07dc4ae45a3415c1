"""What the end of a JPEG is worth: repairs one that lacks only its end marker, finds one that lacks more.

Pillow refuses a JPEG without an end marker as truncated, although browsers show it. One that was cut off and
then got an end marker it takes: libjpeg makes up for missing data of a baseline JPEG with grey.
"""

import hashlib
import io
import struct

from PIL import Image

from laion_etl.download.jpeg_segments import END, segments
from laion_etl.download.jpeg_structure import has_every_coefficient

_END = b"\xff\xd9"
_TAIL_BYTES = 64
_TAILS = (bytes(_TAIL_BYTES), b"\xff\0" * _TAIL_BYTES)
_STRIP_PX = 256
_FILLING = frozenset({127, 128})  # in every channel; inks of CMYK are inverted


def with_end(data: bytes) -> bytes | None:
    """Returns a JPEG with the end marker that it lacks; None if it lacks more than that.

    The last bits of its last scan are complete if the pixels do not depend on what follows them.
    """
    if not has_every_coefficient(data):
        return None
    body = data.removesuffix(b"\xff")  # half a marker
    zeros, ones = (body + tail + _END for tail in _TAILS)
    return zeros if _pixel_digest(zeros) == _pixel_digest(ones) else None


def is_cut_off(data: bytes, image: Image.Image) -> bool:
    """Whether a JPEG has an end marker in the place of pixels; `image` is it decoded, at any size.

    Nearly always the last pixel shows that it is not. Otherwise the file is cut off if its pixels depend on
    what is put in front of its end marker.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    channels = last if isinstance(last, tuple) else (last,)
    if not _FILLING.issuperset(int(channel or 0) for channel in channels):
        return False
    try:
        end = next(start for marker, start, _ in segments(data) if marker == END)
    except (IndexError, struct.error, StopIteration):
        return False
    found = _pixel_digest(data)
    return any(_pixel_digest(data[:end] + tail + _END) != found for tail in _TAILS)


def _pixel_digest(data: bytes) -> bytes:
    digest = hashlib.sha256()
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        for top in range(0, image.height, _STRIP_PX):
            strip = image.crop((0, top, image.width, min(top + _STRIP_PX, image.height)))
            digest.update(strip.tobytes())
    return digest.digest()

"""Whether the compressed data of a PNG have all rows of its pixels (PNG, third edition, 7 and 10).

Pillow fills in rows that are missing at the end of the data with black, and refuses a file of which only the
checksum behind them (RFC 1950, 2.2) is wrong. Browsers do neither. To inflate the data takes a third of the
time of decoding, so that is done only where it may matter.
"""

import struct
import zlib
from contextlib import suppress

from PIL import Image

from laion_etl.download.png_chunks import CRITICAL, chunks, written

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_ZLIB_HEAD_BYTES = 2
_PART_BYTES = 1 << 16
# Passes of Adam7: the first column and row, and the steps from there (PNG, 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE = ((0, 0, 1, 1),)
_LAST_ROWS = 2  # one of them is in the last pass of an interlaced image


def lacks_rows(data: bytes, image: Image.Image) -> bool:
    """Whether a PNG has fewer rows than its header says; `image` is it decoded.

    Nearly always a pixel in the last rows shows that it has them all.
    """
    rows = (image.crop((0, top, image.width, top + 1)) for top in _tops_of_last_rows(image))
    return not all(any(row.tobytes()) for row in rows) and _Inflated(data).is_short


def with_right_checksum(data: bytes) -> bytes | None:
    """Return a PNG whose data have all rows, and a wrong or no checksum behind them; None for any other.

    The checksums of its chunks are right: nothing has happened to it since it was written.
    """
    found = list(chunks(data))
    if not all(one.is_intact for one in found if one.kind in CRITICAL):
        return None
    inflated = _Inflated(data)
    if not inflated.is_whole:
        return None
    pixels = written(b"IDAT", inflated.stream + inflated.checksum.to_bytes(4, "big"))
    before = [one for one in found if one.kind not in (b"IDAT", b"IEND")]
    return data[:8] + b"".join(written(one.kind, one.body) for one in before) + pixels + written(b"IEND", b"")


def _tops_of_last_rows(image: Image.Image) -> range:
    return range(max(0, image.height - _LAST_ROWS), image.height)


class _Inflated:
    """What a PNG's data are when inflated, without keeping them: never more than its pixels take."""

    def __init__(self, data: bytes) -> None:
        stream = b"".join(one.body for one in chunks(data) if one.kind == b"IDAT")
        needed, found, end = _needed_bytes(data), 0, 0
        self.checksum = zlib.adler32(b"")
        reader = zlib.decompressobj(-zlib.MAX_WBITS)
        with suppress(zlib.error):  # what follows damaged data is not there
            for begin in range(_ZLIB_HEAD_BYTES, len(stream), _PART_BYTES):
                left = stream[begin : begin + _PART_BYTES]
                while left and found < needed + 1 and not reader.eof:
                    part = reader.decompress(left, _PART_BYTES)
                    found, left = found + len(part), reader.unconsumed_tail
                    self.checksum = zlib.adler32(part, self.checksum)
                if reader.eof:
                    end = min(begin + _PART_BYTES, len(stream)) - len(reader.unused_data)
                    break
        self.is_short = found < needed
        self.is_whole = found == needed and reader.eof
        self.stream = stream[:end]


def _needed_bytes(data: bytes) -> int:
    """Return how many bytes the rows of a PNG take, each with its kind of filter."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS.get(colour, 0)
    needed = 0
    for left, top, across, down in _ADAM7 if interlaced else _WHOLE:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            needed += rows * (1 + -(-columns * bits // 8))
    return needed

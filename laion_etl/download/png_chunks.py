"""The chunks of a PNG file."""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from laion_etl.download.declared_colours import profile_of_png

MAX_PROFILE_BYTES = 1 << 24  # of a colour profile when decompressed; a larger one is ignored

_MAX_CHUNKS = 100_000
_MAX_PROFILE_NAME = 79
# What the decoder needs of a PNG: pixels, colours, orientation, and whether it is animated.
CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_USEFUL = frozenset({b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL"})
_ANIMATION = frozenset({b"acTL", b"fcTL"})
_COLOURS = frozenset({b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM"})
_LENGTHS = {b"acTL": 8, b"fcTL": 26}
_COLOURS_BEFORE = frozenset({b"PLTE", b"IDAT"})  # where colours have to be declared
_KEY_LENGTHS = {b"\0": 2, b"\2": 6}  # of the transparent colour, by colour type: grey, RGB
_INDEXED = b"\3"
_MAX_PALETTE = 3 * 256
_HEADER_BYTES = 13
_METHODS = slice(10, 12)  # of compression and filtering, in the header


class Chunk(NamedTuple):
    """A chunk: its kind, contents and checksum."""

    kind: bytes
    body: bytes
    check: bytes

    @property
    def is_intact(self) -> bool:
        """Whether the checksum is right; to find out takes a pass over the contents."""
        return zlib.crc32(self.body, zlib.crc32(self.kind)) == int.from_bytes(self.check, "big")


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield each chunk of a PNG up to its end."""
    place = 8
    for _ in range(_MAX_CHUNKS):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        end = place + 8 + length
        if len(body) < length or len(data) < end + 4:
            return
        yield Chunk(kind, body, data[end : end + 4])
        if kind == b"IEND":
            return
        place = end + 4


def without_extras(data: bytes) -> bytes:
    """Return a PNG without the chunks that its pixels do not need, nor those that are damaged.

    A comment that is damaged, or larger than Pillow allows, does not make the image unreadable, nor does a
    profile or a transparent colour that cannot be read or stands in a wrong place: browsers ignore them.
    Colours that are declared without a profile get one. Raises ValueError for a chunk in front of the pixels
    without which, its name says, the image cannot be understood, for a palette that is missing, damaged or
    there twice, for pixels in two places, and for another method of compression.
    """
    kept, colour_type = [data[:8]], data[25:26]
    found = in_place(chunks(data), colour_type)
    profile = profile_of_png({chunk.kind: chunk.body for chunk in found if chunk.is_intact})
    # Without both, a file is the image in it, as the specification of APNG says.
    frames = (chunk for chunk in found if chunk.kind in _ANIMATION)
    animates = {chunk.kind for chunk in frames if _is_useful(chunk, colour_type)} == _ANIMATION
    has_pixels = False
    for chunk in found:
        kind, body, check = chunk
        if kind in _ANIMATION and not animates:
            continue
        if kind == b"iCCP" and profile is not None:
            continue
        if kind[:1].isupper() and kind not in CRITICAL and not has_pixels:
            raise ValueError(f"unknown chunk {kind!r}")
        has_pixels = has_pixels or kind == b"IDAT"
        if kind in CRITICAL or _is_useful(chunk, colour_type):
            kept += (struct.pack(">I", len(body)), kind, body, check)  # a wrong sum of pixels stays wrong
        if kind == b"IHDR" and profile is not None:
            kept.append(written(b"iCCP", b"declared\0\0" + zlib.compress(profile)))
    return b"".join(kept)


def in_place(found: Iterable[Chunk], colour_type: bytes) -> list[Chunk]:
    """Return the chunks without those that libpng ignores for their place, or because there was one before.

    Raises ValueError for a palette that is missing in front of the pixels, damaged or there twice, for a
    second header or one of another method, and for pixels behind a chunk that follows pixels.
    """
    kept: list[Chunk] = []
    sizes: dict[bytes, int] = {}
    previous, has_exif = b"", False
    for chunk in found:
        kind, size = chunk.kind, len(chunk.body)
        if kind == b"IHDR" and (size != _HEADER_BYTES or chunk.body[_METHODS] != b"\0\0"):
            raise ValueError("header of another length, or unknown method of compression or filtering")
        if kind == b"IDAT" and kind in sizes and previous != b"IDAT":
            raise ValueError("pixels in two places")
        previous = kind
        if kind in (b"IHDR", b"PLTE") and kind in sizes:
            raise ValueError(f"two chunks {kind!r}")
        if colour_type == _INDEXED and not _has_palette(kind, size, sizes):
            raise ValueError("no palette")
        is_second = kind in sizes
        sizes.setdefault(kind, size)
        if kind in _COLOURS and (is_second or not _COLOURS_BEFORE.isdisjoint(sizes)):
            continue
        if kind == b"tRNS" and (is_second or b"IDAT" in sizes):
            continue
        if kind == b"eXIf" and chunk.is_intact:
            if has_exif:
                continue
            has_exif = True
        # Only the first profile is read: hundreds would all be decompressed.
        if kind == b"iCCP" and not (chunk.is_intact and profile_of(chunk.body)):
            continue
        if kind == b"tRNS" and colour_type == _INDEXED and 3 * size > sizes.get(b"PLTE", 0):
            continue  # more than there are colours
        kept.append(chunk)
    return kept


def _has_palette(kind: bytes, size: int, sizes: Mapping[bytes, int]) -> bool:
    """Whether a chunk of an indexed image is neither pixels without a palette nor a damaged palette."""
    if kind == b"PLTE":
        return b"IDAT" not in sizes and size % 3 == 0 and 0 < size <= _MAX_PALETTE
    return kind != b"IDAT" or b"PLTE" in sizes


def written(kind: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def profile_of(body: bytes, max_bytes: int = MAX_PROFILE_BYTES) -> bytes | None:
    """Return the colour profile in the body of an iCCP chunk; None if it is damaged or too large."""
    name, _, rest = body.partition(b"\0")
    if not 1 <= len(name) <= _MAX_PROFILE_NAME or rest[:1] != b"\0":
        return None
    reader = zlib.decompressobj()
    try:
        profile = reader.decompress(rest[1:], max_bytes)
    except zlib.error:
        return None
    return None if reader.unconsumed_tail or not reader.eof else profile


def _is_useful(chunk: Chunk, colour_type: bytes) -> bool:
    return chunk.kind in _USEFUL and chunk.is_intact and _is_sound(chunk.kind, chunk.body, colour_type)


def _is_sound(kind: bytes, body: bytes, colour_type: bytes) -> bool:
    if kind == b"tRNS":
        if colour_type == _INDEXED:
            return 1 <= len(body) <= 256
        return len(body) == _KEY_LENGTHS.get(colour_type, -1)
    return len(body) == _LENGTHS.get(kind, len(body))

"""The segments of a JPEG file: where each begins and ends, without a decoder."""

import re
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

_MAX_SEGMENTS = 1_000
MAX_SCANS = 100  # encoders write about ten; each is a pass over all coefficients of the image
_SCANS = re.compile(rb"\xff\xda")  # finds FF by memchr: a third of the time of bytes.count

SCAN, END, COMMENT = 0xDA, 0xD9, 0xFE
_NOT_SOF = frozenset({0xC4, 0xC8, 0xCC})  # of the markers 0xC0 to 0xCF
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # markers that have no length
# What decoders read of metadata, and the fewest bytes of it: JFIF, Exif, a profile, Adobe's transformation.
_USEFUL = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0", 6), 0xE2: (b"ICC_PROFILE\0", 15), 0xEE: (b"Adobe", 12)}
_PREVIEW, _MAX_PREVIEWS = b"\xff\xd8\xff", 8  # JPEG files within metadata
_HEAD_BYTES = 4  # of a segment: marker and length
# In the data of a scan FF is followed by 00 or by a restart marker; those, FF 01 and FF D8 have no length.
_FILL_BYTES = re.compile(rb"\xff+(?=\xff)")
_NEXT_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")

Segment = tuple[int, int, int]
_LAST: list[tuple[bytes, list[Segment]]] = [(b"", [])]  # the file that was walked last, and its segments


def segments(data: bytes) -> Iterator[Segment]:
    """Yields marker, start and end of the contents of each segment up to the end of the first image.

    It ends early where something else stands in the place of a segment. Raises IndexError or struct.error
    where the file is cut off.
    """
    place = 2
    for _ in range(_MAX_SEGMENTS):
        if fill := _FILL_BYTES.match(data, place):
            place = fill.end()
        marker = data[place + 1]
        if data[place] != 0xFF or marker in _ALONE:
            return
        if marker == END:
            yield END, place, place + 2
            return
        (length,) = struct.unpack_from(">H", data, place + 2)
        yield marker, place + 4, place + 2 + length
        place += 2 + length
        if marker == SCAN:
            found = _NEXT_SEGMENT.search(data, place)
            if found is None:
                return
            place = found.start()


def walked(data: bytes) -> list[Segment]:
    """Returns the segments of a file as `segments` yields them, without an error where it is cut off.

    Those of the file that was looked at last are kept: its judges look at it one after another, and finding
    the end of its pixels takes as long as all else that they do.
    """
    [(of, found)] = _LAST
    if of is not data:
        found = _walk(data)
        _LAST[0] = data, found
    return found


def _walk(data: bytes) -> list[Segment]:
    found = []
    with suppress(IndexError, struct.error):
        for segment in segments(data):
            found.append(segment)
    return found


def is_frame(marker: int) -> bool:
    """Whether a segment with this marker has width and height."""
    return 0xC0 <= marker <= 0xCF and marker not in _NOT_SOF


def is_application(marker: int) -> bool:
    """Whether a segment with this marker may have metadata: APP0 to APP15, and comments."""
    return 0xE0 <= marker <= 0xEF or marker == COMMENT


def too_many_scans(data: bytes) -> bool:
    """Whether a JPEG has more scans than encoders write; 60 kB of them keep a decoder busy for seconds.

    Only its first image counts: a video behind it (a motion photo) has the bytes of the marker by chance.
    """
    if next(islice(_SCANS.finditer(data), MAX_SCANS, None), None) is None:
        return False
    scans, found = 0, _NEXT_SEGMENT.search(data, 2)
    while found is not None and scans <= MAX_SCANS and data[found.end() - 1] != END:
        scans += data[found.end() - 1] == SCAN
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        found = _NEXT_SEGMENT.search(data, found.end() + length)
    return scans > MAX_SCANS


def outside_scans(data: bytes) -> bytes:
    """Returns a JPEG without the entropy-coded data of its first image, which are pixels only.

    That is 1% of a photograph. Returns the file as it is where its segments do not lead to its end marker.
    """
    return _without_scans(data, walked(data))


def without_extras(data: bytes) -> bytes:
    """Returns a JPEG without the metadata that its pixels do not need, nor those that are too short.

    Browsers ignore a segment of JFIF, Adobe, Photoshop or a profile that is cut off; Pillow refuses the file.
    """
    kept, begin = [data[:2]], 2
    for marker, start, end in walked(data):
        if marker == SCAN:
            break
        if not is_application(marker) or _is_useful(marker, data[start:end]):
            kept.append(data[begin:end])
        begin = end
    return b"".join([*kept, data[begin:]])


def _is_useful(marker: int, body: bytes) -> bool:
    name, least = _USEFUL.get(marker, (b"", sys.maxsize))
    return len(body) >= least and body.startswith(name)


def pixels_taken_out(metadata: bytes) -> bytes:
    """Returns metadata without the entropy-coded data of the JPEG files in them, such as a thumbnail."""
    parts: list[bytes] = []
    rest = metadata
    while len(parts) < 2 * _MAX_PREVIEWS and (place := rest.find(_PREVIEW)) >= 0:
        preview = rest[place:]
        found = _walk(preview)
        end = found[-1][2] if found and found[-1][0] == END else len(_PREVIEW)
        parts += [rest[:place], _without_scans(preview[:end], found)]
        rest = preview[end:]
    return b"".join([*parts, rest])


def _without_scans(data: bytes, found: list[Segment]) -> bytes:
    if not found or found[-1][0] != END:
        return data
    parts, begin, pixels = [], 0, 0  # where the current part begins, and where the pixels behind it do
    for marker, start, end in found:
        if pixels:
            parts.append(data[begin:pixels])
            begin = start if marker == END else start - _HEAD_BYTES
        pixels = end if marker == SCAN else 0
    return b"".join([*parts, data[begin:]])

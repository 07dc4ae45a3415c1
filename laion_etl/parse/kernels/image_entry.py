"""Reads an entry of the extractor's JSON: the spans of an image's url, alt and title, or of a link's."""

import numpy as np

from laion_etl.core.caption_source import CODES, CaptionSource
from laion_etl.core.intrinsics import LANES, below_mask, equal_mask, lowest_bit
from laion_etl.core.kernels import Bytes, constant, equals
from laion_etl.core.numba_cache import borrowing_kernel
from laion_etl.parse.kernels.spans import Links

_PATH = constant(b'{"path":')
_FIRST = constant(b'"Links":[')
IMAGE_PATH = constant(b'"IMG@/src"')
LINK_PATH = constant(b'"A@/href"')

_PATH_NAME = constant(b"path")
_TEXT = constant(b"text")
_TITLE = constant(b"title")
_ENDINGS = tuple(constant(ending) for ending in (b".jpg", b".jpeg", b".png", b".webp"))
_ONE = np.uint64(1)
_ALT, _LINK = CODES[CaptionSource.ALT], CODES[CaptionSource.LINK]


@borrowing_kernel
def read_entry(data: Bytes, sign: int, end: int, record: int, links: Links, row: int) -> int:
    """Reads the image entry whose path value begins at `sign`; returns its end, -1 if it is irregular."""
    if row == links.record.size or end - sign < IMAGE_PATH.size or not equals(data, sign, IMAGE_PATH):
        return -1
    if not _begins_entry(data, sign):
        return -1
    links.source[row] = _ALT
    return _read_values(data, sign + IMAGE_PATH.size, end, record, links, row)


@borrowing_kernel
def read_link(data: Bytes, sign: int, end: int, record: int, links: Links, row: int) -> int:
    """Reads the entry of a link like `read_entry`; it is irregular if its url has JSON escapes, too."""
    if row == links.record.size or end - sign < LINK_PATH.size or not equals(data, sign, LINK_PATH):
        return -1
    if not _begins_entry(data, sign):
        return -1
    links.source[row] = _LINK
    position = _read_values(data, sign + LINK_PATH.size, end, record, links, row)
    return -1 if links.escaped[row] & 1 else position


@borrowing_kernel
def _begins_entry(data: Bytes, sign: int) -> bool:
    """Whether the path value at `sign` is the first of an entry that follows another one, or is the first
    of "Links": anything else could be part of another object.
    """
    start = sign - _PATH.size
    if not equals(data, start, _PATH):
        return False
    if data[start - 1] == 44:  # a comma
        return bool(data[start - 2] == 125)  # }
    return equals(data, start - _FIRST.size, _FIRST)


@borrowing_kernel
def names_image(data: Bytes, start: int, end: int) -> bool:
    """Whether the path of a URL ends like an image that is downloaded, by the rule of image_links.py."""
    while start < end and data[start] <= 32:
        start += 1
    stop = start
    while stop < end and data[stop] != 63 and data[stop] != 35:  # ?#
        stop += 1
    while stop > start and data[stop - 1] <= 32:
        stop -= 1
    if not _ends_as_image(data, start, stop):
        return False
    position = stop - 1
    while position >= start and data[position] != 47:
        if data[position] == 58:  # a colon, as in File:Name.jpg
            return False
        position -= 1
    return True


@borrowing_kernel
def _ends_as_image(data: Bytes, start: int, stop: int) -> bool:
    return (
        _ends_with(data, start, stop, _ENDINGS[0])
        or _ends_with(data, start, stop, _ENDINGS[1])
        or _ends_with(data, start, stop, _ENDINGS[2])
        or _ends_with(data, start, stop, _ENDINGS[3])
    )


@borrowing_kernel
def _ends_with(data: Bytes, start: int, stop: int, ending: Bytes) -> bool:
    """Whether a span ends so, in any case."""
    first = stop - ending.size
    if first < start:
        return False
    for i in range(ending.size):
        byte = data[first + i]
        if byte != ending[i] and not (65 <= byte <= 90 and byte + 32 == ending[i]):
            return False
    return True


@borrowing_kernel
def _read_values(data: Bytes, position: int, end: int, record: int, links: Links, row: int) -> int:
    """Reads the entry from the end of its path on; returns its end, -1 if it is irregular."""
    links.record[row] = record
    links.url_start[row], links.alt_start[row], links.title_start[row] = -1, -1, -1
    links.url_end[row], links.alt_end[row], links.title_end[row] = -1, -1, -1
    links.text_start[row], links.text_end[row] = -1, -1
    links.escaped[row] = 0
    while position + 1 < end and data[position] == 44 and data[position + 1] == 34:  # ,"
        name = position + 2
        name_end, has_escapes = string_end(data, name, end)
        if name_end < 0 or name_end + 2 >= end or data[name_end + 1] != 58 or data[name_end + 2] != 34:
            return -1  # the value is not a string
        if has_escapes or (name_end - name == _PATH_NAME.size and equals(data, name, _PATH_NAME)):
            return -1  # the name may be another one, or the entry is of another kind
        value = name_end + 3
        value_end, escapes = string_end(data, value, end)
        if value_end < 0:
            return -1
        _store(data, name, name_end, value, value_end, escapes, links, row)
        position = value_end + 1
    if position >= end or data[position] != 125:
        return -1
    return position + 1


@borrowing_kernel
def string_end(data: Bytes, start: int, end: int) -> tuple[int, bool]:
    """Returns where the quote that ends a JSON string is, -1 if there is none, and whether it has escapes."""
    escapes = False
    position = start  # of the next character that is not escaped
    for block in range(start, end, LANES):
        signs = equal_mask(data, block, 34) | equal_mask(data, block, 92) | below_mask(data, block, 32)
        while signs:
            sign = block + lowest_bit(signs)
            signs &= signs - _ONE
            if sign >= end:
                return -1, False
            if sign < position:
                continue
            if data[sign] == 34:
                return sign, escapes
            if data[sign] != 92:
                return -1, False
            escapes = True
            position = sign + 2
    return -1, False


@borrowing_kernel
def _store(
    data: Bytes, name: int, name_end: int, value: int, value_end: int, escapes: bool, links: Links, row: int
) -> None:
    """Stores the span of a value of a known name; a later one of the same name wins, as in JSON parsers.

    The extractor writes no text for an image and no alt for a link: such values are not stored.
    """
    length = name_end - name
    if length == 3 and data[name] == 117 and data[name + 1] == 114 and data[name + 2] == 108:
        links.url_start[row], links.url_end[row], bit = value, value_end, 1
    elif length == 4 and links.source[row] == _LINK and equals(data, name, _TEXT):
        links.text_start[row], links.text_end[row], bit = value, value_end, 8
    elif (
        length == 3
        and links.source[row] == _ALT
        and data[name] == 97
        and data[name + 1] == 108
        and data[name + 2] == 116
    ):
        links.alt_start[row], links.alt_end[row], bit = value, value_end, 2
    elif length == 5 and equals(data, name, _TITLE):
        links.title_start[row], links.title_end[row], bit = value, value_end, 4
    else:
        return
    links.escaped[row] = (links.escaped[row] & ~bit) | (bit if escapes else 0)

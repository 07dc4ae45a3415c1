"""Extracts the spans of image links from the records of a batch without parsing their JSON as a whole.

The extractor writes compact JSON in which a quote inside a string is always escaped, so `{"path":"IMG@/src"`
can only be the beginning of an image entry; what follows is parsed as a JSON object. A page is left to Python
(state ODD) if anything deviates from the extractor's form, or if it needs the whole JSON: for a licence, or a
base that is ambiguous.
"""

import numpy as np

from laion_etl.core.kernels import HIGHS, ONES, Bytes, Hashes, constant, equals
from laion_etl.core.numba_cache import kernel
from laion_etl.parse.kernels.image_entry import IMAGE_PATH, names_image, read_entry, read_link, string_end
from laion_etl.parse.kernels.record_head import MAX_PAGE_URL_BYTES, read_head
from laion_etl.parse.kernels.spans import Links, Records

PAGE, NOT_A_PAGE, ODD = 0, 1, 2  # states of a record

LINK_START = b'{"path":"A@/href"'
LINKS, PREVIEWS = 1, 2  # bits of what is wanted besides images

_HTML = constant(b'"HTML-Metadata":{')

# The scan of a page stops at an image, or at a sign that more of the JSON is needed. Each is represented by
# two to four bytes that are rare elsewhere; eight places are compared at once in 64-bit words (the zero-byte
# test of Hacker's Delight 6-1), which is ten times as fast as a skip table. Within a block that has one, its
# second byte, the rarest, is searched for; that of Creative Commons is searched for as a whole.
_SIGNS = (b"G@", b'"Bas', b"mons")  # and `"A@` of links, where they are wanted
_KEYS = b"@B"
_KEY, _MAY_BE_LICENCE = 1, 2  # bits of what a block has
_ANY_CASE = np.uint64(0xDFDFDFDFDFDFDFDF)
_BLOCK_WORDS = 8


def _repeated(byte: int) -> np.uint64:
    return np.uint64(byte * int(ONES))


_IMAGE0, _IMAGE1 = (_repeated(byte) for byte in _SIGNS[0])
_BASE0, _BASE1, _BASE2, _BASE3 = (_repeated(byte) for byte in _SIGNS[1])
_COMMONS0, _COMMONS1, _COMMONS2, _COMMONS3 = (_repeated(byte) for byte in _SIGNS[2])
_BASE = constant(b'"Base":"')
_BASE_NAME = constant(b'"Base"')
_COMMONS = constant(b"commons")
_HEADERS = constant(b'"Headers":')
_LINK0, _LINK1, _LINK2 = (_repeated(byte) for byte in b'"A@')
_PREVIEW = constant(b"og:image:alt")


def _skip_table(name: Bytes) -> Bytes:
    """Returns how far the search for a name may move per last byte of the window (Horspool 1980)."""
    skip = np.full(256, name.size, np.uint8)
    for i in range(name.size):
        skip[name[i]] = name.size - 1 - i
    return skip


def _key_table() -> Bytes:
    table = np.zeros(256, np.uint8)
    table[list(_KEYS)] = 1
    return table


_IS_KEY = _key_table()
_NAME_BYTES = 15  # "HTML-Metadata" with its quotes
_NAME_SKIP = _skip_table(_HTML[:_NAME_BYTES])
_PREVIEW_SKIP = _skip_table(_PREVIEW)


@kernel
def cut_links(data: Bytes, words: Hashes, records: Records, links: Links, wanted: int) -> int:
    """Fills in states and page URLs of records and the links of PAGE records; returns the number of links.

    `wanted`: 0 for images alone, or with them LINKS to image files, or PREVIEWS (og:image).
    """
    count = 0
    for record in range(records.start.size):
        end = records.end[record]
        body, is_metadata = read_head(data, words, records, record)
        if body < 0:
            records.state[record] = ODD
            continue
        if not is_metadata:
            records.state[record] = NOT_A_PAGE
            continue
        while end > body and (data[end - 1] == 10 or data[end - 1] == 13):
            end -= 1
        if end == body or data[end - 1] != 125:
            records.state[record] = ODD
            continue
        html = _find_html(data, body, end)
        if html < 0:
            records.state[record] = NOT_A_PAGE if html == -1 else ODD
            continue
        if wanted & PREVIEWS and _has_preview(data, html, end):
            records.state[record] = ODD
            continue
        found = _scan_page(data, words, (html, end), records, record, links, count, wanted)
        if found < 0 or records.url_end[record] <= records.url_start[record]:
            records.state[record] = ODD
        else:
            records.state[record] = PAGE
            count = found
    return count


@kernel
def _find_html(data: Bytes, start: int, end: int) -> int:
    """Returns the position after `"HTML-Metadata":{`; -1 without the name, -2 if its form is different."""
    position = start + _NAME_BYTES - 1
    while position < end:
        skip = int(_NAME_SKIP[data[position]])  # run as Python, a sum of 8 bits would overflow
        if skip:
            position += skip
            continue
        first = position - _NAME_BYTES + 1
        if equals(data, first, _HTML[:_NAME_BYTES]):
            if first + _HTML.size <= end and equals(data, first, _HTML):
                return first + _HTML.size
            return -2
        position += 1
    return -1


@kernel
def _has_preview(data: Bytes, start: int, end: int) -> bool:
    """Whether the JSON of a page has the name og:image:alt."""
    position = start + _PREVIEW.size - 1
    while position < end:
        skip = int(_PREVIEW_SKIP[data[position]])
        if skip:
            position += skip
        elif equals(data, position - _PREVIEW.size + 1, _PREVIEW):
            return True
        else:
            position += 1
    return False


@kernel
def _scan_page(
    data: Bytes,
    words: Hashes,
    span: tuple[int, int],
    records: Records,
    record: int,
    links: Links,
    count: int,
    wanted: int,
) -> int:
    """Adds the image links of a page; returns the new count, or -1 if the page needs its whole JSON."""
    start, end = span
    position = start
    block_bytes = 8 * _BLOCK_WORDS
    for block in range(start // block_bytes, (end - 1) // block_bytes + 1):
        signs = _signs(words, block * _BLOCK_WORDS)
        if signs & _MAY_BE_LICENCE:
            first = max(position, block * block_bytes)
            if _names_commons(data, span, first, (block + 1) * block_bytes):
                return -1
        if not signs & _KEY and not (wanted & LINKS and _has_link(words, block * _BLOCK_WORDS)):
            continue
        stop = min((block + 1) * block_bytes + 2, end - IMAGE_PATH.size)
        position = _next_key(data, max(position, block * block_bytes), stop)
        while position < stop:
            byte = data[position]
            if byte == 64 and data[position - 1] == 71 and data[position - 2] == 77:  # MG@
                position = read_entry(data, position - 4, end, record, links, count)
                count += 1
            elif wanted & LINKS and byte == 64 and data[position - 1] == 65 and data[position - 2] == 34:
                position = read_link(data, position - 2, end, record, links, count)
                if position > 0 and names_image(data, links.url_start[count], links.url_end[count]):
                    count += 1
            elif byte == 66 and equals(data, position - 1, _BASE):
                position = _read_base(data, span, position - 1 + _BASE.size, records, record)
            elif byte == 66 and _is_odd_name(data, position - 1):
                return -1
            else:
                position += 1
            if position < 0:
                return -1
            position = _next_key(data, position, stop)
    return count


@kernel
def _next_key(data: Bytes, start: int, stop: int) -> int:
    """Returns where the next key byte of a sign is; `stop` or beyond if there is none before."""
    position, end, one = np.uint64(start), np.uint64(stop), np.uint64(1)
    while position < end and not _IS_KEY[data[position]]:
        position += one
    return int(np.int64(position))


@kernel
def _is_odd_name(data: Bytes, start: int) -> bool:
    """Whether the name "Base" begins here, and not that text as a value."""
    if not equals(data, start, _BASE_NAME):
        return False
    after = data[start + _BASE_NAME.size]
    return bool(after != 44 and after != 125 and after != 93)  # ,}]


@kernel
def _read_base(data: Bytes, span: tuple[int, int], start: int, records: Records, record: int) -> int:
    """Stores the span of the base; returns where it ends, or -1 if the whole JSON is needed to be sure.

    That is the case for a second base, and if HTTP headers, whose names the server chooses, follow the HTML.
    """
    end = span[1]
    stop, escapes = string_end(data, start, end)
    if stop < 0 or escapes or records.base_end[record] or stop - start > MAX_PAGE_URL_BYTES:
        return -1
    for position in range(span[0], end - _HEADERS.size):
        if data[position + 1] == 72 and equals(data, position, _HEADERS):
            return -1
    records.base_start[record], records.base_end[record] = start, stop
    return stop + 1


@kernel
def _signs(words: Hashes, first: int) -> int:
    """Returns which signs may begin in a block of words, as bits."""
    found, commons = np.uint64(0), np.uint64(0)
    for i in range(first, first + _BLOCK_WORDS):
        word, after = words[i], words[i + 1]
        second = (word >> np.uint64(8)) | (after << np.uint64(56))
        third = (word >> np.uint64(16)) | (after << np.uint64(48))
        fourth = (word >> np.uint64(24)) | (after << np.uint64(40))
        x = (word ^ _IMAGE0) | (second ^ _IMAGE1)
        found |= (x - ONES) & ~x
        x = (word ^ _BASE0) | (second ^ _BASE1) | (third ^ _BASE2) | (fourth ^ _BASE3)
        found |= (x - ONES) & ~x
        # In any case: the bit that tells capitals from small letters is ignored.
        x = (word ^ _COMMONS0) | (second ^ _COMMONS1) | (third ^ _COMMONS2) | (fourth ^ _COMMONS3)
        x &= _ANY_CASE
        commons |= (x - ONES) & ~x
    return int(_KEY * (found & HIGHS != 0) + _MAY_BE_LICENCE * (commons & HIGHS != 0))


@kernel
def _has_link(words: Hashes, first: int) -> bool:
    """Whether the sign of a link begins in a block of words."""
    found = np.uint64(0)
    for i in range(first, first + _BLOCK_WORDS):
        word, after = words[i], words[i + 1]
        second = (word >> np.uint64(8)) | (after << np.uint64(56))
        third = (word >> np.uint64(16)) | (after << np.uint64(48))
        x = (word ^ _LINK0) | (second ^ _LINK1) | (third ^ _LINK2)
        found |= (x - ONES) & ~x
    return bool(found & HIGHS != 0)


@kernel
def _names_commons(data: Bytes, span: tuple[int, int], first: int, stop: int) -> bool:
    """Whether the host of Creative Commons may be in a page, in any case, with its "mons" in these bytes.

    The rule is that of `names_commons` in licence.py: what browsers take for a letter or a dot of it.
    """
    start, end = span
    for position in range(max(first, start + 9), min(stop, end - 4)):
        name = position + 4 - _COMMONS.size
        if data[position] | 32 != 109 or not _has_name(data, name, _COMMONS):
            continue
        after = data[position + 4]
        if after != 46 and after != 37 and after != 92 and after < 128:  # . % or a backslash
            continue
        before = data[name - 1]
        if (
            before | 32 == 101  # e
            or before >= 128
            or data[name - 2] == 92  # a backslash
            or (data[name - 6] == 92 and data[name - 5] == 117)  # a backslash, u
            or data[name - 3] == 37  # %
        ):
            return True
    return False


@kernel
def _has_name(data: Bytes, start: int, name: Bytes) -> bool:
    """Whether a name, which is given in lower case, is at a place in any case."""
    for i in range(name.size):
        byte = data[start + i]
        if byte != name[i] and not (65 <= byte <= 90 and byte + 32 == name[i]):
            return False
    return True

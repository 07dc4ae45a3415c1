"""Extracts the spans of image links from the records of a batch without parsing their JSON as a whole.

The extractor writes compact JSON in which a quote inside a string is always escaped, so `{"path":"IMG@/src"`
can only be the beginning of an image entry; what follows is parsed as a JSON object. A page is left to Python
(state ODD) if anything deviates from the extractor's form, or if it needs the whole JSON: for a licence, or a
base that is ambiguous.
"""

from typing import NamedTuple

import numpy as np

from laion_etl.core.kernels import Bytes, Hashes, Ints, constant, equals
from laion_etl.core.numba_cache import kernel

PAGE, NOT_A_PAGE, ODD = 0, 1, 2  # states of a record

MAX_PAGE_URL_BYTES = 8192  # pages with a longer URL are left to Python, which drops them

IMAGE_START = b'{"path":"IMG@/src"'


class Records(NamedTuple):
    """One row per record (in: spans; out: state, page URL, base as in the page, empty if there is none)."""

    start: Ints
    end: Ints
    state: Ints
    url_start: Ints
    url_end: Ints
    base_start: Ints
    base_end: Ints


class Links(NamedTuple):
    """One row per image link: its record and the spans of its JSON strings; start -1 if one is missing.

    `escaped` has bit 1 for a url, 2 for an alt and 4 for a title that contains a JSON escape.
    """

    record: Ints
    url_start: Ints
    url_end: Ints
    alt_start: Ints
    alt_end: Ints
    title_start: Ints
    title_end: Ints
    escaped: Ints


def new_records(starts: Ints, ends: Ints) -> Records:
    """Returns rows for the records at these spans, with nothing found yet."""
    return Records(starts, ends, *(np.zeros(starts.size, np.int32) for _ in range(5)))


def new_links(rows: int) -> Links:
    """Allocates rows for links."""
    return Links(*(np.empty(rows, np.int32) for _ in Links._fields))


_TYPE = constant(b"warc-type:")
_METADATA = constant(b"metadata")
_TARGET = constant(b"warc-target-uri:")
_LENGTH = constant(b"content-length:")
_WARC = constant(b"WARC/1.")
_HTML = constant(b'"HTML-Metadata":{')
_PATH = constant(b'{"path":')
_IMAGE = constant(b'"IMG@/src"')

# The scan of a page stops at an image, or at a sign that more of the JSON is needed. Each is represented by
# two to four bytes that are rare elsewhere; eight places are compared at once in 64-bit words (the zero-byte
# test of Hacker's Delight 6-1), which is ten times as fast as a skip table. Within a block that has one, its
# second or third byte, the rarest, is searched for.
_SIGNS = (b"G@", b'"Bas', b"ns.o")
_KEYS = b"@B."
_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_BLOCK_WORDS = 8


def _repeated(byte: int) -> np.uint64:
    return np.uint64(byte * int(_ONES))


_IMAGE0, _IMAGE1 = (_repeated(byte) for byte in _SIGNS[0])
_BASE0, _BASE1, _BASE2, _BASE3 = (_repeated(byte) for byte in _SIGNS[1])
_COMMONS0, _COMMONS1, _COMMONS2, _COMMONS3 = (_repeated(byte) for byte in _SIGNS[2])
_BASE = constant(b'"Base":"')
_COMMONS = constant(b"creativecommons.org")
_HEADERS = constant(b'"Headers":')


def _name_skip_table() -> Bytes:
    """Returns how far the search for the HTML name may move per last byte of the window (Horspool 1980)."""
    skip = np.full(256, _NAME_BYTES, np.uint8)
    for i in range(_NAME_BYTES):
        skip[_HTML[i]] = _NAME_BYTES - 1 - i
    return skip


def _key_table() -> Bytes:
    table = np.zeros(256, np.uint8)
    table[list(_KEYS)] = 1
    return table


_IS_KEY = _key_table()


def _string_table() -> Bytes:
    """Returns what each byte means in a JSON string: 0 itself, 1 its end, 2 an escape, 3 not allowed."""
    table = np.zeros(256, np.uint8)
    table[:32] = 3
    table[34], table[92] = 1, 2
    return table


_STRING = _string_table()
_NAME_BYTES = 15  # "HTML-Metadata" with its quotes
_NAME_SKIP = _name_skip_table()


@kernel
def cut_links(data: Bytes, words: Hashes, records: Records, links: Links) -> int:
    """Fills in states and page URLs of records and the links of PAGE records; returns the number of links."""
    count = 0
    for record in range(records.start.size):
        end = records.end[record]
        body, is_metadata = _read_head(data, records, record)
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
        found = _scan_page(data, words, (html, end), records, record, links, count)
        if found < 0 or records.url_end[record] <= records.url_start[record]:
            records.state[record] = ODD
        else:
            records.state[record] = PAGE
            count = found
    return count


@kernel
def _read_head(data: Bytes, records: Records, record: int) -> tuple[int, bool]:
    """Returns where the payload begins, -1 if the head is irregular, and whether the type is metadata."""
    position, end = records.start[record], records.end[record]
    is_metadata, typed, length = False, False, -1
    if end - position < 16 or not equals(data, position, _WARC):
        return -1, False
    while True:
        line = position
        while position < end and data[position] != 10:
            position += 1
        if position == end:
            return -1, False
        stop = position - 1 if position > line and data[position - 1] == 13 else position
        position += 1
        if stop == line:
            break
        if _names(data, line, stop, _TYPE):
            value, stop = _trimmed(data, line + _TYPE.size, stop)
            if typed:
                return -1, False
            typed = True
            is_metadata = stop - value == _METADATA.size and _names(data, value, stop, _METADATA)
        elif _names(data, line, stop, _TARGET):
            value, stop = _trimmed(data, line + _TARGET.size, stop)
            if not _is_plain_url(data, value, stop):
                return -1, False
            records.url_start[record], records.url_end[record] = value, stop
        elif _names(data, line, stop, _LENGTH):
            value, stop = _trimmed(data, line + _LENGTH.size, stop)
            length = _number(data, value, stop)
    if length < 0 or not typed or position + length > end or end - position - length > 8:
        return -1, False
    for i in range(position + length, end):
        if data[i] != 10 and data[i] != 13:
            return -1, False
    return position, is_metadata


@kernel
def _names(data: Bytes, line: int, stop: int, name: Bytes) -> bool:
    """Whether a header line begins with a name, which is given in lower case, in any case."""
    if stop - line < name.size:
        return False
    for i in range(name.size):
        byte = data[line + i]
        if byte != name[i] and not (65 <= byte <= 90 and byte + 32 == name[i]):
            return False
    return True


@kernel
def _trimmed(data: Bytes, start: int, end: int) -> tuple[int, int]:
    while start < end and (data[start] == 32 or data[start] == 9):
        start += 1
    while end > start and (data[end - 1] == 32 or data[end - 1] == 9):
        end -= 1
    return start, end


@kernel
def _is_plain_url(data: Bytes, start: int, end: int) -> bool:
    """Whether a page URL is printable ASCII, not too long and not in angle brackets."""
    if end - start > MAX_PAGE_URL_BYTES or (start < end and data[start] == 60):
        return False
    for i in range(start, end):
        if data[i] < 33 or data[i] > 126:
            return False
    return True


@kernel
def _number(data: Bytes, start: int, end: int) -> int:
    """Parses a decimal number of at most nine digits, else returns -1."""
    if start == end or end - start > 9:
        return -1
    value = 0
    for i in range(start, end):
        if not 48 <= data[i] <= 57:
            return -1
        value = value * 10 + int(data[i]) - 48
    return value


@kernel
def _find_html(data: Bytes, start: int, end: int) -> int:
    """Returns the position after `"HTML-Metadata":{`; -1 without the name, -2 if its form is different."""
    position = start + _NAME_BYTES - 1
    while position < end:
        skip = _NAME_SKIP[data[position]]
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
def _scan_page(
    data: Bytes, words: Hashes, span: tuple[int, int], records: Records, record: int, links: Links, count: int
) -> int:
    """Adds the image links of a page; returns the new count, or -1 if the page needs its whole JSON."""
    start, end = span
    position = start
    block_bytes = 8 * _BLOCK_WORDS
    for block in range(start // block_bytes, (end - 1) // block_bytes + 1):
        if not _has_sign(words, block * _BLOCK_WORDS):
            continue
        stop = min((block + 1) * block_bytes + 2, end - _IMAGE.size)
        position = _next_key(data, max(position, block * block_bytes), stop)
        while position < stop:
            byte = data[position]
            if byte == 64 and data[position - 1] == 71 and data[position - 2] == 77:  # MG@
                position = _read_entry(data, position - 4, end, record, links, count)
                count += 1
            elif byte == 66 and equals(data, position - 1, _BASE):
                position = _read_base(data, span, position - 1 + _BASE.size, records, record)
            elif byte == 46 and _is_licence(data, position, start):
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
def _read_base(data: Bytes, span: tuple[int, int], start: int, records: Records, record: int) -> int:
    """Stores the span of the base; returns where it ends, or -1 if the whole JSON is needed to be sure.

    That is the case for a second base, and if HTTP headers, whose names the server chooses, follow the HTML.
    """
    end = span[1]
    stop, escapes = _string_end(data, start, end)
    if stop < 0 or escapes or records.base_end[record] or stop - start > MAX_PAGE_URL_BYTES:
        return -1
    for position in range(span[0], end - _HEADERS.size):
        if data[position + 1] == 72 and equals(data, position, _HEADERS):
            return -1
    records.base_start[record], records.base_end[record] = start, stop
    return stop + 1


@kernel
def _has_sign(words: Hashes, first: int) -> bool:
    """Whether a sign begins in a block of words."""
    found = np.uint64(0)
    for i in range(first, first + _BLOCK_WORDS):
        word, after = words[i], words[i + 1]
        second = (word >> np.uint64(8)) | (after << np.uint64(56))
        third = (word >> np.uint64(16)) | (after << np.uint64(48))
        fourth = (word >> np.uint64(24)) | (after << np.uint64(40))
        x = (word ^ _IMAGE0) | (second ^ _IMAGE1)
        found |= (x - _ONES) & ~x
        x = (word ^ _BASE0) | (second ^ _BASE1) | (third ^ _BASE2) | (fourth ^ _BASE3)
        found |= (x - _ONES) & ~x
        x = (word ^ _COMMONS0) | (second ^ _COMMONS1) | (third ^ _COMMONS2) | (fourth ^ _COMMONS3)
        found |= (x - _ONES) & ~x
    return bool(found & _HIGHS != 0)


@kernel
def _is_licence(data: Bytes, dot: int, start: int) -> bool:
    """Whether a dot is that of creativecommons.org; the caller checks that there is room after it."""
    first = dot - _COMMONS.size + 4
    return first >= start and equals(data, first, _COMMONS)


@kernel
def _read_entry(data: Bytes, sign: int, end: int, record: int, links: Links, row: int) -> int:
    """Reads the image entry whose path value begins at `sign`; returns its end, -1 if it is irregular."""
    if row == links.record.size or end - sign < _IMAGE.size or not equals(data, sign, _IMAGE):
        return -1
    if not equals(data, sign - _PATH.size, _PATH):
        return -1
    links.record[row] = record
    links.url_start[row], links.alt_start[row], links.title_start[row] = -1, -1, -1
    links.url_end[row], links.alt_end[row], links.title_end[row] = -1, -1, -1
    links.escaped[row] = 0
    position = sign + _IMAGE.size
    while position + 1 < end and data[position] == 44 and data[position + 1] == 34:  # ,"
        name = position + 2
        name_end, _ = _string_end(data, name, end)
        if name_end < 0 or name_end + 2 >= end or data[name_end + 1] != 58 or data[name_end + 2] != 34:
            return -1  # the value is not a string
        value = name_end + 3
        value_end, escapes = _string_end(data, value, end)
        if value_end < 0:
            return -1
        _store(data, name, name_end, value, value_end, escapes, links, row)
        position = value_end + 1
    if position >= end or data[position] != 125:
        return -1
    return position + 1


@kernel
def _string_end(data: Bytes, start: int, end: int) -> tuple[int, bool]:
    """Returns where the quote that ends a JSON string is, -1 if there is none, and whether it has escapes."""
    escapes = False
    position, stop, one = np.uint64(start), np.uint64(end), np.uint64(1)  # unsigned: no negative indices
    while position < stop:
        kind = _STRING[data[position]]
        if kind == 0:
            position += one
        elif kind == 1:
            return int(np.int64(position)), escapes
        elif kind == 2:
            escapes = True
            position += one + one
        else:
            return -1, False
    return -1, False


@kernel
def _store(
    data: Bytes, name: int, name_end: int, value: int, value_end: int, escapes: bool, links: Links, row: int
) -> None:
    """Stores the span of a url, alt or title; a later one of the same name wins, as in JSON parsers."""
    length = name_end - name
    if length == 3 and data[name] == 117 and data[name + 1] == 114 and data[name + 2] == 108:
        links.url_start[row], links.url_end[row], bit = value, value_end, 1
    elif length == 3 and data[name] == 97 and data[name + 1] == 108 and data[name + 2] == 116:
        links.alt_start[row], links.alt_end[row], bit = value, value_end, 2
    elif length == 5 and data[name] == 116 and data[name + 1] == 105 and data[name + 4] == 101:
        links.title_start[row], links.title_end[row], bit = value, value_end, 4
    else:
        return
    links.escaped[row] = (links.escaped[row] & ~bit) | (bit if escapes else 0)

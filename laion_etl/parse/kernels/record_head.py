"""Reads the head of a WARC record: its type, length and page URL."""

from laion_etl.core.intrinsics import LANES, equal_mask, lowest_bit
from laion_etl.core.kernels import Bytes, constant
from laion_etl.core.numba_cache import borrowing_kernel
from laion_etl.parse.kernels.spans import Records

MAX_PAGE_URL_BYTES = 8192  # pages with a longer URL are left to Python, which drops them

_TYPE = constant(b"warc-type:")
_METADATA = constant(b"metadata")
_TARGET = constant(b"warc-target-uri:")
_LENGTH = constant(b"content-length:")
_WARC = constant(b"warc/1.")


@borrowing_kernel
def read_head(data: Bytes, records: Records, record: int) -> tuple[int, bool]:
    """Returns where the payload begins, -1 if the head is irregular, and whether the type is metadata."""
    position, end = records.start[record], records.end[record]
    is_metadata, typed, length = False, False, -1
    if end - position < 16 or not _names(data, position, end, _WARC):
        return -1, False
    while True:
        line = position
        position = _line_end(data, position, end)
        if position == end:
            return -1, False
        stop = position - 1 if position > line and data[position - 1] == 13 else position
        position += 1
        if stop == line:
            break
        if data[line] == 32 or data[line] == 9:  # continues the line before
            return -1, False
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


@borrowing_kernel
def _line_end(data: Bytes, start: int, end: int) -> int:
    """Returns where the next line feed is, `end` if there is none before."""
    for block in range(start, end, LANES):
        found = equal_mask(data, block, 10)
        if found:
            return min(block + lowest_bit(found), end)
    return end


@borrowing_kernel
def _names(data: Bytes, line: int, stop: int, name: Bytes) -> bool:
    """Whether a header line begins with a name, which is given in lower case, in any case."""
    last = name.size - 1  # looked at first: that of a header is its colon, which few others have there
    if stop - line < name.size or (data[line + last] | 32) != (name[last] | 32):
        return False
    for i in range(name.size):
        byte = data[line + i]
        if byte != name[i] and not (65 <= byte <= 90 and byte + 32 == name[i]):
            return False
    return True


@borrowing_kernel
def _trimmed(data: Bytes, start: int, end: int) -> tuple[int, int]:
    while start < end and (data[start] == 32 or data[start] == 9):
        start += 1
    while end > start and (data[end - 1] == 32 or data[end - 1] == 9):
        end -= 1
    return start, end


@borrowing_kernel
def _is_plain_url(data: Bytes, start: int, end: int) -> bool:
    """Whether a page URL is printable ASCII, not too long, not in angle brackets and without a user name."""
    if end - start > MAX_PAGE_URL_BYTES or (start < end and data[start] == 60):
        return False
    slashes = 0
    for i in range(start, end):
        if data[i] < 33 or data[i] > 126 or (data[i] == 64 and slashes < 3):
            return False
        slashes += data[i] == 47
    return True


@borrowing_kernel
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

"""Extracts the spans of image links from the records of a batch without parsing their JSON as a whole.

The extractor writes compact JSON in which a quote inside a string is always escaped, so `{"path":"IMG@/src"`
can only be the beginning of an image entry; what follows is parsed as a JSON object. A page is left to Python
(state ODD) if anything deviates from the extractor's form, or if it needs the whole JSON: for a licence, for
a base that is ambiguous, for letters that are escaped without need (`"B\\u0061se"`), and for entries that may
not be in the list of links which counts (json_parts.py). JSON that is broken in other places is not noticed.
"""

import numpy as np

from laion_etl.core.intrinsics import LANES, equal_mask, letter_mask, lowest_bit
from laion_etl.core.kernels import Bytes, constant, equals
from laion_etl.core.numba_cache import borrowing_kernel
from laion_etl.parse.kernels.image_entry import IMAGE_PATH, names_image, read_entry, read_link, string_end
from laion_etl.parse.kernels.json_parts import IN_HEAD, IN_LINKS, begin_part, has_letter_escape
from laion_etl.parse.kernels.record_head import MAX_PAGE_URL_BYTES, read_head
from laion_etl.parse.kernels.spans import Links, Records

PAGE, NOT_A_PAGE, ODD = 0, 1, 2  # states of a record

LINK_START = b'{"path":"A@/href"'
LINKS, PREVIEWS = 1, 2  # bits of what is wanted besides images

_HTML = constant(b'"HTML-Metadata":{')
_BASE = constant(b'"Base":"')
_BASE_NAME = constant(b'"Base"')
_HEAD = constant(b'"Head":{')
_COMMONS = constant(b"commons")
_HEADERS = constant(b'"Headers":')
_PREVIEW = constant(b"og:image:alt")
_HTML_NAME = _HTML[:15]  # "HTML-Metadata" with its quotes
_ONE = np.uint64(1)


@borrowing_kernel
def cut_links(data: Bytes, records: Records, links: Links, wanted: int) -> int:
    """Fills in states and page URLs of records and the links of PAGE records; returns the number of links.

    `wanted`: 0 for images alone, or with them LINKS to image files, or PREVIEWS (og:image).
    """
    count = 0
    for record in range(records.start.size):
        end = records.end[record]
        body, is_metadata = read_head(data, records, record)
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
        if wanted & PREVIEWS and _find(data, html, end, _PREVIEW) >= 0:
            records.state[record] = ODD
            continue
        found = _scan_page(data, (html, end), records, record, links, count, wanted)
        if found < 0 or records.url_end[record] <= records.url_start[record]:
            records.state[record] = ODD
        else:
            records.state[record] = PAGE
            count = found
    return count


@borrowing_kernel
def _find_html(data: Bytes, start: int, end: int) -> int:
    """Returns the position after `"HTML-Metadata":{`; -1 without the name, -2 if its form is different."""
    first = _find(data, start, end, _HTML_NAME)
    if first < 0:
        return -1
    if first + _HTML.size <= end and equals(data, first, _HTML):
        return first + _HTML.size
    return -2


@borrowing_kernel
def _find(data: Bytes, start: int, end: int, name: Bytes) -> int:
    """Returns where a name of four bytes or more is first in a span, -1 if it is not there."""
    for block in range(start, end, LANES):
        found = equal_mask(data, block, name[0]) & equal_mask(data, block + 1, name[1])
        found &= equal_mask(data, block + 2, name[2]) & equal_mask(data, block + 3, name[3])
        while found:
            first = block + lowest_bit(found)
            found &= found - _ONE
            if first + name.size <= end and equals(data, first, name):
                return first
    return -1


@borrowing_kernel
def _scan_page(
    data: Bytes, span: tuple[int, int], records: Records, record: int, links: Links, count: int, wanted: int
) -> int:
    """Adds the image links of a page; returns the new count, or -1 if the page needs its whole JSON."""
    start, end = span
    position, part = start, 0
    for block in range(start, end, LANES):
        if _names_commons(data, span, block) or has_letter_escape(data, block, end):
            return -1
        signs = _signs(data, block, wanted)
        while signs:
            sign = block + lowest_bit(signs)
            signs &= signs - _ONE
            if sign < position:
                continue
            if data[sign] == 58:  # a colon
                if sign + 1 < end:
                    part = begin_part(data, sign, start, part)
            elif sign >= end - IMAGE_PATH.size:
                continue
            elif data[sign] == 66:  # B
                if equals(data, sign - 1, _BASE):
                    if not part & IN_HEAD or not _may_be_of_head(data, sign - 1):
                        return -1
                    position = _read_base(data, span, sign - 1 + _BASE.size, records, record)
                elif _is_odd_name(data, sign - 1):
                    return -1
            elif not part & IN_LINKS:
                return -1
            elif data[sign - 1] == 71:  # G
                position = read_entry(data, sign - 4, end, record, links, count)
                count += 1
            else:
                position = read_link(data, sign - 2, end, record, links, count)
                if position > 0 and names_image(data, links.url_start[count], links.url_end[count]):
                    count += 1
            if position < 0 or part < 0:
                return -1
    return count


@borrowing_kernel
def _signs(data: Bytes, block: int, wanted: int) -> np.uint64:
    """Returns the mask of what begins an entry or is a sign that more of the JSON is needed.

    That is the colon of `":{` and `":[`, the second byte, which is rare, of `"Bas`, the last of `MG@`, and,
    where they are wanted, of `"A@`.
    """
    before, ats = equal_mask(data, block - 1, 34), equal_mask(data, block, 64)
    images = ats & equal_mask(data, block - 1, 71) & equal_mask(data, block - 2, 77)
    bases = before & equal_mask(data, block, 66)
    bases &= equal_mask(data, block + 1, 97) & equal_mask(data, block + 2, 115)
    parts = before & equal_mask(data, block, 58) & letter_mask(data, block + 1, 123)  # { or [
    if not wanted & LINKS:
        return images | bases | parts
    return images | bases | parts | (ats & equal_mask(data, block - 1, 65) & equal_mask(data, block - 2, 34))


@borrowing_kernel
def _may_be_of_head(data: Bytes, name: int) -> bool:
    """Whether a name is the first of "Head", or behind a value that is not an object: it has no objects."""
    before = data[name - 1]
    if before == 123:  # {
        return equals(data, name - _HEAD.size, _HEAD)
    return bool(before == 44 and data[name - 2] != 125)  # a comma, not behind }


@borrowing_kernel
def _is_odd_name(data: Bytes, start: int) -> bool:
    """Whether the name "Base" begins here, and not that text as a value."""
    if not equals(data, start, _BASE_NAME):
        return False
    after = data[start + _BASE_NAME.size]
    return bool(after != 44 and after != 125 and after != 93)  # ,}]


@borrowing_kernel
def _read_base(data: Bytes, span: tuple[int, int], start: int, records: Records, record: int) -> int:
    """Stores the span of the base; returns where it ends, or -1 if the whole JSON is needed to be sure.

    That is the case for a second base, and if HTTP headers, whose names the server chooses, follow the HTML.
    """
    end = span[1]
    stop, escapes = string_end(data, start, end)
    if stop < 0 or escapes or records.base_end[record] or stop - start > MAX_PAGE_URL_BYTES:
        return -1
    if _find(data, span[0], end, _HEADERS) >= 0:
        return -1
    records.base_start[record], records.base_end[record] = start, stop
    return stop + 1


@borrowing_kernel
def _names_commons(data: Bytes, span: tuple[int, int], block: int) -> bool:
    """Whether the host of Creative Commons may be in a page, in any case, with its "mons" in a block.

    The rule is that of `names_commons` in licence.py: what browsers take for a letter or a dot of it.
    """
    found = letter_mask(data, block, 109) & letter_mask(data, block + 1, 111)  # mo
    found &= letter_mask(data, block + 2, 110) & letter_mask(data, block + 3, 115)  # ns
    start, end = span
    while found:
        position = block + lowest_bit(found)
        found &= found - _ONE
        if start + 9 <= position < end - 4 and _is_of_host(data, position):
            return True
    return False


@borrowing_kernel
def _is_of_host(data: Bytes, position: int) -> bool:
    """Whether the "mons" at a position may be that of the host."""
    name = position + 4 - _COMMONS.size
    if not _has_name(data, name, _COMMONS):
        return False
    after = data[position + 4]
    if after != 46 and after != 37 and after != 92 and after < 128:  # . % or a backslash
        return False
    before = data[name - 1]
    return bool(
        before | 32 == 101  # e
        or before >= 128
        or data[name - 2] == 92  # a backslash
        or (data[name - 6] == 92 and data[name - 5] == 117)  # a backslash, u
        or data[name - 3] == 37  # %
    )


@borrowing_kernel
def _has_name(data: Bytes, start: int, name: Bytes) -> bool:
    """Whether a name, which is given in lower case, is at a place in any case."""
    for i in range(name.size):
        byte = data[start + i]
        if byte != name[i] and not (65 <= byte <= 90 and byte + 32 == name[i]):
            return False
    return True

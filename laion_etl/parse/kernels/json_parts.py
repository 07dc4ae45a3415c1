"""Follows which object or list of a page's JSON an entry is in, without parsing it.

A JSON parser takes the last of several values of one name, and a page has one list of links: an entry that
is anywhere else does not count. Only names whose value is an object or a list are looked at: `":{` and `":[`
are nowhere else, because quotes inside strings are escaped. The entries of links have strings only, so that
any such name ends their list.
"""

import numpy as np

from laion_etl.core.intrinsics import equal_mask, lowest_bit
from laion_etl.core.kernels import Bytes, constant, equals
from laion_etl.core.numba_cache import borrowing_kernel

IN_LINKS, IN_HEAD = 1, 2  # bits of where a position is
_HAD_LINKS, _HAD_HEAD = 4, 8
_HAD = _HAD_LINKS | _HAD_HEAD

_LINKS = constant(b'"Links":[')
_HEAD = constant(b'"Head":{')
_LINKS_NAME, _HEAD_NAME = _LINKS[:7], _HEAD[:6]
_PAGE = constant(b'"HTML-Metadata"')
_RESPONSE = constant(b'"HTTP-Response-Metadata"')
_PAYLOAD = constant(b'"Payload-Metadata"')
_ENVELOPE = constant(b'"Envelope"')
_ONE = np.uint64(1)


@borrowing_kernel
def begin_part(data: Bytes, colon: int, html: int, part: int) -> int:
    """Returns where a position behind the name of an object or list is; -1 if the whole JSON is needed.

    `html`: where the page begins. `part`: where the position before the name was.
    """
    if data[colon - 2] == 92:  # a backslash: the quote is part of a text
        return part
    if _is_name(data, colon, _LINKS_NAME):
        return _begin_links(data, colon - _LINKS_NAME.size, html, part)
    if _is_name(data, colon, _HEAD_NAME):
        return _begin_head(data, colon - _HEAD_NAME.size, html, part)
    last = data[colon - 2]
    if (last == 97 or last == 101) and _is_outer_name(data, colon):  # a, e
        return -1
    return part & _HAD if data[colon + 1] == 123 else part & ~IN_LINKS  # the head has lists


@borrowing_kernel
def _is_outer_name(data: Bytes, colon: int) -> bool:
    """Whether a name is that of something which the page is in, and so is its second one."""
    return (
        _is_name(data, colon, _PAGE)
        or _is_name(data, colon, _RESPONSE)
        or _is_name(data, colon, _PAYLOAD)
        or _is_name(data, colon, _ENVELOPE)
    )


@borrowing_kernel
def _is_name(data: Bytes, colon: int, name: Bytes) -> bool:
    return equals(data, colon - name.size, name)


@borrowing_kernel
def _begin_links(data: Bytes, start: int, html: int, part: int) -> int:
    """The list of links is the first of the page, or follows the head."""
    if part & _HAD_LINKS or not equals(data, start, _LINKS):
        return -1
    follows_head = part & _HAD_HEAD and data[start - 1] == 44 and data[start - 2] == 125  # },
    if start != html and (not follows_head or data[start - 3] == 125):
        return -1
    return part & _HAD_HEAD | _HAD_LINKS | IN_LINKS


@borrowing_kernel
def _begin_head(data: Bytes, start: int, html: int, part: int) -> int:
    """The head is the first of the page, or follows the links."""
    if part & _HAD_HEAD or not equals(data, start, _HEAD):
        return -1
    follows_links = part & IN_LINKS and data[start - 1] == 44 and data[start - 2] == 93  # ],
    if start != html and not follows_links:
        return -1
    return part & _HAD_LINKS | _HAD_HEAD | IN_HEAD


@borrowing_kernel
def has_letter_escape(data: Bytes, block: int, end: int) -> bool:
    """Whether an escape of a letter (`\\u0061`), or of a hyphen, begins in a block.

    The extractor writes none. Names may have them, in which everything else here looks for plain letters.
    """
    found = equal_mask(data, block, 92) & equal_mask(data, block + 1, 117)
    while found:
        digits = block + lowest_bit(found) + 2
        found &= found - _ONE
        if digits + 4 <= end and data[digits] == 48 and data[digits + 1] == 48:
            tens = data[digits + 2]
            if 52 <= tens <= 55 or (tens == 50 and data[digits + 3] | 32 == 100):
                return True
    return False

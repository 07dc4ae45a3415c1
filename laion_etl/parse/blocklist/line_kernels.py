"""Lines of blocklists as spans of bytes; what is not plainly in its normal form is left to Python.

No kernel here calls one of another file: numba compiles again when the file of a kernel changes, no other.
"""

import numpy as np

from laion_etl.compiled import kernel
from laion_etl.parse.kernels import Bytes, Hashes, Ints, constant

_HTTP = constant(b"http://")
_SCHEMES = constant(b"https")
_PUNYCODE = constant(b"xn--")


def _table(characters: bytes) -> Bytes:
    table = np.zeros(256, np.uint8)
    table[list(characters)] = 1
    return table


_NAME = _table(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_SPACE = _table(b" \t\r\n\v\f")


@kernel
def find_entries(block: Bytes, starts: Ints, ends: Ints, lines: Ints) -> int:
    """The spans of lines without white space around them, and their numbers; how many.

    Blank lines and those that begin with '#' are left out.
    """
    count, line, position = 0, 0, 0
    while position < block.size:
        stop = position
        while stop < block.size and block[stop] != 10:
            stop += 1
        start, end = position, stop
        while start < end and _SPACE[block[start]]:
            start += 1
        while start < end and _SPACE[block[end - 1]]:
            end -= 1
        if start < end and block[start] != 35:
            starts[count], ends[count], lines[count] = start, end, line
            count += 1
        line += 1
        position = stop + 1
    return count


@kernel
def _without_comment(block: Bytes, start: int, end: int) -> int:
    """Where an entry ends before '#' and the white space before that."""
    stop = start
    while stop < end and block[stop] != 35:
        stop += 1
    while stop > start and _SPACE[block[stop - 1]]:
        stop -= 1
    return stop


@kernel
def read_pair_ids(block: Bytes, spans: tuple[Ints, Ints], hashes: Hashes) -> int:
    """The first 8 bytes of pair ids in hexadecimal; the row of the first that is none, or -1."""
    for row in range(spans[0].size):
        start = spans[0][row]
        if _without_comment(block, start, spans[1][row]) - start != 32:
            return row
        value = np.uint64(0)
        for i in range(32):
            byte = int(block[start + i]) | 32
            if 97 <= byte <= 102:
                digit = byte - 87
            elif 48 <= byte <= 57 and block[start + i] >= 48:
                digit = byte - 48
            else:
                return row
            if i < 16:
                value = value << np.uint64(4) | np.uint64(digit)
        hashes[row] = value
    return -1


@kernel
def find_plain_names(block: Bytes, spans: tuple[Ints, Ints], hard: Bytes) -> None:
    """0 for domains that are plainly in their normal form, 1 for the others; spans end before comments."""
    for row in range(spans[0].size):
        spans[1][row] = _without_comment(block, spans[0][row], spans[1][row])
        hard[row] = not _is_plain_name(block, spans[0][row], spans[1][row])


@kernel
def _is_plain_name(block: Bytes, start: int, end: int) -> bool:
    """Lower-case ASCII labels without punycode, the last one beginning with a letter."""
    label = start
    for position in range(start, end):
        byte = block[position]
        if not _NAME[byte]:
            return False
        if byte == 46:
            if position == label:
                return False
            label = position + 1
        elif position == label + 3 and _begins_with(block, label, _PUNYCODE):
            return False
    return bool(label < end and 97 <= block[label] <= 122)


@kernel
def copy_urls(block: Bytes, spans: tuple[Ints, Ints], data: Bytes, free: int, wrong: Bytes) -> int:
    """Writes expressions as URLs, with the scheme http, from `free` on, and sets their spans; the new end.

    1 in `wrong`, and an empty span, for those of another scheme or without a host.
    """
    for row in range(spans[0].size):
        start, end = _behind_scheme(block, spans[0][row], spans[1][row]), spans[1][row]
        wrong[row] = start < 0 or start >= end or block[start] in (47, 63, 92)
        spans[0][row] = free
        if not wrong[row]:
            for i in range(_HTTP.size):
                data[free + i] = _HTTP[i]
            free += _HTTP.size
            for i in range(start, end):
                data[free] = block[i]
                free += 1
        spans[1][row] = free
    return free


@kernel
def _behind_scheme(block: Bytes, start: int, end: int) -> int:
    """Where the host begins: behind http:// or https://, or at the start; -1 for other schemes."""
    for position in range(start, end - 2):
        byte = block[position]
        if byte in (47, 63):
            return start
        if byte == 58 and block[position + 1] == 47 and block[position + 2] == 47:
            size = position - start
            known = 4 <= size <= 5 and _begins_with(block, start, _SCHEMES[:size])
            return position + 3 if known else -1
    return start


@kernel
def _begins_with(data: Bytes, start: int, other: Bytes) -> bool:
    """Whether `other`, in small letters, stands at `start`, in any; the caller knows that there is room."""
    same = 0
    while same < other.size and data[start + same] | 32 == other[same] | 32:
        same += 1
    return bool(same == other.size)

"""Kernels that split blocklists into lines; entries that are not in a simple normal form are left to Python.

These kernels call no kernels of other files: numba recompiles a kernel when its own file changes, but not
when a file it calls into changes.
"""

import numpy as np

from laion_etl.core.kernels import Bytes, Hashes, Ints, constant
from laion_etl.core.numba_cache import kernel

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
    """Finds the spans of lines without surrounding white space, and their numbers; returns how many.

    Blank lines and those that begin with '#' are skipped.
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
    """Returns where an entry ends, before a comment and the white space before it."""
    stop = start
    while stop < end and block[stop] != 35:
        stop += 1
    while stop > start and _SPACE[block[stop - 1]]:
        stop -= 1
    return stop


@kernel
def read_pair_ids(block: Bytes, spans: tuple[Ints, Ints], hashes: Hashes) -> int:
    """Reads the first 8 bytes of hexadecimal pair ids; returns the row of the first invalid one, or -1."""
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
    """Sets 0 for domains in a simple normal form and 1 for the others; cuts comments off the spans."""
    for row in range(spans[0].size):
        spans[1][row] = _without_comment(block, spans[0][row], spans[1][row])
        hard[row] = not _is_plain_name(block, spans[0][row], spans[1][row])


@kernel
def _is_plain_name(block: Bytes, start: int, end: int) -> bool:
    """Whether it is lower-case ASCII labels without punycode, the last one beginning with a letter."""
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
    """Writes expressions as http URLs from `free` on and sets their spans; returns the new end.

    An expression of another scheme or without a host gets 1 in `wrong` and an empty span.
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
    """Returns where the host begins: after http:// or https://, or at the start; -1 for other schemes."""
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
    """Whether the lower-case `other` is at `start` in any case; the caller checks that there is room."""
    same = 0
    while same < other.size and data[start + same] | 32 == other[same] | 32:
        same += 1
    return bool(same == other.size)

"""Kernels for simple URLs: make them absolute by the WHATWG standard without a parser.

They repeat the rule of `normalize.resolve` for URLs that need no parser: a change of one is a change of both,
and normalize.py says what else it needs.
"""

import numpy as np

from laion_etl.core.kernels import HIGHS, Bytes, Hashes, Ints, constant, equals
from laion_etl.core.numba_cache import borrowing_kernel

RESOLVED, NEEDS_PARSER = 0, 1

_HTTP = constant(b"http://")
_HTTPS = constant(b"https://")
_PUNYCODE = constant(b"xn--")


def _table(characters: bytes) -> Bytes:
    table = np.zeros(256, np.uint8)
    table[list(characters)] = 1
    return table


# Characters that the standard neither encodes nor treats specially in a path or a query of http(s).
_PATH = _table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&()*+,;=:@/[]?")
_HOST = _table(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")


@borrowing_kernel
def resolve_plain(
    data: Bytes,
    urls: tuple[Ints, Ints],
    bases: tuple[Ints, Ints],
    records: Ints,
    free: int,
    max_bytes: int,
    states: Ints,
) -> int:
    """Makes the URL spans absolute where that needs no parser; writes new URLs from `free` on.

    `bases` are spans per record. The caller reserves room for every URL with its base. Returns the new end.
    """
    starts, ends = urls
    base_row, base_plain, host_start, host_end, folder_end = -1, False, 0, 0, 0
    for row in range(starts.size):
        states[row] = NEEDS_PARSER
        if records[row] != base_row:
            base_row = records[row]
            start, end = bases[0][base_row], bases[1][base_row]
            host_start, host_end = _plain_host(data, start, end)
            base_plain = host_end > 0 and end - start <= max_bytes
            if base_plain:
                folder_end = _folder_end(data, host_end, end)
                base_plain = folder_end > 0
        start, end = starts[row], ends[row]
        if end - start > max_bytes or end == start:
            continue
        if _is_http(data, start, end):
            _, own_host_end = _plain_host(data, start, end)
            stop = _plain_end(data, own_host_end, end) if own_host_end > 0 else -1
            if stop > 0:
                ends[row], states[row] = stop, RESOLVED
            continue
        if not base_plain:
            continue
        free, begun = _join(data, (start, end), (bases[0][base_row], host_start, host_end, folder_end), free)
        if begun >= 0:
            starts[row], ends[row], states[row] = begun, free, RESOLVED
    return free


@borrowing_kernel
def _join(
    data: Bytes, reference: tuple[int, int], base: tuple[int, int, int, int], free: int
) -> tuple[int, int]:
    """Writes a relative reference joined to its base at `free`; returns the new end, and the start or -1."""
    start, end = reference
    base_start, host_start, host_end, folder_end = base
    if data[start] == 47 and start + 1 < end and data[start + 1] == 47:  # //host/path
        _, own_host_end = _plain_host_behind(data, start + 2, end)
        stop = _plain_end(data, own_host_end, end) if own_host_end > 0 else -1
        kept, rest = host_start - 2, start
    elif data[start] == 47:
        stop = _plain_end(data, start, end)
        kept, rest = host_end, start
    else:
        rest, kept = start, folder_end
        while rest + 1 < end and data[rest] == 46:
            if data[rest + 1] == 47:
                rest += 2
            elif rest + 2 < end and data[rest + 1] == 46 and data[rest + 2] == 47:
                rest += 3
                kept = _parent(data, host_end, kept)
            else:
                return free, -1
        if rest == end or not _begins_a_segment(data, rest, end):
            return free, -1
        stop = _plain_end(data, rest, end)
    if stop < 0:
        return free, -1
    begun = free
    for i in range(base_start, kept):
        data[free] = data[i]
        free += 1
    for i in range(rest, stop):
        data[free] = data[i]
        free += 1
    return free, begun


@borrowing_kernel
def _begins_a_segment(data: Bytes, start: int, end: int) -> bool:
    """Whether a relative path begins with a plain name: no scheme, query, further slash or dot."""
    if data[start] == 47 or data[start] == 63 or data[start] == 35 or data[start] == 46:
        return False
    for i in range(start, end):
        if data[i] == 47 or data[i] == 63:
            return True
        if data[i] == 58:
            return False
    return True


@borrowing_kernel
def _parent(data: Bytes, host_end: int, folder_end: int) -> int:
    """Returns the end of the parent folder, after its slash; the root is its own parent."""
    position = folder_end - 1
    while position > host_end and data[position - 1] != 47:
        position -= 1
    return max(position, host_end + 1)


@borrowing_kernel
def _is_http(data: Bytes, start: int, end: int) -> bool:
    return (end - start > _HTTPS.size and equals(data, start, _HTTPS)) or (
        end - start > _HTTP.size and equals(data, start, _HTTP)
    )


@borrowing_kernel
def _plain_host(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Returns start and end of the host of an absolute http(s) URL; end 0 if it is not plain."""
    if end - start > _HTTPS.size and equals(data, start, _HTTPS):
        return _plain_host_behind(data, start + _HTTPS.size, end)
    if end - start > _HTTP.size and equals(data, start, _HTTP):
        return _plain_host_behind(data, start + _HTTP.size, end)
    return 0, 0


@borrowing_kernel
def _plain_host_behind(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Returns the span of a plain host: lower-case ASCII with a dot, the last label begins with a letter."""
    position, label = start, start
    while position < end and data[position] != 47:
        byte = data[position]
        if not _HOST[byte]:
            return 0, 0
        if byte == 46:
            if position == label:
                return 0, 0
            label = position + 1
        elif position == label and position + 4 <= end and equals(data, position, _PUNYCODE):
            return 0, 0
        position += 1
    if position == end or label == start or label == position or not 97 <= data[label] <= 122:
        return 0, 0
    return start, position


@borrowing_kernel
def _folder_end(data: Bytes, host_end: int, end: int) -> int:
    """Returns the position after the last slash of the path of a base; -1 if the path is not plain."""
    stop = host_end
    while stop < end and data[stop] != 63 and data[stop] != 35:
        stop += 1
    if _plain_end(data, host_end, stop) != stop:
        return -1
    while data[stop - 1] != 47:
        stop -= 1
    return stop


@borrowing_kernel
def _plain_end(data: Bytes, start: int, end: int) -> int:
    """Returns where a plain path and query end, at `end` or a fragment; -1 if they are not plain."""
    in_query = False
    for position in range(start, end):
        byte = data[position]
        if not _PATH[byte]:
            if byte == 35:
                return position
            if byte != 37 or (not in_query and _begins_dot_segment(data, start, position, end)):
                return -1
            if _begins_template(data, position, end):
                return -1
            continue  # an escape stays as it is, even a wrong one
        if byte == 63:
            in_query = True
        elif byte == 46 and not in_query and (position == start or data[position - 1] == 47):
            return -1
    return end


@borrowing_kernel
def _begins_dot_segment(data: Bytes, start: int, percent: int, end: int) -> bool:
    """Whether a segment of a path begins with an escaped dot, which may be one of `.` and `..`."""
    return (
        percent + 2 < end
        and (percent == start or data[percent - 1] == 47)
        and data[percent + 1] == 50
        and data[percent + 2] | 32 == 101
    )


@borrowing_kernel
def _begins_template(data: Bytes, percent: int, end: int) -> bool:
    """Whether a template may begin at an escaped sign: `is_template` looks at the rest.

    Two braces, or one behind a dollar sign; an angle bracket with a percent sign or question mark; and the
    blank of `[object Object]`.
    """
    if percent + 3 > end:
        return False
    if not _is_brace(data, percent):
        is_bracket = percent + 4 <= end and data[percent + 1] == 51 and data[percent + 2] | 32 == 99
        if is_bracket:
            return bool(data[percent + 3] == 37 or data[percent + 3] == 63)
        return bool(percent >= 7 and data[percent - 7] == 91 and data[percent + 1] == 50)
    return bool(data[percent - 1] == 36) or (percent + 6 <= end and _is_brace(data, percent + 3))


@borrowing_kernel
def _is_brace(data: Bytes, percent: int) -> bool:
    """Whether `%7B` is at a place."""
    return bool(data[percent] == 37 and data[percent + 1] == 55 and data[percent + 2] | 32 == 98)


@borrowing_kernel
def flag_spans_with(byte: int, data: Bytes, spans: tuple[Ints, Ints], flags: Bytes) -> None:
    """Sets 1 for each span that contains a byte, else 0."""
    for row in range(spans[0].size):
        flags[row] = 0
        for position in range(spans[0][row], spans[1][row]):
            if data[position] == byte:
                flags[row] = 1
                break


@borrowing_kernel
def flag_foreign_queries(data: Bytes, words: Hashes, urls: tuple[Ints, Ints], flags: Bytes) -> None:
    """Sets 1 for each URL with a character beyond ASCII in its query (or fragment), else 0.

    `words` are those of the data: most URLs are in ASCII, which eight bytes at once say.
    """
    one = np.uint64(1)
    for row in range(urls[0].size):
        flags[row] = 0
        if urls[0][row] < 0 or not _may_be_foreign(words, urls[0][row], urls[1][row]):
            continue
        position, end = np.uint64(urls[0][row]), np.uint64(urls[1][row])  # unsigned: no negative indices
        while position < end and data[position] != 63:
            position += one
        while position < end:
            if data[position] > 127:
                flags[row] = 1
                break
            position += one


@borrowing_kernel
def _may_be_foreign(words: Hashes, start: int, end: int) -> bool:
    """Whether a byte beyond ASCII is in a span, or next to it in the words that it begins and ends in."""
    found = np.uint64(0)
    for place in range(start >> 3, (end + 7) >> 3):
        found |= words[np.uint64(place)]
    beyond: bool = found & HIGHS != 0
    return beyond

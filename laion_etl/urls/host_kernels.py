"""Kernels for absolute URLs: their limits, extensions and file names, and numbers for their hosts."""

from typing import NamedTuple

import numpy as np

from laion_etl.core.kernels import Bytes, Hashes, Ints, constant, equals, hash_of, holds, keyed_hash
from laion_etl.core.numba_cache import borrowing_kernel

_HTTP = constant(b"http://")
_HTTPS = constant(b"https://")

LONG_HOST, LONG_URL, BAD_EXTENSION = 1, 2, 3  # findings of `check_urls`


@borrowing_kernel
def check_urls(
    data: Bytes, urls: tuple[Ints, Ints], limits: tuple[int, int], extensions: Bytes, findings: Ints
) -> None:
    """Sets 0 or a finding per absolute URL; `limits` are (URL, host) bytes, `extensions` zero-padded rows."""
    starts, ends = urls
    for row in range(starts.size):
        host, host_end = host_span(data, starts[row], ends[row])
        if _has_extension(data, host_end, ends[row], extensions):
            findings[row] = BAD_EXTENSION
        elif host_end - host > limits[1]:
            findings[row] = LONG_HOST
        elif ends[row] - starts[row] > limits[0]:
            findings[row] = LONG_URL
        else:
            findings[row] = 0


@borrowing_kernel
def host_span(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Returns the span of the host, without port, of an absolute http(s) URL as a parser writes it."""
    host = start + (_HTTPS.size if data[start + 4] == 115 else _HTTP.size)
    position = host
    bracketed = data[host] == 91
    while position < end and data[position] != 47 and (bracketed or data[position] != 58):
        if data[position] == 93:
            bracketed = False
        position += 1
    return host, position


@borrowing_kernel
def query_start(data: Bytes, path: int, end: int) -> int:
    """Returns where the path of a URL without fragment ends: its question mark, or the end."""
    stop = path
    while stop < end and data[stop] != 63:
        stop += 1
    return stop


@borrowing_kernel
def _has_extension(data: Bytes, path: int, end: int, extensions: Bytes) -> bool:
    stop = query_start(data, path, end)
    for row in range(extensions.shape[0]):
        size = 0
        while size < extensions.shape[1] and extensions[row, size]:
            size += 1
        same = stop - path >= size
        for i in range(1, size):
            if not same:
                break
            byte = data[stop - size + i]
            same = byte == extensions[row, i] or (65 <= byte <= 90 and byte + 32 == extensions[row, i])
        if same and (
            size == 0
            or data[stop - size] == extensions[row, 0]
            or (extensions[row, 0] == 46 and _ends_in_dot(data, path, stop - size + 1))
        ):
            return True
    return False


@borrowing_kernel
def _ends_in_dot(data: Bytes, start: int, end: int) -> bool:
    """Whether an escaped dot ends here."""
    return (
        end - start >= 3
        and data[end - 3] == 37
        and data[end - 2] == 50
        and (data[end - 1] == 101 or data[end - 1] == 69)
    )


@borrowing_kernel
def find_files(data: Bytes, urls: tuple[Ints, Ints], names: Hashes, findings: Bytes) -> None:
    """Sets 1 for URLs whose path ends in one of the file names (sorted hashes, lower-cased), else 0."""
    for row in range(urls[0].size):
        _, path = host_span(data, urls[0][row], urls[1][row])
        stop = path
        segment = path
        while stop < urls[1][row] and data[stop] != 63:
            if data[stop] == 47:
                segment = stop + 1
            stop += 1
        findings[row] = holds(names, hash_of(data, segment, stop))


@borrowing_kernel
def number_hosts(
    data: Bytes,
    urls: tuple[Ints, Ints],
    table: tuple[Ints, Hashes],
    names: Bytes,
    sizes: Ints,
    known: int,
    numbers: Ints,
) -> int:
    """Numbers the host of each URL; new hosts get numbers from `known` on. Returns the new count.

    `table` is open addressing over number + 1, with the key of its hashes; `names` has a row of bytes per
    host, `sizes` their lengths. The caller reserves room for as many new hosts as there are URLs; no host may
    exceed a row of names.
    """
    slots, key = table
    mask = slots.size - 1
    for row in range(urls[0].size):
        host, end = host_span(data, urls[0][row], urls[1][row])
        slot = np.int64(keyed_hash(data, host, end, key) & np.uint64(mask))
        while True:
            number = slots[slot] - 1
            if number < 0:
                number = known
                known += 1
                slots[slot] = number + 1
                sizes[number] = end - host
                for i in range(end - host):
                    names[number, i] = data[host + i]
                break
            if sizes[number] == end - host and equals(data, host, names[number, : end - host]):
                break
            slot = (slot + 1) & mask
        numbers[row] = number
    return known


class Endings(NamedTuple):
    """Last labels of hosts, one or two: their hashes, sorted; then, in the same order, bytes and sizes."""

    hashes: Hashes
    names: Bytes
    sizes: Ints


@borrowing_kernel
def find_domains(
    names: Bytes,
    sizes: Ints,
    hosts: tuple[int, int],
    endings: Endings,
    unusual: Hashes,
    domains: tuple[Ints, Ints],
) -> None:
    """Sets the spans, in all of `names`, of the registered domains of some hosts (first and end of them).

    That is one of the endings, of one label or two, and the label before it, of a host that has no empty
    label. The start is -1 for all others, and for those whose domain has the hash of one of the `unusual`.
    """
    starts, ends = domains
    for number in range(hosts[0], hosts[1]):
        name, size = names[number], sizes[number]
        ends[number] = number * names.shape[1] + size
        starts[number] = -1
        third, second, last = _last_labels(name, size)
        domain = -1
        if last > 0 and _is_ending(name, last, size, endings):
            domain = second
        elif third >= 0 and _is_ending(name, second, size, endings):
            domain = third
        if domain >= 0 and not holds(unusual, hash_of(name, domain, size)):
            starts[number] = number * names.shape[1] + domain


@borrowing_kernel
def _last_labels(name: Bytes, size: int) -> tuple[int, int, int]:
    """Returns where the last three labels of a host begin; -1 if it has fewer, or an empty one."""
    third, second, last, label = -1, -1, -1, 0
    for position in range(size):
        if name[position] == 46:
            if position == label:
                return -1, -1, -1
            third, second, label = second, label, position + 1
            last = label
    return (-1, -1, -1) if label == size else (third, second, last)


@borrowing_kernel
def _is_ending(name: Bytes, start: int, end: int, endings: Endings) -> bool:
    """Whether last labels are one of the endings: anyone who chooses a host can choose its hash, too."""
    found = np.searchsorted(endings.hashes, hash_of(name, start, end))
    if found == endings.hashes.size or endings.sizes[found] != end - start:
        return False
    return equals(name, start, endings.names[found, : end - start])

"""Hashes of blocklist entries and links, and the search for them among sorted hashes.

The hash is SipHash-2-4 (Aumasson and Bernstein 2012) with a fixed key. It guards against accidental
collisions, not forged ones: forging one only gets the forger's own link blocked, and a listed entry is always
found. It is implemented here because xxhash and the like cannot be called from numba kernels.
"""

import numpy as np

from laion_etl.core.kernels import Bytes, Hashes, Ints
from laion_etl.core.numba_cache import kernel
from laion_etl.urls.host_kernels import host_span, query_start

# The key: the first 16 bytes of the SHA-256 of "laion_etl blocklist".
_KEY_0, _KEY_1 = np.uint64(0xCB173DF83E395B98), np.uint64(0xD88E7DE63F6F1732)
_ALL_HASHES = 2.0**64


@kernel
def _rotated(value: np.uint64, bits: int) -> np.uint64:
    return value << np.uint64(bits) | value >> np.uint64(64 - bits)


@kernel
def _round(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a, c = a + b, c + d
    b, d = _rotated(b, 13) ^ a, _rotated(d, 16) ^ c
    a = _rotated(a, 32)
    c, a = c + b, a + d
    b, d = _rotated(b, 17) ^ c, _rotated(d, 21) ^ a
    return a, b, _rotated(c, 32), d


@kernel
def _word(data: Bytes, start: int, end: int) -> np.uint64:
    """Reads up to eight bytes, little-endian."""
    value = np.uint64(0)
    for i in range(end - start):
        value |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return value


@kernel
def siphash(data: Bytes, start: int, end: int, key_0: np.uint64, key_1: np.uint64) -> np.uint64:
    """Computes SipHash-2-4 of a span."""
    a, b = key_0 ^ np.uint64(0x736F6D6570736575), key_1 ^ np.uint64(0x646F72616E646F6D)
    c, d = key_0 ^ np.uint64(0x6C7967656E657261), key_1 ^ np.uint64(0x7465646279746573)
    whole = start + (end - start) // 8 * 8
    for position in range(start, whole, 8):
        word = _word(data, position, position + 8)
        a, b, c, d = _round(a, b, c, d ^ word)
        a, b, c, d = _round(a, b, c, d)
        a ^= word
    word = _word(data, whole, end) | np.uint64((end - start) & 255) << np.uint64(56)
    a, b, c, d = _round(a, b, c, d ^ word)
    a, b, c, d = _round(a, b, c, d)
    a, c = a ^ word, c ^ np.uint64(255)
    for _ in range(4):
        a, b, c, d = _round(a, b, c, d)
    return a ^ b ^ c ^ d


@kernel
def name_hash(data: Bytes, start: int, end: int) -> np.uint64:
    """Hashes a host name or address."""
    return siphash(data, start, end, _KEY_0, _KEY_1)


@kernel
def behind(value: np.uint64, data: Bytes, start: int, end: int) -> np.uint64:
    """Continues a hash with what follows, so that a path is hashed once, not once per folder."""
    return siphash(data, start, end, _KEY_0 ^ value, _KEY_1)


@kernel
def hash_names(data: Bytes, spans: tuple[Ints, Ints], hashes: Hashes) -> None:
    """Hashes host names."""
    for row in range(spans[0].size):
        hashes[row] = name_hash(data, spans[0][row], spans[1][row])


@kernel
def hash_expressions(data: Bytes, urls: tuple[Ints, Ints], hashes: Hashes, ends: Ints) -> int:
    """Hashes URL expressions (as absolute URLs) and their hosts; returns how many hashes.

    `ends` gets where the hashes of each expression end: its own is the last, and before it comes that of its
    host unless the expression before has the same.
    """
    count, known_host = 0, np.uint64(0)
    for row in range(urls[0].size):
        end = urls[1][row]
        name, stop, path = name_and_path(data, urls[0][row], end)
        host = name_hash(data, name, stop)
        if count == 0 or host != known_host:
            hashes[count] = known_host = host
            count += 1
        hashes[count] = expression_hash(data, path, end, host)
        count += 1
        ends[row] = count
    return count


@kernel
def expression_hash(data: Bytes, path: int, end: int, host: np.uint64) -> np.uint64:
    value, segment = host, path
    for position in range(path, end):
        if data[position] == 63:
            break
        if data[position] == 47:
            value = behind(value, data, segment, position + 1)
            segment = position + 1
    return behind(value, data, segment, end) if segment < end else value


@kernel
def name_and_path(data: Bytes, start: int, end: int) -> tuple[int, int, int]:
    """Returns start and end of the host of an absolute URL, without trailing dot, and start of its path."""
    name, stop = host_span(data, start, end)
    path = stop
    while path < end and data[path] != 47:
        path += 1
    while stop > name and data[stop - 1] == 46:
        stop -= 1
    return name, stop, path


@kernel
def contains(entries: Hashes, value: np.uint64) -> bool:
    """Whether a value is among sorted ones.

    Hashes are evenly distributed, so three interpolations come within a few places of the value; doubling
    steps find it from there whatever the distribution.
    """
    if entries.size == 0:
        return False
    scale = entries.size / _ALL_HASHES
    last = entries.size - 1
    place = min(int(float(value) * scale), last)
    for _ in range(3):
        found = entries[place]
        if found == value:
            return True
        away = float(value - found) if found < value else -float(found - value)
        place = min(max(place + int(away * scale), 0), last)
    low, high = _bracket(entries, value, place)
    while low < high:
        middle = (low + high) // 2
        if entries[middle] < value:
            low = middle + 1
        else:
            high = middle
    return bool(low <= last and entries[low] == value)


@kernel
def _bracket(entries: Hashes, value: np.uint64, place: int) -> tuple[int, int]:
    """Returns bounds, both inclusive, of the place of the first entry that is not below the value."""
    low, high, step = place, place, 4
    while low > 0 and entries[low] >= value:
        low = max(low - step, 0)
        step *= 2
    step = 4
    while high < entries.size and entries[high] < value:
        high = min(high + step, entries.size)
        step *= 2
    return low, high


@kernel
def flag_contained(entries: Hashes, values: Hashes, flags: Bytes) -> None:
    """Sets the flag of each value that is among the sorted entries; leaves other flags unchanged."""
    for row in range(values.size):
        if contains(entries, values[row]):
            flags[row] = 1


@kernel
def drop_repeats(values: Hashes) -> int:
    """Moves the distinct values of a sorted array to its front; returns how many."""
    count = 0
    for row in range(values.size):
        if count == 0 or values[row] != values[count - 1]:
            values[count] = values[row]
            count += 1
    return count


@kernel
def flag_urls(data: Bytes, offsets: Ints, entries: Hashes, flags: Bytes) -> None:
    """Sets the flag of each absolute URL that one of the sorted entries blocks; leaves other flags unchanged.

    URL `row` is data[offsets[row] : offsets[row + 1]].
    """
    for row in range(offsets.size - 1):
        if not flags[row]:
            flags[row] = _url_blocked(data, offsets[row], offsets[row + 1], entries)


@kernel
def _url_blocked(data: Bytes, start: int, end: int, entries: Hashes) -> bool:
    """Whether a URL is blocked; the path is only hashed for hosts that have entries."""
    name, stop, path = name_and_path(data, start, end)
    value = name_hash(data, name, stop)
    if contains(entries, value) and (
        _folder_blocked(data, path, end, value, entries) or _file_blocked(data, path, end, value, entries)
    ):
        return True
    parent = parent_name(data, name, stop)
    while parent < stop:
        value = name_hash(data, parent, stop)
        if contains(entries, value) and _folder_blocked(data, path, end, value, entries):
            return True
        parent = parent_name(data, parent, stop)
    return False


@kernel
def _folder_blocked(data: Bytes, path: int, end: int, host: np.uint64, entries: Hashes) -> bool:
    value, segment = host, path
    for position in range(path, end):
        if data[position] == 63:
            break
        if data[position] == 47:
            value = behind(value, data, segment, position + 1)
            segment = position + 1
            if contains(entries, value):
                return True
    return False


@kernel
def _file_blocked(data: Bytes, path: int, end: int, host: np.uint64, entries: Hashes) -> bool:
    stop = query_start(data, path, end)
    if contains(entries, expression_hash(data, path, stop, host)):
        return True
    return stop < end and contains(entries, expression_hash(data, path, end, host))


@kernel
def name_blocked(host: Bytes, entries: Hashes) -> bool:
    """Whether a host or one of its parent domains is among the sorted entries."""
    start, end = 0, host.size
    while end > 0 and host[end - 1] == 46:
        end -= 1
    while start < end:
        if contains(entries, name_hash(host, start, end)):
            return True
        start = parent_name(host, start, end)
    return False


@kernel
def parent_name(data: Bytes, start: int, end: int) -> int:
    """Returns where the parent domain begins; `end` for a top-level domain and an address."""
    if data[start] == 91 or _ends_in_number(data, start, end):
        return end
    position = start
    while position < end and data[position] != 46:
        position += 1
    return min(position + 1, end)


@kernel
def _ends_in_number(data: Bytes, start: int, end: int) -> bool:
    """Whether a host is an IPv4 address (URL standard 3.5: its last label is a number)."""
    position = end - 1
    while position >= start and 48 <= data[position] <= 57:
        position -= 1
    return position < end - 1 and (position < start or data[position] == 46)

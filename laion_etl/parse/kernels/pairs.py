"""Kernels for pair ids (MD5), the table of recent ids, repeated texts, and Arrow strings from spans."""

import math

import numpy as np
import numpy.typing as npt

from laion_etl.core.intrinsics import copy_bytes
from laion_etl.core.kernels import Bytes, Hashes, Ints, hash_of
from laion_etl.core.numba_cache import borrowing_kernel, kernel

Sizes = npt.NDArray[np.uint16]

# RFC 1321, 3.4: the sines of its steps.
_SINES = np.array([int(abs(math.sin(i + 1)) * 2**32) for i in range(64)], np.uint32)
_BLOCK = 64


@kernel
def pair_ids(data: Bytes, urls: Ints, url_ends: Ints, captions: Ints, caption_ends: Ints) -> Bytes:
    """Computes MD5 (RFC 1321) of url + caption per row; shape (rows, 16)."""
    out = np.empty((urls.size, 16), np.uint8)
    message = np.empty(4 * _BLOCK, np.uint8)
    for row in range(urls.size):
        url_bytes, caption_bytes = url_ends[row] - urls[row], caption_ends[row] - captions[row]
        size = url_bytes + caption_bytes
        padded = (size + 8) // _BLOCK * _BLOCK + _BLOCK
        if padded > message.size:
            message = np.empty(2 * padded, np.uint8)
        copy_bytes(message, 0, data, urls[row], url_bytes)
        copy_bytes(message, url_bytes, data, captions[row], caption_bytes)
        message[size] = 0x80
        for i in range(size + 1, padded):
            message[i] = 0
        bits = size * 8
        for i in range(5):
            message[padded - 8 + i] = (bits >> (8 * i)) & 0xFF
        _md5(message[:padded], out[row])
    return out


@borrowing_kernel
def _md5(message: Bytes, out: Bytes) -> None:
    a0, b0 = np.uint32(0x67452301), np.uint32(0xEFCDAB89)
    c0, d0 = np.uint32(0x98BADCFE), np.uint32(0x10325476)
    words = message.view(np.uint32)
    for block in range(0, words.size, 16):
        a, b, c, d = a0, b0, c0, d0
        for i in range(0, 16, 4):
            a = _turned(a, b, (b & c) | (~b & d), i, words[block + i], 7)
            d = _turned(d, a, (a & b) | (~a & c), i + 1, words[block + i + 1], 12)
            c = _turned(c, d, (d & a) | (~d & b), i + 2, words[block + i + 2], 17)
            b = _turned(b, c, (c & d) | (~c & a), i + 3, words[block + i + 3], 22)
        for i in range(16, 32, 4):
            a = _turned(a, b, (d & b) | (~d & c), i, words[block + ((5 * i + 1) & 15)], 5)
            d = _turned(d, a, (c & a) | (~c & b), i + 1, words[block + ((5 * i + 6) & 15)], 9)
            c = _turned(c, d, (b & d) | (~b & a), i + 2, words[block + ((5 * i + 11) & 15)], 14)
            b = _turned(b, c, (a & c) | (~a & d), i + 3, words[block + ((5 * i + 16) & 15)], 20)
        for i in range(32, 48, 4):
            a = _turned(a, b, b ^ c ^ d, i, words[block + ((3 * i + 5) & 15)], 4)
            d = _turned(d, a, a ^ b ^ c, i + 1, words[block + ((3 * i + 8) & 15)], 11)
            c = _turned(c, d, d ^ a ^ b, i + 2, words[block + ((3 * i + 11) & 15)], 16)
            b = _turned(b, c, c ^ d ^ a, i + 3, words[block + ((3 * i + 14) & 15)], 23)
        for i in range(48, 64, 4):
            a = _turned(a, b, c ^ (b | ~d), i, words[block + ((7 * i) & 15)], 6)
            d = _turned(d, a, b ^ (a | ~c), i + 1, words[block + ((7 * i + 7) & 15)], 10)
            c = _turned(c, d, a ^ (d | ~b), i + 2, words[block + ((7 * i + 14) & 15)], 15)
            b = _turned(b, c, d ^ (c | ~a), i + 3, words[block + ((7 * i + 21) & 15)], 21)
        a0, b0 = np.uint32(a0 + a), np.uint32(b0 + b)
        c0, d0 = np.uint32(c0 + c), np.uint32(d0 + d)
    digest = out.view(np.uint32)
    digest[0], digest[1], digest[2], digest[3] = a0, b0, c0, d0


@borrowing_kernel
def _turned(a: np.uint32, b: np.uint32, mixed: np.uint32, i: int, word: np.uint32, shift: int) -> np.uint32:
    """Performs the operation of one step."""
    total = np.uint32(mixed + a + _SINES[i] + word)
    return np.uint32(b + np.uint32((total << np.uint32(shift)) | (total >> np.uint32(32 - shift))))


SEEN, FRESH, SAME_ID = 0, 1, 2  # findings of `add_unseen`


@borrowing_kernel
def add_unseen(
    ids: Hashes,
    sizes: Sizes,
    table: tuple[Hashes, Sizes],
    limit: int,
    older: tuple[Hashes, Sizes],
    found: Bytes,
) -> tuple[int, int]:
    """Adds ids (rows, 2), with the sizes of their URLs, to an open-addressing table (slots, 2).

    Sets findings: FRESH if neither table had the id; SAME_ID if one had it for a URL of another size, so for
    another pair. The id of two zeros marks an empty slot and is always fresh. Stops when `limit` ids were
    added. Returns the numbers of rows processed and of ids added.
    """
    added = 0
    for row in range(ids.shape[0]):
        if added == limit:
            return row, added
        first, second = ids[row, 0], ids[row, 1]
        slot = _slot_of(table[0], first, second)
        known = table[0][slot, 0] == first and table[0][slot, 1] == second
        size = table[1][slot]
        if not known and older[0].shape[0]:
            place = _slot_of(older[0], first, second)
            known = older[0][place, 0] == first and older[0][place, 1] == second
            size = older[1][place]
        if first == 0 and second == 0:
            found[row] = FRESH
        elif known:
            found[row] = SEEN if size == sizes[row] else SAME_ID
        else:
            found[row] = FRESH
        if not known:
            table[0][slot, 0], table[0][slot, 1] = first, second
            table[1][slot] = sizes[row]
            added += 1
    return ids.shape[0], added


@borrowing_kernel
def _slot_of(table: Hashes, first: np.uint64, second: np.uint64) -> np.uint64:
    """Returns the slot of an id, or its free slot: linear probing from its low bits (MD5 is uniform)."""
    mask = np.uint64(table.shape[0] - 1)
    slot = np.uint64(first) & mask
    while True:
        stored, rest = table[slot, 0], table[slot, 1]
        if (stored == first and rest == second) or (stored == 0 and rest == 0):
            return slot
        slot = (slot + np.uint64(1)) & mask


@borrowing_kernel
def rehash(old: tuple[Hashes, Sizes], table: tuple[Hashes, Sizes]) -> None:
    """Copies all ids of a table into an empty, larger one."""
    ids, larger = old[0], table[0]
    for i in range(ids.shape[0]):
        if ids[i, 0] != 0 or ids[i, 1] != 0:
            slot = _slot_of(larger, ids[i, 0], ids[i, 1])
            larger[slot, 0], larger[slot, 1] = ids[i, 0], ids[i, 1]
            table[1][slot] = old[1][i]


@kernel
def gather(data: Bytes, starts: Ints, ends: Ints, offsets: Ints) -> Bytes:
    """Concatenates the bytes of the spans; fills in `offsets` (rows + 1) as Arrow requires."""
    total = 0
    offsets[0] = 0
    for row in range(starts.size):
        total += ends[row] - starts[row]
        offsets[row + 1] = total
    out = np.empty(total, np.uint8)
    for row in range(starts.size):
        copy_bytes(out, offsets[row], data, starts[row], ends[row] - starts[row])
    return out


@kernel
def text_hashes(data: Bytes, starts: Ints, ends: Ints) -> Hashes:
    """Hashes texts, with ASCII letters lower-cased."""
    hashes = np.empty(starts.size, np.uint64)
    for row in range(starts.size):
        hashes[row] = hash_of(data, starts[row], ends[row])
    return hashes


_COUNT = np.uint64(0xFFFFF)  # the bits of a slot that hold the count; the others hold those of the hash


@borrowing_kernel
def count_texts(table: Hashes, texts: Hashes, max_repeats: int, repeated: Bytes) -> None:
    """Counts texts in an open-addressing table; sets `repeated` from the `max_repeats` + 1st occurrence on.

    A slot is 44 bits of the hash and 20 of the count, so one memory access is enough. Once the table is full,
    new texts are not counted, and so never marked as repeated.
    """
    mask = np.uint64(table.size - 1)
    for row in range(texts.size):
        slot, tag = texts[row] & mask, texts[row] & ~_COUNT
        for _ in range(64):
            stored = table[slot]
            if stored == 0 or stored & ~_COUNT == tag:
                count = (stored & _COUNT) + np.uint64(stored & _COUNT < _COUNT)
                table[slot] = tag | count
                repeated[row] = count > max_repeats
                break
            slot = (slot + np.uint64(1)) & mask

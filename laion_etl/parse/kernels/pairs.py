"""Identities of pairs (MD5), the set of those already seen, and Arrow strings out of spans."""

import math

import numpy as np

from laion_etl.parse.kernels import Bytes, Hashes, Ints, Longs, hash_of, kernel

# RFC 1321: sines, shifts and the order of the words of a block.
_SINES = np.array([int(abs(math.sin(i + 1)) * 2**32) for i in range(64)], np.uint32)
_SHIFTS = np.array(
    [7, 12, 17, 22] * 4 + [5, 9, 14, 20] * 4 + [4, 11, 16, 23] * 4 + [6, 10, 15, 21] * 4, np.uint32
)
_BLOCK = 64


@kernel
def pair_ids(data: Bytes, urls: Ints, url_ends: Ints, alts: Ints, alt_ends: Ints) -> Bytes:
    """MD5 (RFC 1321) of url + alt of every row; shape (rows, 16)."""
    out = np.empty((urls.size, 16), np.uint8)
    message = np.empty(4 * _BLOCK, np.uint8)
    for row in range(urls.size):
        url_bytes, alt_bytes = url_ends[row] - urls[row], alt_ends[row] - alts[row]
        size = url_bytes + alt_bytes
        padded = (size + 8) // _BLOCK * _BLOCK + _BLOCK
        if padded > message.size:
            message = np.empty(2 * padded, np.uint8)
        for i in range(url_bytes):
            message[i] = data[urls[row] + i]
        for i in range(alt_bytes):
            message[url_bytes + i] = data[alts[row] + i]
        message[size] = 0x80
        for i in range(size + 1, padded):
            message[i] = 0
        bits = size * 8
        for i in range(5):
            message[padded - 8 + i] = (bits >> (8 * i)) & 0xFF
        _md5(message[:padded], out[row])
    return out


@kernel
def _md5(message: Bytes, out: Bytes) -> None:
    a0, b0 = np.uint32(0x67452301), np.uint32(0xEFCDAB89)
    c0, d0 = np.uint32(0x98BADCFE), np.uint32(0x10325476)
    words = message.view(np.uint32)
    for block in range(0, words.size, 16):
        a, b, c, d = a0, b0, c0, d0
        for i in range(64):
            if i < 16:
                mixed, g = (b & c) | (~b & d), i
            elif i < 32:
                mixed, g = (d & b) | (~d & c), (5 * i + 1) & 15
            elif i < 48:
                mixed, g = b ^ c ^ d, (3 * i + 5) & 15
            else:
                mixed, g = c ^ (b | ~d), (7 * i) & 15
            turned = np.uint32(mixed + a + _SINES[i] + words[block + g])
            shift = _SHIFTS[i]
            a, d, c = d, c, b
            b = np.uint32(b + np.uint32((turned << shift) | (turned >> np.uint32(np.uint32(32) - shift))))
        a0, b0 = np.uint32(a0 + a), np.uint32(b0 + b)
        c0, d0 = np.uint32(c0 + c), np.uint32(d0 + d)
    digest = out.view(np.uint32)
    digest[0], digest[1], digest[2], digest[3] = a0, b0, c0, d0


@kernel
def add_unseen(
    ids: Hashes, rows: int, table: Hashes, limit: int, older: Hashes, fresh: Bytes
) -> tuple[int, int]:
    """Puts ids (rows, 2) into an open-addressing table (slots, 2) and sets `fresh` where neither table had
    them.

    The id of two zeros is the empty slot and always fresh. Stops when `limit` ids were added: the number of
    rows looked at, and of ids added.
    """
    added = 0
    for row in range(rows):
        if added == limit:
            return row, added
        first, second = ids[row, 0], ids[row, 1]
        slot = _slot_of(table, first, second)
        known = table[slot, 0] == first and table[slot, 1] == second
        if not known and older.shape[0]:
            place = _slot_of(older, first, second)
            known = older[place, 0] == first and older[place, 1] == second
        fresh[row] = not known or (first == 0 and second == 0)
        if not known:
            table[slot, 0], table[slot, 1] = first, second
            added += 1
    return rows, added


@kernel
def _slot_of(table: Hashes, first: np.uint64, second: np.uint64) -> np.uint64:
    """Where an id is, or would go: linear probing from its low bits (MD5 spreads them evenly)."""
    mask = np.uint64(table.shape[0] - 1)
    slot = np.uint64(first) & mask
    while True:
        stored, rest = table[slot, 0], table[slot, 1]
        if (stored == first and rest == second) or (stored == 0 and rest == 0):
            return slot
        slot = (slot + np.uint64(1)) & mask


@kernel
def rehash(old: Hashes, table: Hashes) -> None:
    """Moves all ids of a table into an empty, larger one."""
    for i in range(old.shape[0]):
        if old[i, 0] != 0 or old[i, 1] != 0:
            slot = _slot_of(table, old[i, 0], old[i, 1])
            table[slot, 0], table[slot, 1] = old[i, 0], old[i, 1]


@kernel
def gather(data: Bytes, starts: Ints, ends: Ints, offsets: Ints) -> Bytes:
    """The bytes of the spans one after another; `offsets` (rows + 1) are filled in as Arrow has them."""
    total = 0
    offsets[0] = 0
    for row in range(starts.size):
        total += ends[row] - starts[row]
        offsets[row + 1] = total
    out = np.empty(total, np.uint8)
    for row in range(starts.size):
        start, offset = starts[row], offsets[row]
        for i in range(ends[row] - start):
            out[offset + i] = data[start + i]
    return out


@kernel
def text_hashes(data: Bytes, starts: Ints, ends: Ints) -> Hashes:
    """A hash per text, ASCII letters lowered."""
    hashes = np.empty(starts.size, np.uint64)
    for row in range(starts.size):
        hashes[row] = hash_of(data, starts[row], ends[row])
    return hashes


@kernel
def count_texts(hashes: Hashes, counts: Longs, texts: Hashes, most: int, repeated: Bytes) -> None:
    """Counts every text in an open-addressing table and sets `repeated` from its `most` + 1st time on.

    A full table takes no new texts: they are not counted, and never repeated.
    """
    mask = np.uint64(hashes.size - 1)
    for row in range(texts.size):
        slot = texts[row] & mask
        for _ in range(64):
            if hashes[slot] == texts[row] or counts[slot] == 0:
                hashes[slot] = texts[row]
                counts[slot] += 1
                repeated[row] = counts[slot] > most
                break
            slot = (slot + np.uint64(1)) & mask

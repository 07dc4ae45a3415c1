"""Hashes of images that must never be stored, as published by hotlines or named in removal requests.

Exact matches: MD5 and SHA-256 digests in sorted arrays, looked up by binary search. Near matches: PDQ hashes
within a few bits of a blocked one. A hash of 256 bits is cut into 16 words; two hashes that differ in at most
31 bits have a word in which they differ in at most one bit, so only blocked hashes with such a word are
compared in full.
"""

from collections.abc import Iterable

import numpy as np

from laion_etl.core.errors import InputError
from laion_etl.io.remote_files import open_input

_MD5_BYTES = 16
_SHA256_BYTES = 32
_PDQ_BYTES = 32
_WORDS = 16
_NEAR_WORDS = np.array([0, *(1 << bit for bit in range(16))], dtype=np.uint16)  # differ in at most one bit
_MAX_DISTANCE_BY_WORDS = 2 * _WORDS - 1


class HashBlocklist:
    """MD5 and SHA-256 digests: 16 or 32 bytes each."""

    def __init__(self, md5: Iterable[bytes] = (), sha256: Iterable[bytes] = ()) -> None:
        self._md5 = np.unique(np.array(list(md5), dtype=f"V{_MD5_BYTES}"))
        self._sha256 = np.unique(np.array(list(sha256), dtype=f"V{_SHA256_BYTES}"))

    @classmethod
    def load(cls, uri: str) -> "HashBlocklist":
        """Reads a file with one hex digest per line and '#' comments; '' is an empty list.

        Raises InputError naming the first invalid line.
        """
        digests = _read(uri, (_MD5_BYTES, _SHA256_BYTES), "an MD5 or SHA-256 digest")
        return cls(
            [digest for digest in digests if len(digest) == _MD5_BYTES],
            [digest for digest in digests if len(digest) == _SHA256_BYTES],
        )

    def __len__(self) -> int:
        return len(self._md5) + len(self._sha256)

    def matches(self, md5: bytes, sha256: bytes) -> bool:
        """Whether an image with these digests is blocked."""
        return _contains(self._md5, md5) or _contains(self._sha256, sha256)


class PdqBlocklist:
    """PDQ hashes, and by how many bits a blocked image may differ from them; about 100 bytes per hash."""

    def __init__(self, hashes: Iterable[bytes] = (), distance: int = 0) -> None:
        self._hashes = np.frombuffer(b"".join(sorted(set(hashes))), dtype=np.uint8).reshape(-1, _PDQ_BYTES)
        self._distance = distance
        words = self._hashes.view(np.uint16)
        self._order = np.argsort(words, axis=0, kind="stable").astype(np.int32)
        self._sorted = np.take_along_axis(words, self._order, axis=0)

    @classmethod
    def load(cls, uri: str, distance: int) -> "PdqBlocklist":
        """Reads a file with one hash of 64 hex digits per line and '#' comments; '' is an empty list."""
        return cls(_read(uri, (_PDQ_BYTES,), "a PDQ hash"), distance)

    def __len__(self) -> int:
        return len(self._hashes)

    def matches(self, pdq: bytes) -> bool:
        """Whether a blocked hash is within the configured distance of this one."""
        if not len(self._hashes):
            return False
        mine = np.frombuffer(pdq, dtype=np.uint8)
        candidates = self._candidates(mine) if self._distance <= _MAX_DISTANCE_BY_WORDS else self._hashes
        bits = np.bitwise_count(candidates ^ mine).sum(axis=1, dtype=np.int64)
        return bool((bits <= self._distance).any())

    def _candidates(self, mine: np.ndarray) -> np.ndarray:
        found = [np.zeros(0, np.int32)]
        for place, word in enumerate(mine.view(np.uint16)):
            near = word ^ _NEAR_WORDS
            column = self._sorted[:, place]
            first, last = np.searchsorted(column, near), np.searchsorted(column, near, "right")
            found += [self._order[a:b, place] for a, b in zip(first, last, strict=True) if a < b]
        return self._hashes[np.concatenate(found)]


def _read(uri: str, lengths: tuple[int, ...], kind: str) -> list[bytes]:
    if not uri:
        return []
    digests = []
    with open_input(uri) as file:
        for number, line in enumerate(file, 1):
            text = line.partition(b"#")[0].strip()
            if text:
                digests.append(_digest(text, lengths, kind, uri, number))
    return digests


def _digest(text: bytes, lengths: tuple[int, ...], kind: str, uri: str, number: int) -> bytes:
    try:
        digest = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        digest = b""
    if len(digest) not in lengths:
        raise InputError(
            f"cannot read {uri} line {number}: {text[:80]!r} is not {kind} in hexadecimal; "
            "correct or remove the line"
        )
    return digest


def _contains(digests: np.ndarray, digest: bytes) -> bool:
    if not len(digests):
        return False
    index = int(np.searchsorted(digests, np.void(digest)))
    return index < len(digests) and digests[index].tobytes() == digest

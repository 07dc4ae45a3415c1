"""Hashes of images that must never be stored, as published by hotlines or named in removal requests.

Exact matches: MD5 and SHA-256 digests in sorted arrays, looked up by binary search. Near matches: PDQ hashes
within a few bits of a blocked one (near_hashes.py).
"""

from collections.abc import Iterable

import numpy as np

from laion_etl.blocklists.near_hashes import HASH_BYTES, NearIndex
from laion_etl.core.errors import InputError
from laion_etl.io.remote_files import open_input

_MD5_BYTES = 16
_SHA256_BYTES = 32


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
    """PDQ hashes, and by how many bits a blocked image may differ from them; about 130 bytes per hash."""

    def __init__(self, hashes: Iterable[bytes] = (), distance: int = 0) -> None:
        known = np.frombuffer(b"".join(sorted(set(hashes))), dtype=np.uint8).reshape(-1, HASH_BYTES)
        self._count = len(known)
        self._index = NearIndex(known, distance)

    @classmethod
    def load(cls, uri: str, distance: int) -> "PdqBlocklist":
        """Reads a file with one hash of 64 hex digits per line and '#' comments; '' is an empty list."""
        return cls(_read(uri, (HASH_BYTES,), "a PDQ hash"), distance)

    def __len__(self) -> int:
        return self._count

    def matches(self, pdq: bytes) -> bool:
        """Whether a blocked hash is within the configured distance of this one."""
        return self._count > 0 and self._index.has_near(np.frombuffer(pdq, dtype=np.uint8)[None])


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

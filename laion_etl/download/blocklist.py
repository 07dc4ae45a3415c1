"""Hashes of images that must never be stored, as published by hotlines and removal requests."""

from collections.abc import Iterable

import numpy as np

from laion_etl.errors import InputError
from laion_etl.inputs import open_input

_MD5_BYTES = 16
_SHA256_BYTES = 32


class HashBlocklist:
    """MD5 and SHA-256 digests in sorted arrays: 16 or 32 bytes each, a look-up is a binary search."""

    def __init__(self, md5: Iterable[bytes] = (), sha256: Iterable[bytes] = ()) -> None:
        self._md5 = np.unique(np.array(list(md5), dtype=f"V{_MD5_BYTES}"))
        self._sha256 = np.unique(np.array(list(sha256), dtype=f"V{_SHA256_BYTES}"))

    @classmethod
    def load(cls, uri: str) -> "HashBlocklist":
        """Reads a file of hex digests, one a line, '#' comments; '' is an empty list.

        Raises InputError naming the line that is no digest.
        """
        if not uri:
            return cls()
        digests: dict[int, list[bytes]] = {_MD5_BYTES: [], _SHA256_BYTES: []}
        with open_input(uri) as file:
            for number, line in enumerate(file, 1):
                text = line.partition(b"#")[0].strip()
                if text:
                    digest = _digest(text, uri, number)
                    digests[len(digest)].append(digest)
        return cls(digests[_MD5_BYTES], digests[_SHA256_BYTES])

    def __len__(self) -> int:
        return len(self._md5) + len(self._sha256)

    def matches(self, md5: bytes, sha256: bytes) -> bool:
        """Whether an image with these digests is blocked."""
        return _contains(self._md5, md5) or _contains(self._sha256, sha256)


def _digest(text: bytes, uri: str, number: int) -> bytes:
    try:
        digest = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        digest = b""
    if len(digest) not in (_MD5_BYTES, _SHA256_BYTES):
        raise InputError(f"{uri} line {number} is no MD5 or SHA-256 in hexadecimal: {text[:80]!r}")
    return digest


def _contains(digests: np.ndarray, digest: bytes) -> bool:
    if not len(digests):
        return False
    index = int(np.searchsorted(digests, np.void(digest)))
    return index < len(digests) and digests[index].tobytes() == digest

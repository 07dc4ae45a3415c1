"""Digests of an image as it came."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hashes:
    """Hex digests of the bytes before anything was done to them."""

    sha256: str
    md5: str

    @classmethod
    def of(cls, data: bytes) -> "Hashes":
        return cls(hashlib.sha256(data).hexdigest(), hashlib.md5(data, usedforsecurity=False).hexdigest())

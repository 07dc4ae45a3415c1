"""Batch numbers that were given before a round of planning began, by the digest of the batch's pairs."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class EarlierNumbers:
    """The numbers below `before`: arrays, of 24 bytes a number, for there may be a million."""

    before: int
    digests: npt.NDArray[np.bytes_]  # ascending
    numbers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, before: int, given: Iterable[tuple[int, str]]) -> "EarlierNumbers":
        """Sort numbers, which come ascending and each with its digest, by digest."""
        found = list(given)
        digests = np.array([digest for _, digest in found], dtype="S16")
        numbers = np.array([number for number, _ in found], dtype=np.int64)
        order = np.argsort(digests, kind="stable")
        return cls(before, digests[order], numbers[order])

    def number_of(self, digest: str) -> int | None:
        """Return the lowest number that a batch with this digest has."""
        key = np.bytes_(digest.encode())
        place = int(np.searchsorted(self.digests, key))
        found = place < len(self.digests) and self.digests[place] == key
        return int(self.numbers[place]) if found else None

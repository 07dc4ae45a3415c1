"""Compares the images of one slice of a band, in memory, or in parts if there are too many for it.

A slice has two million records, unless one value of the band has more, as millions of images agree in it.
Then its records are put into temporary files (TMPDIR), about a million in each and those with the same value
together, and each file is compared as a slice. Of a file that is still too large the images are connected as
in memory, but hashes and pairs are in mapped files (blocklists/near_runs.py), and the images of earlier
crawls are looked up a million at a time. What is found to be near is the same.

Refused: leaving out values that very many share, as near images mostly agree in another band, too. A kind of
image, such as scans of forms, agrees in nearly all bands.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from laion_etl.blocklists.near_better import near_listed
from laion_etl.blocklists.near_hashes import cuts, to_words
from laion_etl.blocklists.near_kernels import band_values, mark_near_others
from laion_etl.blocklists.near_runs import connected
from laion_etl.core.spilled_arrays import spilled
from laion_etl.publish.band_files import IMAGE, KNOWN, Bands, BandsFile, Records
from laion_etl.publish.near_checkpoints import Compared
from laion_etl.publish.spools import STEP, Spool, deal, spools

_MOST_IN_MEMORY = 3 << 20  # records, some 400 bytes each
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # not that of band_files.py, by which all are in one slice
_NONE = np.empty(0, IMAGE)


def compare_slice(own: Records, known: Records, bits: int, band: int) -> Compared:
    """Return pairs of images that connect all near ones, and images near to known ones, by one band.

    An image that stands for others of the same hash is paired with itself, by the first band.
    """
    firsts, widths = cuts(bits)
    first, width = int(firsts[band]), int(widths[band])
    words, known_words = to_words(own["pdq"]), to_words(known["pdq"])
    values, known_values = band_values(words, first, width), band_values(known_words, first, width)
    order, known_order = np.argsort(values, kind="stable"), np.argsort(known_values, kind="stable")
    words, values, own = words[order], values[order], own[order]
    near = np.zeros(len(own), np.bool_)
    mark_near_others(
        words, values, known_words[known_order], known_values[known_order], bits, band, firsts, widths, near
    )
    edges = connected(words, values, bits, band)
    alone = np.flatnonzero(own["several"]) if band == 0 else np.empty(0, np.int64)
    return own[np.concatenate([edges.ravel(), np.repeat(alone, 2)])], own[near]


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of a band of all files."""

    own: Sequence[BandsFile]
    known: Sequence[BandsFile]
    bands: Bands
    band: int
    number: int

    @property
    def is_large(self) -> bool:
        """Whether it has more records than are compared in memory."""
        return self._count > _MOST_IN_MEMORY

    @property
    def _count(self) -> int:
        return sum(one.count(self.band, self.number) for one in (*self.own, *self.known))

    def in_memory(self, readers: ThreadPoolExecutor) -> Compared:
        """Return what `compare_slice` returns for it."""
        return compare_slice(
            self._read(self.own, IMAGE, readers),
            self._read(self.known, KNOWN, readers),
            self.bands.bits,
            self.band,
        )

    def _read(
        self, files: Sequence[BandsFile], dtype: np.dtype[np.void], readers: ThreadPoolExecutor
    ) -> Records:
        found = readers.map(lambda one: one.read(self.band, self.number), files)
        return np.concatenate([np.empty(0, dtype), *found])

    def in_parts(self) -> Iterator[Compared]:
        """Yield what `compare_slice` returns for all of it, in parts."""
        with ExitStack() as stack:
            count = -(-self._count // STEP)
            own, known = spools(count, IMAGE, stack), spools(count, KNOWN, stack)
            self._deal(self.own, own)
            self._deal(self.known, known)
            for images, others in zip(own, known, strict=True):
                yield from self._of_part(images, others)

    def _deal(self, files: Sequence[BandsFile], to: Sequence[Spool]) -> None:
        for file in files:
            for records in file.parts(self.band, self.number, STEP):
                mixed = (self.bands.values(records["pdq"], self.band) * _MIX) >> np.uint64(32)
                deal(records, (mixed % np.uint64(len(to))).astype(np.int64), to)

    def _of_part(self, images: Spool, others: Spool) -> Iterator[Compared]:
        if images.count + others.count <= _MOST_IN_MEMORY:
            yield compare_slice(images.read(), others.read(), self.bands.bits, self.band)
            return
        yield from self._connected(images)
        for some in images.parts():
            hashes = np.ascontiguousarray(some["pdq"])
            near = np.zeros(len(some), np.bool_)
            for known in others.parts():
                left = np.flatnonzero(~near)
                near[left] = near_listed(np.ascontiguousarray(known["pdq"]), hashes[left], self.bands.bits)
            yield _NONE, some[near]

    def _connected(self, images: Spool) -> Iterator[Compared]:
        """Yield pairs as `compare_slice`."""
        values, words = spilled((images.count,), np.uint64), spilled((images.count, 4), np.uint64)
        records, start = images.read(), 0
        for part in images.parts():
            values[start : start + len(part)] = self.bands.values(part["pdq"], self.band)
            start += len(part)
        order = np.argsort(values, kind="stable")
        for start in range(0, len(order), STEP):
            words[start : start + STEP] = to_words(records["pdq"][order[start : start + STEP]])
        edges = connected(words, values[order], self.bands.bits, self.band)
        for start in range(0, len(edges), STEP // 2):
            yield records[order[edges[start : start + STEP // 2].ravel()]], _NONE
        for part in images.parts() if self.band == 0 else ():
            yield np.repeat(part[part["several"] > 0], 2), _NONE

"""Decides which images of connected groups are near duplicates, a bounded number of images at a time.

Given are pairs of images whose groups are to be decided together (near_compare.py finds them). The groups are
found by joining sets of keys in mapped temporary files (TMPDIR), 24 bytes for each image of a pair, which the
system may write to disk. Then whole groups are put into parts of about a million images, or of one group that
is larger, and each part is decided, a million images at a time (near_decisions.py): 300 bytes for each of
these, and at most 700 more however many bits they agree in (near_better.py).
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from laion_etl.blocklists.near_hashes import Hashes, Ints
from laion_etl.blocklists.near_kernels import flatten, join
from laion_etl.core.spilled_arrays import spilled
from laion_etl.publish.band_files import IMAGE, Records
from laion_etl.publish.near_decisions import decided
from laion_etl.publish.spools import deal, spools

KNOWN, DROPPED = -2, -1
_IMAGES_PER_PART = 1 << 20
_STEP = 1 << 20
_NO_KEYS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Decided:
    """For each of some hashes the key of the image that is kept of those with this hash.

    KNOWN: none, an earlier crawl has a near one; DROPPED: none, a better image is near.
    """

    hashes: Hashes
    kept: Ints


class Groups:
    """Collects pairs of images, and images that an earlier crawl has, and decides."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._stack = ExitStack()

    def __enter__(self) -> "Groups":
        self._pairs, self._known = spools(2, IMAGE, self._stack)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, pairs: Records, known: Records) -> None:
        """Add pairs, one image after the other, and images that an earlier crawl has."""
        self._pairs.add(pairs)
        self._known.add(known)

    def decided(self) -> Iterator[Decided]:
        """Decide about all images; yields those of one part after another."""
        keys = self._distinct()
        part_of = self._parts(keys)
        count = int(part_of.max(initial=-1)) + 1
        images, marked = spools(count, IMAGE, self._stack), spools(count, IMAGE, self._stack)
        seen = np.zeros(len(keys), np.bool_)
        for records in self._pairs.parts(_STEP):
            places, first = np.unique(np.searchsorted(keys, records["key"]), return_index=True)
            new = ~seen[places]
            seen[places] = True
            deal(records[first[new]], part_of[places[new]], images)
        for records in self._known.parts(_STEP):
            places = np.minimum(np.searchsorted(keys, records["key"]), max(len(keys) - 1, 0))
            grouped = keys[places] == records["key"] if len(keys) else np.zeros(len(records), np.bool_)
            deal(records[grouped], part_of[places[grouped]], marked)
            alone = records["pdq"][~grouped]
            yield Decided(alone, np.full(len(alone), KNOWN, np.int64))
        for own, marks in zip(images, marked, strict=True):
            known = np.unique(np.concatenate([_NO_KEYS, *(part["key"] for part in marks.parts())]))
            for rows, is_known, near in decided(own, known, self._bits):
                kept = np.where(is_known, KNOWN, np.where(near, DROPPED, rows["key"]))
                yield Decided(rows["pdq"], kept)

    def _distinct(self) -> Ints:
        """Return the keys of all images, ascending, each once."""
        keys, start = spilled((self._pairs.count,), np.int64), 0
        for records in self._pairs.parts(_STEP):
            keys[start : start + len(records)] = records["key"]
            start += len(records)
        keys.sort()
        count, last = 0, -1
        for start in range(0, len(keys), _STEP):
            part = np.array(keys[start : start + _STEP])
            new = part[np.append(part[0] != last, part[1:] != part[:-1])]
            keys[count : count + len(new)] = new
            count, last = count + len(new), int(part[-1])
        return keys[:count]

    def _parts(self, keys: Ints) -> Ints:
        """Return the part of each key: those of a group are in the same."""
        parents, ends = spilled((len(keys),), np.int64), spilled((len(keys),), np.int64)
        ends[:] = 0
        for start in range(0, len(keys), _STEP):
            parents[start : start + _STEP] = np.arange(start, min(start + _STEP, len(keys)))
        for records in self._pairs.parts(_STEP):
            places = np.searchsorted(keys, records["key"])
            join(parents, places[::2], places[1::2])
        flatten(parents)
        for start in range(0, len(keys), _STEP):
            np.add.at(ends, parents[start : start + _STEP], 1)
        np.cumsum(ends, out=ends)
        for start in range(0, len(keys), _STEP):
            roots = parents[start : start + _STEP]
            parents[start : start + _STEP] = (ends[roots] - 1) // _IMAGES_PER_PART
        return parents

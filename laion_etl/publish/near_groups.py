"""Decides which images of connected groups are near duplicates, a bounded number of images at a time.

Given are pairs of images whose groups are to be decided together (near_compare.py finds them). The groups are
found by joining sets of keys in mapped temporary files (TMPDIR), 24 bytes for each image of a pair, which the
system may write to disk. Then whole groups are put into parts of about two million images, and each part is
decided in memory: 300 bytes an image, and at most 700 more however many bits they agree in (near_better.py).
Only a group that is larger than a part makes a part larger.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from laion_etl.blocklists.near_better import near_better
from laion_etl.blocklists.near_hashes import Hashes, Ints
from laion_etl.blocklists.near_kernels import flatten, join
from laion_etl.publish.band_files import Records
from laion_etl.publish.ranked_images import best_first
from laion_etl.publish.spools import Spool

KNOWN, DROPPED = -2, -1
_IMAGES_PER_PART = 1 << 21
_STEP = 1 << 20


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
        self._pairs, self._known = self._spool(), self._spool()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, pairs: Records, known: Records) -> None:
        """Add pairs, one image after the other, and images that an earlier crawl has."""
        self._pairs.add(pairs)
        self._known.add(known)

    def decided(self) -> Iterator[Decided]:
        """Decide about all images; yields those of one part after another."""
        pairs, known = self._pairs.read(), self._known.read()
        keys = self._distinct(pairs)
        part_of = self._parts(keys, pairs)
        count = int(part_of.max(initial=-1)) + 1
        spools = [self._spool() for _ in range(count)]
        marked = [self._spool() for _ in range(count)]
        for records in _steps(pairs):
            _deal(records, part_of[np.searchsorted(keys, records["key"])], spools)
        for records in _steps(known):
            places = np.minimum(np.searchsorted(keys, records["key"]), max(len(keys) - 1, 0))
            grouped = keys[places] == records["key"] if len(keys) else np.zeros(len(records), np.bool_)
            _deal(records[grouped], part_of[places[grouped]], marked)
            alone = records["pdq"][~grouped]
            yield Decided(alone, np.full(len(alone), KNOWN, np.int64))
        for spool, marks in zip(spools, marked, strict=True):
            yield decide(spool.read(), marks.read()["key"], self._bits)

    def _distinct(self, pairs: Records) -> Ints:
        """Return the keys of all images, ascending, each once."""
        keys = self._mapped(len(pairs))
        for start in range(0, len(pairs), _STEP):
            keys[start : start + _STEP] = pairs["key"][start : start + _STEP]
        keys.sort()
        count, last = 0, -1
        for start in range(0, len(keys), _STEP):
            part = np.array(keys[start : start + _STEP])
            new = part[np.append(part[0] != last, part[1:] != part[:-1])]
            keys[count : count + len(new)] = new
            count, last = count + len(new), int(part[-1])
        return keys[:count]

    def _parts(self, keys: Ints, pairs: Records) -> Ints:
        """Return the part of each key: those of a group are in the same."""
        parents, ends = self._mapped(len(keys)), self._mapped(len(keys))
        for start in range(0, len(keys), _STEP):
            parents[start : start + _STEP] = np.arange(start, min(start + _STEP, len(keys)))
        for records in _steps(pairs):
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

    def _spool(self) -> Spool:
        return Spool(self._stack.enter_context(tempfile.TemporaryFile()))

    def _mapped(self, count: int) -> Ints:
        """Return zeros in a temporary file."""
        if not count:
            return np.empty(0, np.int64)
        file = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        file.truncate(8 * count)
        return np.memmap(file, np.int64, "r+", shape=(count,))


def decide(images: Records, known: Ints, bits: int) -> Decided:
    """Decide about images that may occur several times; `known` are keys of those an earlier crawl has."""
    rows = images[np.unique(images["key"], return_index=True)[1]]
    is_known = np.isin(rows["key"], known)
    rest = rows[~is_known]
    rest = rest[best_first(rest["similarity"], rest["pixels"], rest["key"])]
    near = near_better(np.ascontiguousarray(rest["pdq"]), bits)
    kept = np.concatenate(
        [np.full(int(is_known.sum()), KNOWN, np.int64), np.where(near, DROPPED, rest["key"])]
    )
    return Decided(np.concatenate([rows["pdq"][is_known], rest["pdq"]]), kept)


def _steps(records: Records) -> Iterator[Records]:
    """Yield records in parts with an even number each, but the last."""
    for start in range(0, len(records), _STEP):
        yield records[start : start + _STEP]


def _deal(records: Records, parts: Ints, spools: Sequence[Spool]) -> None:
    """Add each record to the spool of its part."""
    order = np.argsort(parts, kind="stable")
    bounds = np.searchsorted(parts[order], np.arange(len(spools) + 1))
    for number in np.unique(parts).tolist():
        spools[number].add(records[order[bounds[number] : bounds[number + 1]]])

"""Finds redundant images of one range among those of all ranges, by the rule of image_dedupe.py.

The problem: the best pair of an image is only known after a look at all ranges, and the samples of a large
crawl do not fit into memory. The choice: every range first writes the digests of its images with what decides
between them (range_images.py). Before a range is published it streams through those of all ranges, and
through those of earlier crawls, and keeps only what concerns its own images; so memory depends on the size of
a range. Each range reads what all have written, some 40 bytes a sample.

Near and semantic duplicates are found before, for all ranges at once (near_compare.py, semantic_compare.py);
a range looks up its hashes and keys.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import HASH_BYTES, Hashes, Ints
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.stage_stats import Output
from laion_etl.io.storage import Store
from laion_etl.publish.band_files import key_numbers
from laion_etl.publish.compared_ranges import Digests
from laion_etl.publish.image_dedupe import (
    DUPLICATE,
    EARLIER_DUPLICATE,
    EARLIER_NEAR_DUPLICATE,
    NEAR_DUPLICATE,
    SEMANTIC_DUPLICATE,
    Redundant,
)
from laion_etl.publish.image_hashes import to_image_hashes
from laion_etl.publish.near_groups import KNOWN
from laion_etl.publish.prepared import BatchRange, comparison_errors
from laion_etl.publish.range_images import Images, known_files, places_among, read_images
from laion_etl.publish.ranked_images import best_first
from laion_etl.publish.semantic_compare import are_redundant

_AT_ONCE = 1 << 18
_NONE = -3  # nothing is decided about a hash
# Each takes precedence over those before it.
_REASONS = ("", SEMANTIC_DUPLICATE, NEAR_DUPLICATE, DUPLICATE, EARLIER_NEAR_DUPLICATE, EARLIER_DUPLICATE)


def find_redundant_in(
    one: BatchRange, digests: Digests, earlier: Sequence[Output], store: Store
) -> Redundant:
    """Find the samples of a range whose image a better sample of the crawl has, or an earlier crawl."""
    own = Images.joined(list(read_images(digests.images[one.number - 1], store)))
    if not len(own.keys):
        return Redundant.nothing()
    reasons = np.zeros(len(own.keys), np.int64)
    if digests.semantic is not None:
        reasons[are_redundant(key_numbers(own.keys), digests.semantic, store)] = 1
    if digests.by_files:
        images, places = np.unique(own.sha256, return_inverse=True)
        best = _best_of(images, digests, store)
        kept = _kept_of(own.pdq, digests.compared, store)
        reasons[(kept != _NONE) & (kept != key_numbers(own.keys))] = 2
        reasons[best[places] != own.keys] = 3
        reasons[kept == KNOWN] = 4
        reasons[known_files(images, earlier, store)[places]] = 5
    chosen = np.flatnonzero(reasons)
    chosen = chosen[np.argsort(own.keys[chosen])]
    return Redundant(own.keys[chosen], tuple(_REASONS[number] for number in reasons[chosen].tolist()))


def _best_of(images: NDArray[np.bytes_], digests: Digests, store: Store) -> NDArray[np.bytes_]:
    """Return the key of the best sample of each image, '' if none of the crawl's own can be it."""
    best = _Best(images)
    for output in digests.images:
        for found in read_images(output, store):
            best.add(found)
    return best.keys(digests.compared, store)


@dataclass(slots=True)
class _Best:
    """The best samples so far of each of some images: one for each PDQ hash that samples of it have.

    Equal files have equal hashes, but for those of shards that were made without them. Which of these are
    known from earlier crawls, and thus are not compared, is looked up at the end.
    """

    images: NDArray[np.bytes_]
    _parts: list[Images] = field(default_factory=list)
    _limit: int = _AT_ONCE

    def add(self, found: Images) -> None:
        """Compare with more samples."""
        _, rows = places_among(self.images, found.sha256)
        self._parts.append(found.chosen(rows))
        if sum(len(part.keys) for part in self._parts) > self._limit:
            self._parts = [self._reduced()]
            self._limit = max(_AT_ONCE, 2 * len(self._parts[0].keys))

    def keys(self, compared: Output | None, store: Store) -> NDArray[np.bytes_]:
        """Return the key of the best sample of each image, '' for none."""
        found = self._reduced()
        found = found.chosen(_kept_of(found.pdq, compared, store) != KNOWN)
        order = best_first(found.similarity, found.pixels, found.keys)
        places, rows = places_among(self.images, found.sha256[order])
        keys = np.zeros(len(self.images), "S20")
        chosen, first = np.unique(places, return_index=True)
        keys[chosen] = found.keys[order[rows[first]]]
        return keys

    def _reduced(self) -> Images:
        found = Images.joined(self._parts)
        found = found.chosen(best_first(found.similarity, found.pixels, found.keys))
        both = np.empty((len(found.keys), 2 * HASH_BYTES), np.uint8)
        both[:, :HASH_BYTES] = _bytes_of(found.sha256)
        both[:, HASH_BYTES:] = found.pdq
        first = np.unique(both.view(f"V{2 * HASH_BYTES}")[:, 0], return_index=True)[1]
        return found.chosen(np.sort(first))


def _bytes_of(digests: NDArray[np.bytes_]) -> Hashes:
    return np.ascontiguousarray(digests.astype(f"S{HASH_BYTES}")).view(np.uint8).reshape(-1, HASH_BYTES)


def _kept_of(hashes: Hashes, compared: Output | None, store: Store) -> Ints:
    """Return what was decided about each hash: see `Decided`, _NONE for nothing."""
    if compared is None or not len(hashes):
        return np.full(len(hashes), _NONE, np.int64)
    listed, places = np.unique(_texts(hashes), return_inverse=True)
    kept = np.full(len(listed), _NONE, np.int64)
    for found, keys in _read_decided(compared, store):
        here, rows = places_among(listed, _texts(found))
        np.maximum.at(kept, here, keys[rows])  # an image that is kept stands for all of its hash
    return kept[places]


def _texts(hashes: Hashes) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(hashes).view(f"S{HASH_BYTES}")[:, 0]


def _read_decided(output: Output, store: Store) -> Iterator[tuple[Hashes, Ints]]:
    with store.open(output.name) as file, comparison_errors(output.name, store):
        for rows in BoundedParquet(file).iter_batches(_AT_ONCE):
            nothing = rows.column("pdq").slice(0, 0)
            yield to_image_hashes(nothing, rows.column("pdq")).pdq, rows.column("kept").to_numpy()

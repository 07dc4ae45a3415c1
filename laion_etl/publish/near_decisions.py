"""Decides which images of a part are near duplicates, at most a million at a time.

The rule is that of near_compare.py. Images are taken from best to worst. Each is compared with those of its
million, and with all kept before. The kept ones are far from each other and therefore few: of a group so
large that it is taken in several steps, nearly all images are near a better one. Where more than a million
are kept, these are in a temporary file and read a million at a time, so that the time, but not the memory, of
a part grows with the square of its kept images.

Refused: dividing a group that does not fit into memory, or keeping one image of it. What is kept would depend
on how images happen to be connected, and images that are near no better one would be left out.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from laion_etl.blocklists.near_better import near_better, near_listed
from laion_etl.blocklists.near_hashes import HASH_BYTES, Ints
from laion_etl.publish.band_files import KNOWN as HASH
from laion_etl.publish.band_files import Records
from laion_etl.publish.ranked_images import best_first, ranks
from laion_etl.publish.spools import Spool, deal, spools

IMAGES_AT_ONCE = 1 << 20
_SAMPLED = 64  # images of each part, by which the bounds of parts are chosen


def decided(
    images: Spool, known: Ints, bits: int
) -> Iterator[tuple[Records, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield images, which are `known` (keys, ascending), and which of the others are near a kept one."""
    kept = np.empty((0, HASH_BYTES), np.uint8)
    with ExitStack() as stack:
        [earlier] = spools(1, HASH, stack)
        for rows in _from_best_to_worst(images, stack):
            hashes, is_known = np.ascontiguousarray(rows["pdq"]), _are_among(rows["key"], known)
            near = np.zeros(len(rows), np.bool_)
            for others in earlier.parts(IMAGES_AT_ONCE):
                left = np.flatnonzero(~is_known & ~near)
                near[left] = near_listed(np.ascontiguousarray(others["pdq"]), hashes[left], bits)
            left = np.flatnonzero(~is_known & ~near)
            near[left] = near_better(np.concatenate([kept, hashes[left]]), bits)[len(kept) :]
            kept = np.concatenate([kept, hashes[~is_known & ~near]])
            if len(kept) >= IMAGES_AT_ONCE:
                earlier.add(kept.view(HASH)[:, 0])
                kept = kept[:0]
            yield rows, is_known, near


def _from_best_to_worst(images: Spool, stack: ExitStack) -> Iterator[Records]:
    """Yield all images in parts, sorted."""
    if not images.count:
        return
    count = -(-images.count // IMAGES_AT_ONCE)
    step = max(images.count // (_SAMPLED * count), 1)
    sample = np.sort(np.concatenate([_ranks_of(part[::step]) for part in images.parts()]))
    bounds = sample[len(sample) // count :: max(len(sample) // count, 1)]
    parts = spools(len(bounds) + 1, images.dtype, stack)
    for some in images.parts():
        deal(some, np.searchsorted(bounds, _ranks_of(some), "right"), parts)
    for part in parts:
        for records in part.parts(part.count or 1):
            yield records[best_first(records["similarity"], records["pixels"], records["key"])]


def _ranks_of(images: Records) -> NDArray[np.bytes_]:
    return ranks(images["similarity"], images["pixels"], images["key"])


def _are_among(keys: Ints, known: Ints) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(keys), np.bool_)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys
    return found

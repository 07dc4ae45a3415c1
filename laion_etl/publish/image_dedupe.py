"""Removes duplicate images: of all pairs with the same image only the best is published.

Two kept samples show the same image if their files are equal (SHA-256), or if their PDQ hashes differ in at
most a configured number of bits (see blocklists/near_hashes.py). Settings choose whether a crawl is compared
only with itself or also with earlier published crawls. An image that an earlier crawl published is redundant,
however good the new pair, because published versions never change. The other samples are taken from best to
worst: higher similarity first, then more pixels, then the lower key; a sample with the same image as one
already taken is redundant.

Two samples may also count as the same image because their CLIP embeddings are near (semantic_compare.py).
That is decided by the same order, among the samples of the crawl, whatever equal files and near hashes leave
out.

The samples of the crawl are held in memory, about 300 bytes each, 500 if earlier crawls are compared.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from laion_etl.blocklists.column_masks import compared_hashes
from laion_etl.blocklists.near_better import near_better
from laion_etl.blocklists.near_hashes import Hashes, Ints, NearIndex, is_informative
from laion_etl.core.funnel import PublishReason
from laion_etl.core.stage_stats import Output
from laion_etl.dataset.scored import ScoredBatch, ScoredCrawl, read_batch
from laion_etl.io.storage import Store
from laion_etl.publish import image_hashes
from laion_etl.publish.semantic_compare import SampleOrder, redundant_at_once
from laion_etl.settings import PublishSettings

DUPLICATE = PublishReason.DUPLICATE_IMAGE.value
NEAR_DUPLICATE = PublishReason.NEAR_DUPLICATE_IMAGE.value
SEMANTIC_DUPLICATE = PublishReason.SEMANTIC_DUPLICATE_IMAGE.value
EARLIER_DUPLICATE = PublishReason.DUPLICATE_IMAGE_OF_EARLIER_CRAWL.value
EARLIER_NEAR_DUPLICATE = PublishReason.NEAR_DUPLICATE_IMAGE_OF_EARLIER_CRAWL.value


@dataclass(frozen=True, slots=True)
class Redundant:
    """Keys of redundant samples, ascending, and the reason for each."""

    keys: NDArray[np.bytes_]
    reasons: tuple[str, ...]

    @classmethod
    def nothing(cls) -> "Redundant":
        return cls(np.empty(0, "S1"), ())

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> dict[str, int]:
        return {reason: self.reasons.count(reason) for reason in sorted(set(self.reasons))}

    def with_reasons(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows with a reason filled in for redundant ones."""
        if not len(self):
            return rows
        keys = np.asarray(rows.column("key").to_pylist(), "S")
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = self.keys[places] == keys
        reasons = [
            self.reasons[place] if hit else None
            for place, hit in zip(places.tolist(), found.tolist(), strict=True)
        ]
        column = rows.schema.get_field_index("reason")
        filled = pc.coalesce(rows.column(column), pa.array(reasons, pa.string()))
        return rows.set_column(column, rows.schema.field(column), filled)


def compared_with(dataset: str, crawl: str, settings: PublishSettings, store: Store) -> tuple[Output, ...]:
    """Return the image hash files of earlier crawls that `find_redundant` compares with."""
    if settings.duplicates == "keep" or not settings.duplicates_of_earlier:
        return ()
    return image_hashes.find_earlier_files(dataset, crawl, store)


def find_redundant(
    scored: ScoredCrawl,
    settings: PublishSettings,
    store: Store,
    earlier: tuple[Output, ...] = (),
    read_rows: Callable[[ScoredBatch], Iterable[pa.RecordBatch]] | None = None,
) -> Redundant:
    """Find the kept samples of a crawl that the settings exclude as duplicates.

    `read_rows` yields the rows of a batch; the default reads the scored rows.
    """
    if not settings.looks_for_duplicates:
        return Redundant.nothing()
    bits = settings.duplicate_bits if settings.duplicates == "near" else None
    samples = _read(scored, read_rows or (lambda batch: read_batch(scored, batch, store)))
    reasons = {}
    if settings.semantic_duplicates:
        redundant = redundant_at_once(samples.order, scored, settings.semantic_duplicates, store)
        reasons = dict.fromkeys(np.flatnonzero(redundant).tolist(), SEMANTIC_DUPLICATE)
    if settings.duplicates != "keep":
        reasons |= _by_hashes(samples, earlier, bits, store)
    places = sorted(reasons, key=lambda place: bytes(samples.keys[place]))
    keys = samples.keys[np.asarray(places, np.int64)]
    return Redundant(keys, tuple(reasons[place] for place in places))


def _by_hashes(
    samples: "_Samples", earlier: tuple[Output, ...], bits: int | None, store: Store
) -> dict[int, str]:
    """Return samples with equal files or near hashes; `bits` None compares only files."""
    reasons = _known_earlier(samples, earlier, bits, store)
    better = samples.best_first()
    better = better[~np.isin(better, np.asarray(list(reasons), np.int64))]
    if bits is not None:
        reasons |= dict.fromkeys(_near(samples, better, bits).tolist(), NEAR_DUPLICATE)
    return reasons | dict.fromkeys(_exact(samples, better).tolist(), DUPLICATE)


@dataclass(frozen=True, slots=True)
class _Samples:
    keys: NDArray[np.bytes_]
    sha256: NDArray[np.bytes_]
    pdq: Hashes
    similarity: NDArray[np.float32]
    pixels: Ints
    lengths: tuple[int, ...]  # of the parts that were read, each of one batch

    @property
    def order(self) -> SampleOrder:
        return SampleOrder(self.keys, self.similarity, self.pixels, self.lengths)

    def best_first(self) -> Ints:
        return np.lexsort((self.keys, -self.pixels, -self.similarity))


def _read(scored: ScoredCrawl, read_rows: Callable[[ScoredBatch], Iterable[pa.RecordBatch]]) -> _Samples:
    parts = []
    for batch in scored.batches:
        for rows in read_rows(batch):
            kept = pa.Table.from_batches([rows]).filter(pc.field("reason").is_null())
            found = image_hashes.to_image_hashes(
                image_hashes.digests(kept["sha256"]), image_hashes.digests(compared_hashes(kept))
            )
            parts.append(
                _Samples(
                    np.asarray(kept["key"].to_pylist(), "S"),
                    found.sha256,
                    found.pdq,
                    kept["similarity"].to_numpy().astype(np.float32),
                    pixels_of(kept).to_numpy().astype(np.int64),
                    (kept.num_rows,),
                )
            )
    return _Samples(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.sha256 for part in parts]),
        np.concatenate([part.pdq for part in parts]),
        np.concatenate([part.similarity for part in parts]),
        np.concatenate([part.pixels for part in parts]),
        tuple(part.lengths[0] for part in parts),
    )


def pixels_of(rows: pa.Table) -> pa.ChunkedArray:
    """Return the pixels of the images as they were fetched; 0 where unknown."""
    width, height = (
        rows[name].cast(pa.int64()).fill_null(0) for name in ("original_width", "original_height")
    )
    return pc.multiply(width, height)


def _known_earlier(
    samples: _Samples, earlier: tuple[Output, ...], bits: int | None, store: Store
) -> dict[int, str]:
    """Return samples whose image an earlier crawl published; `bits` None compares only files."""
    if not earlier:
        return {}
    by_file = np.argsort(samples.sha256, kind="stable")
    files, opened = samples.sha256[by_file], np.zeros(len(by_file) + 1, np.int64)
    informative = np.flatnonzero(is_informative(samples.pdq))
    index = None if bits is None else NearIndex(samples.pdq[informative], bits)
    near = np.zeros(len(informative), np.bool_)
    for output in earlier:
        for known in image_hashes.read(output, store):
            np.add.at(opened, np.searchsorted(files, known.sha256, "left"), 1)
            np.add.at(opened, np.searchsorted(files, known.sha256, "right"), -1)
            if index is not None:
                near[index.near(known.pdq[is_informative(known.pdq)])] = True
    found = dict.fromkeys(informative[near].tolist(), EARLIER_NEAR_DUPLICATE)
    equal = by_file[np.cumsum(opened[:-1]) > 0]  # positions within the run of a known file
    return found | dict.fromkeys(equal.tolist(), EARLIER_DUPLICATE)


def _exact(samples: _Samples, better: Ints) -> Ints:
    """Return all but the best of each group of equal files."""
    rank = np.arange(len(better))
    order = np.lexsort((rank, samples.sha256[better]))
    ordered = better[order]
    same = samples.sha256[ordered][1:] == samples.sha256[ordered][:-1]
    redundant: Ints = ordered[1:][same]
    return redundant


def _near(samples: _Samples, better: Ints, bits: int) -> Ints:
    """Return samples within `bits` of a better one that is not redundant itself."""
    informative = better[is_informative(samples.pdq[better])]
    redundant: Ints = informative[near_better(samples.pdq[informative], bits)]
    return redundant

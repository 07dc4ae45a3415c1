"""What each range writes about its images before any range is published.

`images-00007.parquet` has the digests of the images of range 7 with what decides between equal ones. Where
near duplicates are looked for, `hashes-00007.bands` has their PDQ hashes by bands, and `known-00007.bands`
those of some files of earlier crawls. Where semantic duplicates are looked for, `clusters-00007.bands` has
their embeddings by clusters. compared_ranges.py compares all of these.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.blocklists.column_masks import compared_hashes
from laion_etl.blocklists.near_hashes import HASH_BYTES, Hashes, Ints, is_informative
from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.io.storage import Store
from laion_etl.publish import image_hashes
from laion_etl.publish.band_files import (
    IMAGE,
    KNOWN,
    RECORDS_AT_ONCE,
    Bands,
    BandsWriter,
    Records,
    key_numbers,
)
from laion_etl.publish.batch_vectors import BatchVectors
from laion_etl.publish.clusters import read_clusters
from laion_etl.publish.exclusions import Exclusions, open_exclusions
from laion_etl.publish.image_dedupe import pixels_of
from laion_etl.publish.prepared import BatchRange, Prepared
from laion_etl.publish.ranked_images import best_first
from laion_etl.publish.semantic_compare import ClusterSpool
from laion_etl.settings import PublishSettings

STAGE = "publish hashes"
_FIELDS = [
    pa.field("key", pa.string(), nullable=False),
    pa.field("sha256", pa.binary(HASH_BYTES)),
    pa.field("similarity", pa.float32()),
    pa.field("pixels", pa.int64(), nullable=False),
]
EXACT_SCHEMA = pa.schema(_FIELDS)
NEAR_SCHEMA = pa.schema([*_FIELDS, pa.field("pdq", pa.binary(HASH_BYTES))])
_ROWS_PER_GROUP = 1 << 18
_BATCH_ROWS = 3_000  # kept images of a batch: 600 where scoring keeps a tenth, 6,000 where it keeps all
_ROW_BYTES = 64  # of an image in the files of an earlier crawl, or more


@dataclass(frozen=True, slots=True)
class Images:
    """Some samples: key, digest of the file, and what decides between samples; zeros for no PDQ hash."""

    keys: NDArray[np.bytes_]
    sha256: NDArray[np.bytes_]
    similarity: NDArray[np.float32]
    pixels: Ints
    pdq: Hashes

    def chosen(self, rows: "Ints | slice | NDArray[np.bool_]") -> "Images":
        """Return some of the samples."""
        return Images(
            self.keys[rows], self.sha256[rows], self.similarity[rows], self.pixels[rows], self.pdq[rows]
        )

    @classmethod
    def joined(cls, parts: Sequence["Images"]) -> "Images":
        """Return the samples of all parts."""
        if not parts:
            none, zeros = np.empty(0, "S1"), np.empty(0, np.int64)
            return cls(none, none, zeros.astype(np.float32), zeros, np.empty((0, HASH_BYTES), np.uint8))
        return cls(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.sha256 for part in parts]),
            np.concatenate([part.similarity for part in parts]),
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.pdq for part in parts]),
        )


@dataclass(slots=True)
class ImageRows:
    """Collects the images of a range that one dataset would publish."""

    exclusions: Exclusions
    vectors: BatchVectors | None = None
    clusters: ClusterSpool | None = None
    _tables: list[pa.Table] = field(default_factory=list)

    @property
    def _schema(self) -> pa.Schema:
        return NEAR_SCHEMA if self.exclusions.settings.duplicates == "near" else EXACT_SCHEMA

    def add(self, batch: int, found: pa.RecordBatch, removed: int) -> None:
        """Add rows of a scored batch."""
        del batch
        rows = pa.Table.from_batches([self.exclusions.applied(found, removed)])
        kept = rows.filter(pc.field("reason").is_null())
        columns = {
            "key": kept["key"],
            "sha256": image_hashes.digests(kept["sha256"]),
            "similarity": kept["similarity"],
            "pixels": pixels_of(kept),
        }
        if self._schema is NEAR_SCHEMA:
            columns["pdq"] = image_hashes.digests(compared_hashes(kept))
        self._tables.append(pa.table(columns, schema=self._schema))
        if self.clusters is not None and self.vectors is not None:
            images = _to_images(self._tables[-1])
            self.clusters.add_samples(images.keys, images.similarity, images.pixels, self.vectors)

    def write(self, prepared: Prepared, one: BatchRange, made_from: str, store: Store) -> StageStats:
        """Write the files of the range, then the record that they are there."""
        table = pa.concat_tables([self._schema.empty_table(), *self._tables])
        with store.create(prepared.name_of(one.number, "images", "parquet")) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=_ROWS_PER_GROUP)
        outputs = [file.output]
        if self._schema is NEAR_SCHEMA:
            bands = bands_of(prepared, self.exclusions.settings)
            outputs += _write_bands(prepared, one, bands, table, store)
        if self.clusters is not None:
            self.clusters.flush()
            with store.create(prepared.name_of(one.number, "clusters", "bands")) as file:
                self.clusters.write_to(file)
            outputs.append(file.output)
        stats = StageStats(
            stage=STAGE,
            crawl=prepared.crawl,
            unit=f"{one.number}/{len(prepared.ranges)}",
            fingerprint=made_from,
            input=table.num_rows,
            kept=table.num_rows,
            outputs=tuple(outputs),
        )
        return store.write_stats(record_name(prepared, one), stats)


@contextmanager
def image_rows(
    prepared: Prepared, scored: ScoredCrawl, settings: PublishSettings, store: Store
) -> Iterator[ImageRows]:
    """Return what collects the images of a range. Raises InputError if the clusters are not there."""
    vectors = BatchVectors(scored, store)
    rows = ImageRows(open_exclusions(scored, settings, prepared.variant, store, vectors))
    if not prepared.clusters:
        yield rows
        return
    clusters = read_clusters(prepared.clusters_name, prepared.crawl, store)
    vectors.label = clusters.nearest
    with ClusterSpool(clusters) as spool:
        rows.vectors, rows.clusters = vectors, spool
        yield rows


def record_name(prepared: Prepared, one: BatchRange) -> str:
    """Return the name in the store of the record of a range's digests."""
    return prepared.name_of(one.number, "images", "json")


def finished_hashes(prepared: Prepared, one: BatchRange, made_from: str, store: Store) -> StageStats | None:
    """Return the record of a range whose files are there, made from the same."""
    stats = store.finished(record_name(prepared, one), made_from)
    return stats if stats and all(store.exists(output.name) for output in stats.outputs) else None


def record_of(prepared: Prepared, one: BatchRange, store: Store) -> StageStats:
    """Return the record of a range. Raises InputError if it is not there."""
    unit = f"{one.number}/{len(prepared.ranges)}"
    try:
        stats = store.read_stats(record_name(prepared, one))
        if stats.unit == unit and stats.outputs:
            return stats
        cause = f"it is that of range {stats.unit}"
    except (MissingFileError, DamagedFileError) as error:
        cause = str(error)
    raise InputError(
        f"cannot look for duplicate images of {prepared.crawl}: the digests of range {unit} are not there "
        f"({cause}); run `laion-etl stage publish --crawl {prepared.crawl} --hashes {unit}`"
    )


def bands_of(prepared: Prepared, settings: PublishSettings) -> Bands:
    """Return how hashes of a crawl are divided."""
    own = sum(one.count for one in prepared.ranges) * _BATCH_ROWS
    known = sum(output.bytes for output in prepared.earlier) // _ROW_BYTES
    return Bands.for_records(settings.duplicate_bits, own + known)


def read_images(output: Output, store: Store) -> Iterator[Images]:
    """Yield what a range wrote about its images, many rows at a time."""
    with store.open(output.name) as file:
        try:
            for rows in BoundedParquet(file).iter_batches(_ROWS_PER_GROUP):
                yield _to_images(pa.Table.from_batches([rows]))
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"cannot read {store.uri(output.name)}: {error}; publish the hashes of its range again"
            ) from error


def known_files(images: NDArray[np.bytes_], earlier: Sequence[Output], store: Store) -> NDArray[np.bool_]:
    """Return which of some digests, sorted and each once, are those of images of earlier crawls."""
    known = np.zeros(len(images), np.bool_)
    for output in earlier if len(images) else ():
        for hashes in image_hashes.read(output, store):
            known[places_among(images, hashes.sha256)[0]] = True
    return known


def places_among(images: NDArray[np.bytes_], found: NDArray[np.bytes_]) -> tuple[Ints, Ints]:
    """Return, for those found that are among the images (sorted, each once), place and row."""
    if not len(images):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    places = np.minimum(np.searchsorted(images, found), len(images) - 1)
    rows = np.flatnonzero(images[places] == found)
    return places[rows], rows


def _write_bands(
    prepared: Prepared, one: BatchRange, bands: Bands, table: pa.Table, store: Store
) -> Iterator[Output]:
    """Write the hashes of a range that are not known by their files, and its share of earlier crawls'."""
    images, places = np.unique(image_hashes.to_bytes(table["sha256"]), return_inverse=True)
    unknown = ~known_files(images, prepared.earlier, store)[places]
    name = prepared.name_of(one.number, "hashes", "bands")
    with store.create(name) as file, BandsWriter(file, bands, IMAGE) as writer:
        for start in range(0, table.num_rows, RECORDS_AT_ONCE):
            part = _to_images(table.slice(start, RECORDS_AT_ONCE))
            writer.add(_records(part.chosen(unknown[start : start + RECORDS_AT_ONCE])))
    yield file.output
    if not prepared.earlier:
        return
    name = prepared.name_of(one.number, "known", "bands")
    with store.create(name) as file, BandsWriter(file, bands, KNOWN) as writer:
        for output in prepared.earlier[one.number - 1 :: len(prepared.ranges)]:
            for hashes in image_hashes.read(output, store):
                writer.add(_known_records(hashes.pdq[is_informative(hashes.pdq)]))
    yield file.output


def _records(images: Images) -> Records:
    """Return the informative hashes of samples, each once, with the best sample of each."""
    images = images.chosen(is_informative(images.pdq))
    records = np.empty(len(images.keys), IMAGE)
    records["pdq"], records["key"] = images.pdq, key_numbers(images.keys)
    records["pixels"], records["similarity"] = images.pixels, images.similarity
    records["several"] = 0
    records = records[best_first(records["similarity"], records["pixels"], records["key"])]
    hashes = np.ascontiguousarray(records["pdq"]).view(f"V{HASH_BYTES}")[:, 0]
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    records["several"][first] = counts > 1
    return records[np.sort(first)]


def _known_records(hashes: Hashes) -> Records:
    """Return hashes as records, each once."""
    rows = np.ascontiguousarray(hashes).view(f"V{HASH_BYTES}")[:, 0]
    return np.unique(rows).view(KNOWN)


def _to_images(table: pa.Table) -> Images:
    if "pdq" in table.column_names:
        pdq = image_hashes.to_image_hashes(table["sha256"].slice(0, 0), table["pdq"]).pdq
    else:
        pdq = np.broadcast_to(np.uint8(0), (table.num_rows, HASH_BYTES))
    return Images(
        np.asarray(table["key"].to_pylist(), "S"),
        image_hashes.to_bytes(table["sha256"]),
        table["similarity"].to_numpy().astype(np.float32),
        table["pixels"].to_numpy(),
        pdq,
    )

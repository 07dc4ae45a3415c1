"""Finds images with equal files among the ranges of a crawl, by the rule of image_dedupe.py.

The problem: which pair of an image is the best one, only a look at all ranges tells, and the samples of a
large crawl do not fit into memory. The choice: every range first writes the digests of its images with what
decides between them. Before a range is published it streams through those of all ranges, and through those of
earlier crawls, and keeps only what concerns its own images; so memory depends on the size of a range. Each
range reads what all have written, some 40 bytes a sample. Refused: near duplicates, whose rule depends on a
chain of decisions about better samples wherever they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import HASH_BYTES, Ints
from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.storage import Store
from laion_etl.publish import image_hashes
from laion_etl.publish.exclusions import Exclusions
from laion_etl.publish.image_dedupe import DUPLICATE, EARLIER_DUPLICATE, Redundant, pixels_of
from laion_etl.publish.prepared import BatchRange, Prepared

STAGE = "publish hashes"
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.binary(HASH_BYTES)),
        pa.field("similarity", pa.float32()),
        pa.field("pixels", pa.int64(), nullable=False),
    ]
)
_ROWS_PER_GROUP = 1 << 18


@dataclass(slots=True)
class ImageRows:
    """Collects the images of a range that one dataset would publish."""

    exclusions: Exclusions
    _tables: list[pa.Table] = field(default_factory=list)

    def add(self, batch: int, found: pa.RecordBatch, removed: int) -> None:
        """Add rows of a scored batch."""
        del batch
        rows = pa.Table.from_batches([self.exclusions.applied(found, removed)])
        kept = rows.filter(pc.field("reason").is_null())
        columns = [kept["key"], image_hashes.digests(kept["sha256"]), kept["similarity"], pixels_of(kept)]
        self._tables.append(pa.table(columns, schema=SCHEMA))

    def write(self, prepared: Prepared, one: BatchRange, made_from: str, store: Store) -> StageStats:
        """Write the digests, then the record that they are there."""
        table = pa.concat_tables([SCHEMA.empty_table(), *self._tables])
        with store.create(_name(prepared, one, "parquet")) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=_ROWS_PER_GROUP)
        stats = StageStats(
            stage=STAGE,
            crawl=prepared.crawl,
            unit=f"{one.number}/{len(prepared.ranges)}",
            fingerprint=made_from,
            input=table.num_rows,
            kept=table.num_rows,
            outputs=(file.output,),
        )
        return store.write_stats(record_name(prepared, one), stats)


def record_name(prepared: Prepared, one: BatchRange) -> str:
    """Return the name in the store of the record of a range's digests."""
    return _name(prepared, one, "json")


def digest_files(prepared: Prepared, store: Store) -> tuple[Output, ...]:
    """Return the files of all ranges. Raises InputError if a range has none yet."""
    return tuple(_file_of(prepared, one, store) for one in prepared.ranges)


def find_redundant_in(
    one: BatchRange, files: Sequence[Output], earlier: Sequence[Output], store: Store
) -> Redundant:
    """Find the samples of a range whose image a better sample of the crawl has, or an earlier crawl."""
    own = _joined(list(_read(files[one.number - 1], store)))
    if not len(own.keys):
        return Redundant.nothing()
    images, places = np.unique(own.sha256, return_inverse=True)
    best = _Best.of(images)
    for output in files:
        for found in _read(output, store):
            best.add(found)
    known = np.zeros(len(images), np.bool_)
    for output in earlier:
        for hashes in image_hashes.read(output, store):
            known[_places(images, hashes.sha256)[0]] = True
    redundant = known[places] | (best.keys[places] != own.keys)
    chosen = np.flatnonzero(redundant)
    chosen = chosen[np.argsort(own.keys[chosen])]
    reasons = (EARLIER_DUPLICATE if known[places[row]] else DUPLICATE for row in chosen.tolist())
    return Redundant(own.keys[chosen], tuple(reasons))


@dataclass(frozen=True, slots=True)
class _Images:
    """Some samples: key, digest of the file, and what decides between samples with equal files."""

    keys: NDArray[np.bytes_]
    sha256: NDArray[np.bytes_]
    similarity: NDArray[np.float32]
    pixels: Ints


@dataclass(slots=True)
class _Best:
    """The best sample so far of each of some images: higher similarity, more pixels, lower key."""

    images: NDArray[np.bytes_]
    keys: NDArray[np.bytes_]
    similarity: NDArray[np.float32]
    pixels: Ints

    @classmethod
    def of(cls, images: NDArray[np.bytes_]) -> "_Best":
        count = len(images)
        nothing = np.full(count, -np.inf, np.float32)
        return cls(images, np.zeros(count, "S20"), nothing, np.zeros(count, np.int64))

    def add(self, found: _Images) -> None:
        """Compare with more samples."""
        places, rows = _places(self.images, found.sha256)
        order = np.lexsort((found.keys[rows], -found.pixels[rows], -found.similarity[rows], places))
        places, rows = places[order], rows[order]
        first = np.append(True, places[1:] != places[:-1])[: len(places)]
        places, rows = places[first], rows[first]
        similarity, pixels, keys = found.similarity[rows], found.pixels[rows], found.keys[rows]
        equal = similarity == self.similarity[places]
        larger = (pixels > self.pixels[places]) | (
            (pixels == self.pixels[places]) & (keys < self.keys[places])
        )
        better = (similarity > self.similarity[places]) | (equal & larger)
        places = places[better]
        self.similarity[places], self.pixels[places] = similarity[better], pixels[better]
        self.keys[places] = keys[better]


def _places(images: NDArray[np.bytes_], found: NDArray[np.bytes_]) -> tuple[Ints, Ints]:
    """Return, for those found that are among the images (sorted, each once), place and row."""
    places = np.minimum(np.searchsorted(images, found), len(images) - 1)
    rows = np.flatnonzero(images[places] == found)
    return places[rows], rows


def _name(prepared: Prepared, one: BatchRange, ending: str) -> str:
    return prepared.range_name(one.number).replace("range-", "images-").replace(".json", f".{ending}")


def _file_of(prepared: Prepared, one: BatchRange, store: Store) -> Output:
    unit = f"{one.number}/{len(prepared.ranges)}"
    try:
        stats = store.read_stats(record_name(prepared, one))
        if stats.unit == unit:
            return stats.outputs[0]
        cause = f"it is that of range {stats.unit}"
    except (MissingFileError, DamagedFileError, IndexError) as error:
        cause = str(error)
    raise InputError(
        f"cannot look for duplicate images of {prepared.crawl}: the digests of range {unit} are not there "
        f"({cause}); run `laion-etl stage publish --crawl {prepared.crawl} --hashes {unit}`"
    )


def _read(output: Output, store: Store) -> Iterator[_Images]:
    with store.open(output.name) as file:
        try:
            for rows in pq.ParquetFile(file).iter_batches(_ROWS_PER_GROUP):
                yield _Images(
                    np.asarray(rows.column("key").to_pylist(), "S"),
                    image_hashes.to_bytes(rows.column("sha256")),
                    rows.column("similarity").to_numpy(zero_copy_only=False).astype(np.float32),
                    rows.column("pixels").to_numpy(),
                )
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"cannot read {store.uri(output.name)}: {error}; publish the hashes of its range again"
            ) from error


def _joined(parts: Sequence[_Images]) -> _Images:
    if not parts:
        none = np.empty(0, "S1")
        return _Images(none, none, np.empty(0, np.float32), np.empty(0, np.int64))
    return _Images(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.sha256 for part in parts]),
        np.concatenate([part.similarity for part in parts]),
        np.concatenate([part.pixels for part in parts]),
    )

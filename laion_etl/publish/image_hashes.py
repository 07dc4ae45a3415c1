"""_image_hashes.pq of a version: the hashes of its images, by which later crawls recognise them.

It is a parquet file of another ending, so that `**/*.parquet` matches only rows of the dataset. A version
that was published by ranges of batches has a file for each range, `_image_hashes-00001.pq`. Version 0.1 named
them `_pictures.parquet`, which is still read.
A row per published sample: `key`, `sha256` of the stored file and `pdq` (32 bytes each; null if the
downloader had none, or its quality is too low to recognise an image by it). Later crawls stream through the
files of earlier ones, so memory depends only on the later crawl, and time grows with the rows of the earlier
ones (see docs/how-to/duplicates.md).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.blocklists.column_masks import compared_hashes
from laion_etl.blocklists.near_hashes import HASH_BYTES, Hashes
from laion_etl.core.errors import InputError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schema_history import SchemaHistory
from laion_etl.core.stage_stats import Output
from laion_etl.dataset.manifest import current_manifest
from laion_etl.io.storage import NewFile, Store

_STEM = "_image_hashes"  # readers of whole folders skip names that begin with an underscore
NAME = f"{_STEM}.pq"
_NAMES = re.compile(rf"(?:{_STEM}(-\d{{5}})?\.pq|_pictures(-\d{{5}})?\.parquet)\Z")
FILES = SchemaHistory(
    "image hashes",
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.binary(HASH_BYTES)),
        pa.field("pdq", pa.binary(HASH_BYTES)),
    ],
    in_file=False,  # part of a version, whose manifest has a number
)
SCHEMA = FILES.schema
_ROWS_PER_READ = 1 << 18
_NO_HASH = b"\0" * HASH_BYTES


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """Hashes of some images; zeros if there is none."""

    sha256: NDArray[np.bytes_]  # (n), 32 bytes each
    pdq: Hashes  # (n, 32)


def file_name(range_number: int | None) -> str:
    """Return the name within a version of the hashes of a range of batches; None: of all."""
    return NAME if range_number is None else f"{_STEM}-{range_number:05d}.pq"


class ImageHashesWriter:
    """Writes the rows of published samples to an open file."""

    def __init__(self, file: NewFile) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self.rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Add scored rows; those with a reason are left out."""
        kept = pa.Table.from_batches([rows]).filter(pc.field("reason").is_null())
        columns = {
            "key": kept["key"],
            "sha256": digests(kept["sha256"]),
            "pdq": digests(compared_hashes(kept)),
        }
        self._writer.write_table(pa.table(columns, schema=SCHEMA))
        self.rows += kept.num_rows

    def close(self) -> None:
        self._writer.close()


def digests(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Convert hexadecimal digests to 32 bytes each, null for none."""
    values = [
        bytes.fromhex(value).rjust(HASH_BYTES, b"\0") if value else None for value in column.to_pylist()
    ]
    return pa.array(values, pa.binary(HASH_BYTES))


def to_image_hashes(sha256: pa.Array | pa.ChunkedArray, pdq: pa.Array | pa.ChunkedArray) -> ImageHashes:
    """Convert the two columns to arrays."""
    known = b"".join(value or _NO_HASH for value in pdq.to_pylist())
    return ImageHashes(
        to_bytes(sha256),
        np.frombuffer(known, np.uint8).reshape(-1, HASH_BYTES),
    )


def to_bytes(hashes: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Convert a column of 32 bytes each to an array; zeros for null."""
    return np.asarray([value or _NO_HASH for value in hashes.to_pylist()], f"S{HASH_BYTES}")


def find_earlier_files(dataset: str, crawl: str, store: Store) -> tuple[Output, ...]:
    """Return the image hash files of the dataset's earlier crawls, in the order of the crawls."""
    manifest = current_manifest(dataset, store)
    files = manifest.files if manifest else ()
    named = (file for file in files if _NAMES.match(PurePosixPath(file.name).name))
    found = [file for file in named if file.crawl < crawl]
    ordered = sorted(found, key=lambda file: file.name)
    return tuple(Output(file.name, file.bytes, file.sha256) for file in ordered)


def read(output: Output, store: Store) -> Iterator[ImageHashes]:
    """Yield the hashes of a version, many rows at a time. Raises InputError if the file is invalid."""
    with store.open(output.name) as file:
        try:
            parquet = BoundedParquet(file)
            FILES.check(parquet.schema_arrow, store.uri(output.name), "publish its crawl again")
            for rows in parquet.iter_batches(_ROWS_PER_READ):
                yield to_image_hashes(rows.column("sha256"), rows.column("pdq"))
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"cannot read {store.uri(output.name)}: {error}; publish its crawl again"
            ) from error

"""_pictures.parquet of a version: the hashes of its images, by which later crawls know them again.

A row per published sample: `key`, `sha256` of the stored file and `pdq` (32 bytes each; null where the
downloader had none). Versions of later crawls stream through those of earlier ones, so the memory taken is
that of the later crawl alone, and the time grows with the rows of the earlier ones (see docs/operations.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.blocklists.near_hashes import HASH_BYTES, Hashes
from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import Output
from laion_etl.dataset.manifest import current_manifest
from laion_etl.io.storage import NewFile, Store

NAME = "_pictures.parquet"  # readers of whole folders pass over names that begin so
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.binary(HASH_BYTES)),
        pa.field("pdq", pa.binary(HASH_BYTES)),
    ]
)
_ROWS_PER_READ = 1 << 18
_NO_HASH = b"\0" * HASH_BYTES


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """Hashes of some images; zeros where there is none."""

    sha256: NDArray[np.bytes_]  # (n), 32 bytes each
    pdq: Hashes  # (n, 32)


class ImageHashesWriter:
    """Writes the rows of published samples to an open file."""

    def __init__(self, file: NewFile) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self.rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Takes scored rows; those with a reason are left out."""
        kept = pa.Table.from_batches([rows]).filter(pc.field("reason").is_null())
        columns = {"key": kept["key"], **{name: digests(kept[name]) for name in ("sha256", "pdq")}}
        self._writer.write_table(pa.table(columns, schema=SCHEMA))
        self.rows += kept.num_rows

    def close(self) -> None:
        self._writer.close()


def digests(column: pa.ChunkedArray) -> pa.Array:
    """Hexadecimal digests as 32 bytes each, null for none."""
    values = [
        bytes.fromhex(value).rjust(HASH_BYTES, b"\0") if value else None for value in column.to_pylist()
    ]
    return pa.array(values, pa.binary(HASH_BYTES))


def to_image_hashes(sha256: pa.Array | pa.ChunkedArray, pdq: pa.Array | pa.ChunkedArray) -> ImageHashes:
    """The two columns as arrays."""
    known = b"".join(value or _NO_HASH for value in pdq.to_pylist())
    return ImageHashes(
        np.asarray([value or _NO_HASH for value in sha256.to_pylist()], f"S{HASH_BYTES}"),
        np.frombuffer(known, np.uint8).reshape(-1, HASH_BYTES),
    )


def find_earlier_files(dataset: str, crawl: str, store: Store) -> tuple[Output, ...]:
    """The image files of the crawls before this one that a dataset has, by the names of the crawls."""
    manifest = current_manifest(dataset, store)
    files = manifest.files if manifest else ()
    found = [file for file in files if PurePosixPath(file.name).name == NAME and file.crawl < crawl]
    ordered = sorted(found, key=lambda file: file.name)
    return tuple(Output(file.name, file.bytes, file.sha256) for file in ordered)


def read(output: Output, store: Store) -> Iterator[ImageHashes]:
    """The hashes of a version, many rows at a time; raises InputError when the file is none of ours."""
    with store.open(output.name) as file:
        try:
            parquet = pq.ParquetFile(file)
            if not parquet.schema_arrow.equals(SCHEMA):
                raise InputError(f"{store.uri(output.name)} does not have the columns of published images")
            for rows in parquet.iter_batches(_ROWS_PER_READ):
                yield to_image_hashes(rows.column("sha256"), rows.column("pdq"))
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{store.uri(output.name)} can't be read ({error}); publish its crawl again"
            ) from error

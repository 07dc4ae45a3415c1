"""Streams of published rows in the order of SAMPLE_ID, and merging of several such streams."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.head_columns import without_columns
from laion_etl.core.schemas import DATASET_SCHEMA
from laion_etl.dataset.subsets import DataFile
from laion_etl.io.storage import Store

ROWS_PER_READ = 16_384
_NOTHING = DATASET_SCHEMA.empty_table()


def sample_ids(table: pa.Table) -> NDArray[np.int64]:
    """Return the column SAMPLE_ID as an int64 array."""
    return np.asarray(table["SAMPLE_ID"].to_numpy(), np.int64)


def ascending(last: int, ids: NDArray[np.int64]) -> bool:
    """Whether the ids ascend strictly, starting above `last`."""
    return ids.size == 0 or bool(ids[0] > last and np.all(np.diff(ids) > 0))


def read_rows(files: Sequence[DataFile], store: Store) -> Iterator[pa.Table]:
    """Yield the rows of files one after another. Raises InputError for an unreadable or unordered file."""
    last = -1
    for file in files:
        with store.open(file.name) as raw:
            try:
                for batch in pq.ParquetFile(raw).iter_batches(ROWS_PER_READ):
                    table = pa.Table.from_batches([batch])
                    if without_columns(table.schema) != DATASET_SCHEMA or not ascending(
                        last, sample_ids(table)
                    ):
                        raise InputError(
                            f"cannot read {store.uri(file.name)}: wrong columns or rows out of order; "
                            "run `laion-etl verify`"
                        )
                    if table.num_rows:
                        last = int(sample_ids(table)[-1])
                    yield table
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"cannot read {store.uri(file.name)}: {error}; run `laion-etl verify`"
                ) from error


def merge_by_id(streams: Sequence[Iterator[pa.Table]]) -> Iterator[list[pa.Table]]:
    """Yield the rows of several streams cut at the same ids: one table per stream each time.

    Rows with the same id come in the same step, and at most one read per stream is held in memory.
    """
    heads: list[pa.Table | None] = [_next(stream) for stream in streams]
    while any(head is not None for head in heads):
        bound = min(int(sample_ids(head)[-1]) for head in heads if head is not None)
        window = []
        for place, head in enumerate(heads):
            if head is None:
                window.append(_NOTHING)
                continue
            count = int(np.searchsorted(sample_ids(head), bound, side="right"))
            window.append(head.slice(0, count))
            rest = head.slice(count)
            heads[place] = rest if rest.num_rows else _next(streams[place])
        yield window


def _next(stream: Iterator[pa.Table]) -> pa.Table | None:
    return next((table for table in stream if table.num_rows), None)

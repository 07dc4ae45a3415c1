"""Streams of published rows in the order of SAMPLE_ID, and merging of several such streams."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import DATASET_FILES
from laion_etl.dataset.subsets import DataFile
from laion_etl.io.storage import Store

ROWS_PER_READ = 16_384
_ADVICE = "run `laion-etl dataset verify`"


def sample_ids(table: pa.Table) -> NDArray[np.int64]:
    """Return the column SAMPLE_ID as an int64 array."""
    return np.asarray(table["SAMPLE_ID"].to_numpy(), np.int64)


def ascending(last: int, ids: NDArray[np.int64]) -> bool:
    """Whether the ids ascend strictly, starting above `last`."""
    return ids.size == 0 or bool(ids[0] > last and np.all(np.diff(ids) > 0))


def read_rows(files: Sequence[DataFile], store: Store) -> Iterator[pa.Table]:
    """Yield the rows of files one after another, in today's columns: null where an older file has none.

    Raises InputError for an unreadable or unordered file.
    """
    return map(DATASET_FILES.upgraded, read_rows_as_written(files, store))


def read_rows_as_written(files: Sequence[DataFile], store: Store) -> Iterator[pa.Table]:
    """Yield the rows of files one after another, in the columns of each file; raises like `read_rows`."""
    last = -1
    for file in files:
        with store.open(file.name) as raw:
            try:
                parquet = BoundedParquet(raw)
                DATASET_FILES.check(parquet.schema_arrow, store.uri(file.name), _ADVICE)
                for batch in parquet.iter_batches(ROWS_PER_READ):
                    table = pa.Table.from_batches([batch])
                    if not ascending(last, sample_ids(table)):
                        raise InputError(
                            f"cannot read {store.uri(file.name)}: its rows are out of order; {_ADVICE}"
                        )
                    if table.num_rows:
                        last = int(sample_ids(table)[-1])
                    yield table
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"cannot read {store.uri(file.name)}: {error}; {_ADVICE}") from error


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
                window.append(DATASET_FILES.schema.empty_table())
                continue
            count = int(np.searchsorted(sample_ids(head), bound, side="right"))
            window.append(head.slice(0, count))
            rest = head.slice(count)
            heads[place] = rest if rest.num_rows else _next(streams[place])
        yield window


def _next(stream: Iterator[pa.Table]) -> pa.Table | None:
    return next((table for table in stream if table.num_rows), None)

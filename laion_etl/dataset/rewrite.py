"""Rewrites files of pairs and batches without what removal requests match; shards: rewrite_shards.py.

Each file is replaced in one atomic write, and its new content depends only on its old content and the
requests. Several removals at once may rewrite the same file, and a stage may write it meanwhile: it is only
replaced while it is still the one that was read, else it is read again. So nothing that another process has
removed comes back. Refused: a lock. On S3 there is none that ends with its holder, and a removal may have no
database; here a process that is killed or suspended holds up no other.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.blocklists.removal_requests import Matcher, blanked
from laion_etl.core.errors import ChangedError, InputError
from laion_etl.core.ids import MAX_BATCH_PAIRS
from laion_etl.core.parquet_bounds import LARGE_TABLE_BYTES, BoundedParquet
from laion_etl.core.schemas import BATCH_FILES, PAIR_FILES, SCORED_FILES, SHARD_FILES
from laion_etl.core.stage_stats import Output
from laion_etl.io.outputs import rewritten
from laion_etl.io.storage import Store

OnFound = Callable[[dict[str, str], pa.Table], None]

_ROWS_AT_ONCE = 1 << 16  # what a lookup makes of rows is larger than the rows
_FILES = {"pairs": PAIR_FILES, "batches": BATCH_FILES, "shards": SHARD_FILES, "scored": SCORED_FILES}
_TRIES = 100  # each one is lost to another process, which has got on with its work


def until_unchanged(name: str, store: Store, rewrite: Callable[[], None]) -> int:
    """Call `rewrite` until no other process changes what it has read; return how often it had to be repeated.

    Raises ChangedError after many tries.
    """
    for again in range(_TRIES):
        with suppress(ChangedError):
            rewrite()
            return again
    raise ChangedError(
        f"cannot rewrite {store.uri(name)}: other processes change it all the time; run the removal again "
        "when they have ended"
    )


def read_table(name: str, store: Store, columns: list[str] | None = None) -> pa.Table:
    """Read a file of pairs, batches or shards, of `columns` those that it has.

    Raises InputError if it cannot be read, or a newer laion-etl wrote it.
    """
    kind = name.partition("/")[0]
    # Of a small file one request reads all; one of pairs is on disk while it is read.
    with store.open(name) if kind == "pairs" else io.BytesIO(store.read(name)) as file:
        try:
            parquet = BoundedParquet(file)
            _FILES[kind].check_number(parquet.schema_arrow, store.uri(name))
            has = parquet.schema_arrow.names
            chosen = [one for one in columns if one in has] if columns else None
            if kind == "pairs":  # a partition may have millions
                return parquet.read(chosen, most_bytes=LARGE_TABLE_BYTES)
            return parquet.read(chosen, MAX_BATCH_PAIRS)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"cannot read {store.uri(name)}: {error}; run its stage again") from error


def rewrite_rows(name: str, store: Store, matcher: Matcher, on_found: OnFound | None = None) -> None:
    """Rewrite a file of pairs without the rows; its stats stay but for the file's new size and SHA-256.

    So it is not loaded again. They are written first: of a file that is not theirs nothing is loaded.

    `on_found` is called before that with the ids of its pairs, the rule that matches each, and their rows.
    """
    if until_unchanged(name, store, lambda: _rewrite_rows(name, store, matcher, on_found)):
        # What was written into the stats may describe a file that another process was faster than.
        until_unchanged(name, store, lambda: _describe(name, store))


def _rewrite_rows(name: str, store: Store, matcher: Matcher, on_found: OnFound | None) -> None:
    status = store.status(name)
    table = read_table(name, store)
    found: dict[str, str] = {}
    masks = []
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        of_slice, matched = matcher.match_pairs(table.slice(start, _ROWS_AT_ONCE))
        found = of_slice | found
        masks.append(matched)
    if found:
        matched = np.concatenate(masks)
        if on_found is not None:
            on_found(found, table.filter(pa.array(matched)))
        with store.replace(name, status) as file:
            pq.write_table(table.filter(pa.array(~matched)), file, compression="zstd")
            _write_size(name, file.output, store)


def _describe(name: str, store: Store) -> None:
    """Write the size and SHA-256 of a file that removals have rewritten into its stats, as it is now."""
    status = store.status(name)
    with store.open(name) as file:
        digest = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
        _write_size(name, Output(name, file.tell(), digest), store)
    if store.status(name) != status:
        raise ChangedError(f"cannot describe {store.uri(name)}: it has changed; retry")


def _write_size(name: str, output: Output, store: Store) -> None:
    """Write the new size of a file into its stats; a partition that is being parsed has none."""
    stats_name = f"{name.removesuffix('.parquet')}.json"
    if (found := store.read_stats_with_etag(stats_name)) is not None:
        store.swap(stats_name, rewritten(found[0], output).to_json(), found[1])


def blank_rows(name: str, store: Store, matcher: Matcher) -> None:
    """Blank the rows of a batch: the other rows keep their places, which are their keys."""
    until_unchanged(name, store, lambda: _blank_rows(name, store, matcher))


def _blank_rows(name: str, store: Store, matcher: Matcher) -> None:
    status = store.status(name)
    table = read_table(name, store)
    without = blanked(table, matcher)
    if without != table:
        with store.replace(name, status) as file:
            pq.write_table(without, file, compression="zstd")

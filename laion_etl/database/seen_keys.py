"""The keys of all pairs ever seen as a file: sorted hashes, without URLs and captions.

`export_seen_keys` writes one parquet file of ascending 16-byte keys, about 14 bytes each on disk.
`import_seen_keys` adds rows that hold nothing but the key; new pairs count as duplicates of them as of full
rows. So an operator can export, forget old crawls and import, and keep the dedupe in a third of the space.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from laion_etl.core.errors import InputError
from laion_etl.core.funnel import LoadReason, Outcomes
from laion_etl.core.schema_history import SchemaHistory
from laion_etl.core.schemas import partition_name
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.database.binary_copy import Texts, copy_in, copy_out, joined, pair_rows
from laion_etl.database.conflicts import PartitionRef, find_existing_rows, resolve
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import (
    Candidates,
    DedupeRule,
    Keys,
    as_keys,
    ascending,
    bytes_of,
    key_bytes,
)
from laion_etl.database.load import IMPORTED, add_partition, crawl_number, settle_rule
from laion_etl.database.queries import query
from laion_etl.io.remote_files import open_input
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

_FILES = SchemaHistory("exported keys", [pa.field("key", pa.binary(16), nullable=False)])
_KEYS_PER_GROUP = 1_000_000
_COPY_BYTES = 1 << 20
_RULE = b"laion_etl.dedupe"


def export_seen_keys(name: str, settings: Settings, store: Store, database: Database) -> tuple[Output, int]:
    """Writes all keys to `memory/<name>.parquet` of the store; returns the file and the number of keys."""

    def export(connection: Connection) -> tuple[Output, int]:
        row = connection.execute(query("load.rule")).fetchone()
        metadata = {**_FILES.schema.metadata, _RULE: (row[0] if row else DedupeRule.PAIR).encode()}
        schema = _FILES.schema.with_metadata(metadata)
        count = 0
        with (
            store.create(f"memory/{name}.parquet") as file,
            pq.ParquetWriter(
                file,
                schema,
                compression="zstd",
                use_dictionary=False,
                column_encoding={"key": "DELTA_BYTE_ARRAY"},
            ) as writer,
        ):
            for keys in _exported(connection):
                data = pa.py_buffer(np.ascontiguousarray(keys))
                column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, data])
                writer.write_table(pa.table([column], schema=schema))
                count += len(keys)
        return file.output, count

    return database.run(export, settings.database.bulk_timeout_s)


def _exported(connection: Connection) -> Iterator[Keys]:
    keys = (row[6:] for row in copy_out(connection, sql.SQL(query("seen_keys.copy_keys"))))
    for block in joined(keys, _KEYS_PER_GROUP):
        yield np.frombuffer(block, "S16")


def import_seen_keys(uri: str, settings: Settings, database: Database) -> StageStats:
    """Adds the keys of an exported file (path, s3:// or https://); rows that exist already stay as they are.

    Importing twice changes nothing. Raises InputError for a file that `export_seen_keys` did not write, or
    that was written under another dedupe rule.
    """
    with tempfile.NamedTemporaryFile(prefix="laion_etl-memory-") as copy:
        with open_input(uri) as source:
            shutil.copyfileobj(source, copy, _COPY_BYTES)
        copy.flush()
        copy.seek(0)
        content = hashlib.file_digest(copy, "sha256").hexdigest()
        file = _checked(uri, copy.name, DedupeRule.from_settings(settings.load))
        work = partial(_import, file=file, rule=DedupeRule.from_settings(settings.load), content=content)
        return database.run(work, settings.database.bulk_timeout_s)


def _checked(uri: str, path: str, rule: DedupeRule) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"cannot import {uri}: not a parquet file ({error}); export the keys again"
        ) from error
    metadata = file.schema_arrow.metadata or {}
    _FILES.check_number(file.schema_arrow, uri)
    if _FILES.number_of(file.schema_arrow) is None or _RULE not in metadata:
        raise InputError(
            f"cannot import {uri}: it was not written by `laion-etl db seen-keys export`; import a "
            "file that was"
        )
    if (made := metadata[_RULE].decode()) != rule:
        raise InputError(
            f"cannot import {uri}: its keys were made by rule {made} and LAION_ETL_LOAD_DEDUPE is {rule}; "
            "import it into a database with the same rule"
        )
    return file


def _import(connection: Connection, file: pq.ParquetFile, rule: DedupeRule, content: str) -> StageStats:
    settle_rule(connection, rule)
    connection.execute(query("load.lock"))
    connection.execute(query("load.register_crawl"), {"crawl": IMPORTED})
    crawl_no = crawl_number(connection, IMPORTED)
    file_fingerprint = fingerprint("memory", content)
    known = connection.execute(
        query("seen_keys.imported"), {"crawl_no": crawl_no, "fingerprint": file_fingerprint}
    ).fetchone()
    if known:
        return StageStats.from_plain(known[0])
    (number, partition_no) = _new_partition(connection, crawl_no)
    me = PartitionRef(partition_no, crawl_no, number)
    outcomes = Outcomes[LoadReason]()
    for batch in file.iter_batches(_KEYS_PER_GROUP):
        keys = _ascending_keys(batch.column(0))
        candidates = Candidates(keys, np.arange(len(keys)))
        existing = find_existing_rows(connection, candidates, DedupeRule.PAIR)
        resolved = resolve(connection, me, candidates, existing, DedupeRule.PAIR)
        _insert_keys(connection, partition_no, keys[resolved.won])
        outcomes.keep(int(resolved.won.sum()))
        outcomes.drop(LoadReason.DUPLICATE_IN_CRAWL, resolved.lost_in_crawl)
        outcomes.drop(LoadReason.DUPLICATE_OF_EARLIER_CRAWL, resolved.lost_earlier)
    stats = StageStats(
        "load",
        IMPORTED,
        partition_name(number),
        file_fingerprint,
        outcomes.input,
        outcomes.kept,
        outcomes.dropped,
    )
    saved = {"partition_no": partition_no, "fingerprint": file_fingerprint, "stats": Jsonb(stats.to_plain())}
    connection.execute(query("load.save_partition"), saved)
    connection.execute(query("plan.mark_planned"), {"partitions": [partition_no]})
    return stats


def _new_partition(connection: Connection, crawl_no: int) -> tuple[int, int]:
    row = connection.execute(query("seen_keys.next_partition"), {"crawl_no": crawl_no}).fetchone()
    number = int(row[0]) if row else 0
    return number, add_partition(connection, crawl_no, number)


def _ascending_keys(column: pa.FixedSizeBinaryArray) -> Keys:
    array = key_bytes(column)
    return as_keys(array[ascending(array)])


def _insert_keys(connection: Connection, partition_no: int, keys: Keys) -> None:
    """Inserts rows without URL and caption."""
    nothing = Texts(np.zeros(len(keys) + 1, np.int32), np.zeros(1, np.uint8))
    pages = np.zeros(len(keys), np.int32)
    block = pair_rows(np.arange(len(keys)), partition_no, pages, bytes_of(keys), nothing, nothing, nothing)
    with copy_in(connection, "load.copy_pairs") as send:
        send(block)

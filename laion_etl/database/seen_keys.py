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
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from laion_etl.core.errors import InputError
from laion_etl.core.funnel import LoadReason, Outcomes
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schema_history import SchemaHistory
from laion_etl.core.schemas import partition_name
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.database.binary_copy import copy_out, joined
from laion_etl.database.conflicts import PartitionRef, find_existing_rows, resolve
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import (
    Candidates,
    DedupeRule,
    Keys,
    as_keys,
    ascending,
    key_bytes,
)
from laion_etl.database.load import IMPORTED, begin_partition, crawl_number, settle_rule
from laion_etl.database.locks import IMPORTS, HeldLocks, run_locked
from laion_etl.database.pair_texts import PairTexts
from laion_etl.database.partition_copies import copy_partition, freeze_copies
from laion_etl.database.queries import query
from laion_etl.database.range_load import PAIRS_PER_TRANSACTION
from laion_etl.database.range_locks import run_with_ranges
from laion_etl.database.row_writer import copy_pairs
from laion_etl.database.servers import RangeServers, range_servers
from laion_etl.io.remote_files import open_input
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

_FILES = SchemaHistory("exported keys", [pa.field("key", pa.binary(16), nullable=False)])
_KEYS_PER_GROUP = 1_000_000
_COPY_BYTES = 1 << 20
_RULE = b"laion_etl.dedupe"


def export_seen_keys(name: str, settings: Settings, store: Store, database: Database) -> tuple[Output, int]:
    """Writes all keys to `memory/<name>.parquet` of the store; returns the file and the number of keys."""

    rule = database.rows("load.rule")
    metadata = {**_FILES.schema.metadata, _RULE: (rule[0][0] if rule else DedupeRule.PAIR).encode()}
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
        for keys in _exported(database, settings.database.bulk_timeout_s):
            data = pa.py_buffer(np.ascontiguousarray(keys))
            column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, data])
            writer.write_table(pa.table([column], schema=schema))
            count += len(keys)
    return file.output, count


def _exported(database: Database, timeout_s: float) -> Iterator[Keys]:
    """Yields all keys, ascending: range by range, so that no transaction lasts as long as the export."""

    def rows(servers: RangeServers) -> Iterator[bytes]:
        for server, first, last in servers.slices():
            statement = sql.SQL(query("seen_keys.copy_keys")).format(first=first, last=last)
            yield from server.run(partial(_copied, statement=statement), timeout_s)

    with range_servers(database) as servers:
        for block in joined((row[6:] for row in rows(servers)), _KEYS_PER_GROUP):
            yield np.frombuffer(block, "S16")


def _copied(connection: Connection, statement: sql.Composed) -> list[bytes]:
    return list(copy_out(connection, statement))


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
        copy.seek(0)
        file = _checked(uri, cast("BinaryIO", copy), DedupeRule.from_settings(settings.load))
        with range_servers(database) as servers:
            work = partial(
                _import,
                servers=servers,
                uri=uri,
                file=file,
                rule=DedupeRule.from_settings(settings.load),
                content=content,
                timeout_s=settings.database.bulk_timeout_s,
            )
            return run_locked(database, [IMPORTS], _purpose(uri), work)


def _purpose(uri: str) -> str:
    return f"import of keys from {uri}"


def _checked(uri: str, copy: BinaryIO, rule: DedupeRule) -> BoundedParquet:
    try:
        file = BoundedParquet(copy)
    except (pa.ArrowException, OSError) as error:
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


def _import(
    held: HeldLocks,
    servers: RangeServers,
    uri: str,
    file: BoundedParquet,
    rule: DedupeRule,
    content: str,
    timeout_s: float,
) -> StageStats:
    """Imports a few ranges in each transaction; after a kill the keys that are there count as kept."""
    file_fingerprint = fingerprint("memory", content)
    begun = held.run(partial(_begin, rule=rule, file_fingerprint=file_fingerprint))
    if isinstance(begun, StageStats):
        return begun
    me = begun
    copy_partition(me.partition_no, servers, _purpose(uri))
    outcomes = Outcomes[LoadReason]()

    def insert(connection: Connection, candidates: Candidates) -> tuple[int, int, int]:
        crawl_number(connection, IMPORTED)  # it is not being forgotten
        existing = find_existing_rows(connection, candidates, DedupeRule.PAIR)
        others = existing.where(existing.owners != me.partition_no)
        resolved = resolve(connection, me, candidates, others, DedupeRule.PAIR)
        new = resolved.won.copy()
        new[existing.positions] = False
        _insert_keys(connection, me.partition_no, candidates.keys[new])
        kept, in_crawl = int(resolved.won.sum()), int(resolved.lost_in_crawl.sum())
        return kept, in_crawl, int(resolved.lost_earlier.sum())

    for server, numbers, keys in _by_ranges(file, servers):
        if server is not servers.first:
            held.run(lambda _: None)  # raises if the lock was lost
        run = held.run if server is servers.first else server.run
        work = partial(insert, candidates=Candidates(keys, np.arange(len(keys))))
        kept, in_crawl, earlier = run_with_ranges(server, run, numbers, _purpose(uri), work, timeout_s)
        outcomes.keep(kept)
        outcomes.drop(LoadReason.DUPLICATE_IN_CRAWL, in_crawl)
        outcomes.drop(LoadReason.DUPLICATE_OF_EARLIER_CRAWL, earlier)
    stats = StageStats(
        "load",
        IMPORTED,
        partition_name(me.partition),
        file_fingerprint,
        outcomes.input,
        outcomes.kept,
        outcomes.dropped,
    )

    def save(connection: Connection) -> None:
        keys = {"partition_no": me.partition_no, "fingerprint": file_fingerprint}
        connection.execute(query("load.save_partition"), {**keys, "stats": Jsonb(stats.to_plain())})
        connection.execute(query("plan.mark_planned"), {"partitions": [me.partition_no]})

    freeze_copies([me.partition_no], servers, _purpose(uri))
    held.run(save)
    return stats


def _by_ranges(file: BoundedParquet, servers: RangeServers) -> Iterator[tuple[Database, list[int], Keys]]:
    """Yields the keys of a file in runs, each with its server and the ranges that it is in."""
    for batch in file.iter_batches(_KEYS_PER_GROUP):
        keys = _ascending_keys(batch.column(0))
        for start in range(0, len(keys), PAIRS_PER_TRANSACTION):
            run = keys[start : start + PAIRS_PER_TRANSACTION]
            of_keys = servers.ranges.numbers_of(run)
            for server, numbers in servers.by_server(np.unique(of_keys).tolist()):
                yield server, numbers, run[np.isin(of_keys, numbers)]


def _begin(connection: Connection, rule: DedupeRule, file_fingerprint: str) -> StageStats | PartitionRef:
    """Returns the stats of an import that is complete, else the partition that its keys belong to."""
    settle_rule(connection, rule)
    connection.execute(query("load.register_crawl"), {"crawl": IMPORTED})
    crawl_no = crawl_number(connection, IMPORTED)
    keys = {"crawl_no": crawl_no, "loading": file_fingerprint}
    known = connection.execute(query("seen_keys.imported"), keys).fetchone()
    if known:
        number, partition_no, is_complete, stats = known
        return StageStats.from_plain(stats) if is_complete else PartitionRef(partition_no, crawl_no, number)
    row = connection.execute(query("seen_keys.next_partition"), {"crawl_no": crawl_no}).fetchone()
    number = int(row[0]) if row else 0
    return PartitionRef(begin_partition(connection, crawl_no, number, file_fingerprint), crawl_no, number)


def _ascending_keys(column: pa.FixedSizeBinaryArray) -> Keys:
    array = key_bytes(column)
    return as_keys(array[ascending(array)])


def _insert_keys(connection: Connection, partition_no: int, keys: Keys) -> None:
    """Inserts rows without URL and caption."""
    candidates = Candidates(keys, np.arange(len(keys)))
    copy_pairs(connection, partition_no, 0, PairTexts.of_nothing(len(keys)), candidates)

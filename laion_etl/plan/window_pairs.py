"""Reads the pairs of a window with the licence and URL of their pages.

Pairs are read range by range of the key, in short transactions on the servers that have them. Their pages are
at random places in table page: when Postgres joined them, it descended an index for each pair, which took
four fifths of a planner's Postgres time, and more once tables were larger than its memory. So the pages are
read afterwards, each once and in the order of their index, and joined here.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from uuid import UUID

import numpy as np
import pyarrow as pa
from psycopg import Connection, sql

from laion_etl.core.schemas import BATCH_SCHEMA
from laion_etl.database.binary_copy import copy_out, read_rows
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.kernels import Longs
from laion_etl.database.queries import query
from laion_etl.database.servers import RangeServers

_NUMBER = pa.binary(4)  # of Postgres, big-endian
_PLACE = [pa.field("partition_no", _NUMBER), pa.field("page_no", _NUMBER)]
_OF_PAIR = ("pair_id", "url", "caption", "language", "caption_source")
_PAIRS = pa.schema([*(BATCH_SCHEMA.field(name) for name in _OF_PAIR), *_PLACE])
_PAGES = pa.schema([*_PLACE, BATCH_SCHEMA.field("license"), BATCH_SCHEMA.field("page_url")])
_PAGES_AT_ONCE = 1 << 16  # read within a second
_PAGE_BITS = 32


def read_pairs(
    keys: tuple[UUID, UUID], partitions: Sequence[int], servers: RangeServers, timeout_s: float
) -> pa.Table:
    """Return rows of BATCH_SCHEMA of some partitions, ascending by key; pairs without a page are left out."""
    slices = list(_slices(keys, partitions, servers, timeout_s))
    found = pa.concat_tables([_PAIRS.empty_table(), *(rows for _, rows in slices)]).combine_chunks()
    wanted, places = _places(found), np.full(found.num_rows, -1, np.int64)
    homes = np.repeat(
        np.array([servers.databases.index(server) for server, _ in slices], np.int64),
        [rows.num_rows for _, rows in slices],
    )
    tables, count = [_PAGES.empty_table()], 0
    for number, server in enumerate(servers.databases):
        rows = np.flatnonzero(homes == number)
        pages, back = np.unique(wanted[rows], return_inverse=True)
        table = pa.concat_tables([_PAGES.empty_table(), *_pages(pages, server, timeout_s)])
        places[rows] = _positions(pages, _places(table), count)[back]
        tables.append(table)
        count += table.num_rows
    kept = places >= 0
    if not kept.all():
        found, places = found.filter(pa.array(kept)), places[kept]
    of_pages = pa.concat_tables(tables).combine_chunks()
    columns = {name: found[name] for name in found.column_names} | {
        name: of_pages[name].take(pa.array(places)) for name in ("license", "page_url")
    }
    return pa.table([columns[name] for name in BATCH_SCHEMA.names], schema=BATCH_SCHEMA).combine_chunks()


def _slices(
    keys: tuple[UUID, UUID], partitions: Sequence[int], servers: RangeServers, timeout_s: float
) -> Iterator[tuple[Database, pa.Table]]:
    """Yield rows of _PAIRS, ascending by key, each table with its server, while no transaction is open."""
    rule = servers.first.rows("load.rule")
    for server, first, last in servers.slices(keys):
        statement = sql.SQL(query("plan.copy_new_pairs")).format(
            by_url=sql.Literal(rule == [(DedupeRule.URL,)]),
            first=sql.Literal(first),
            last=sql.Literal(last),
            partitions=sql.Literal(list(partitions)),
        )
        yield server, read_rows(server.run(partial(_read, statement=statement), timeout_s), _PAIRS)


def _pages(wanted: Longs, server: Database, timeout_s: float) -> Iterator[pa.Table]:
    """Yield rows of _PAGES, of pages that are named by ascending places."""
    for start in range(0, len(wanted), _PAGES_AT_ONCE):
        places = wanted[start : start + _PAGES_AT_ONCE]
        numbers, firsts, counts = np.unique(places >> _PAGE_BITS, return_index=True, return_counts=True)
        statement = sql.SQL(query("plan.copy_pages")).format(
            partitions=_array(numbers),
            firsts=_array(firsts + 1),
            lasts=_array(firsts + counts),
            pages=_array(places & ((1 << _PAGE_BITS) - 1)),
        )
        yield read_rows(server.run(partial(_read, statement=statement), timeout_s), _PAGES)


def _read(connection: Connection, statement: sql.Composed) -> bytes:
    connection.execute(query("plan.index_scans"))
    return b"".join(copy_out(connection, statement))


def _array(numbers: Longs) -> sql.Literal:
    """Return numbers as the text of an array of Postgres."""
    return sql.Literal("{" + ",".join(map(str, numbers.tolist())) + "}")


def _places(table: pa.Table) -> Longs:
    """Return partition and page of each row as one number."""
    partition_no, page_no = (_numbers(table.column(name)) for name in ("partition_no", "page_no"))
    return (partition_no << _PAGE_BITS) | page_no


def _numbers(column: pa.ChunkedArray) -> Longs:
    joined = pa.concat_arrays([pa.array([], _NUMBER), *column.chunks])
    return np.frombuffer(joined.buffers()[1] or b"", ">i4", len(joined), 4 * joined.offset).astype(np.int64)


def _positions(wanted: Longs, found: Longs, first: int) -> Longs:
    """Return the row of each wanted place among those that are found, counted from `first` on; -1: none."""
    if not len(found):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(found, kind="stable")
    known = found[order]
    rows = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[rows] == wanted, order[rows] + first, -1)

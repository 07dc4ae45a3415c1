"""Who gets a row: candidates of a partition meet the rows that are there."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TypeVar
from uuid import UUID

import numpy as np
from psycopg import Connection

from laion_etl.database.binary_copy import copy_in
from laion_etl.database.candidates import (
    Candidates,
    DedupeRule,
    KeyArray,
    Keys,
    Mask,
    PairsFile,
    keys_of,
)
from laion_etl.database.kernels import Bytes, Ints, Longs
from laion_etl.database.queries import query

_KEYS_PER_PROBE = 20_000
_BLOCKS_UNDER_WAY = 2  # so that no connection waits for a slower one


@dataclass(frozen=True, slots=True)
class Owner:
    """A partition of table partition."""

    partition_no: int
    crawl_no: int
    partition: int


@dataclass(frozen=True, slots=True)
class Placement:
    """`won`: which candidates get a row. `contested`: which met one. `taken`: rows taken, by partition_no."""

    won: Mask
    contested: Mask
    lost_in_crawl: int = 0
    lost_earlier: int = 0
    taken: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Incumbents:
    """Rows that are there already, by their place among the candidates."""

    places: Longs
    owners: Ints
    ranks: Ints
    hashes: Keys

    def __len__(self) -> int:
        return len(self.places)


def place(
    connection: Connection,
    me: Owner,
    candidates: Candidates,
    rule: DedupeRule,
    probers: Sequence[Connection] = (),
) -> Placement:
    """Decides for each candidate, and removes the rows that it takes over; the caller holds the load lock.

    `probers` share in looking the keys up: transactions that see what this one does.
    """
    incumbents = _incumbents(probers or [connection], candidates, rule)
    won = np.ones(len(candidates), np.bool_)
    contested = np.zeros(len(candidates), np.bool_)
    contested[incumbents.places] = True
    if not len(incumbents):
        return Placement(won, contested)
    owners = _owners(connection, incumbents.owners)
    in_crawl = owners[:, 1] == me.crawl_no
    better = in_crawl & _better(me, candidates, incumbents, owners[:, 2], rule)
    better &= np.isin(incumbents.owners, _still_open(connection, incumbents.owners[better]))
    won[incumbents.places[~better]] = False
    for keys in _slices(candidates.keys[incumbents.places[better]]):
        connection.execute(query("load.remove_pairs"), keys)
    numbers, counts = np.unique(incumbents.owners[better], return_counts=True)
    return Placement(
        won,
        contested,
        lost_in_crawl=int((in_crawl & ~better).sum()),
        lost_earlier=int((~in_crawl).sum()),
        taken=dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
    )


def insert(connection: Connection, partition_no: int, pairs: PairsFile, rows: Longs) -> int:
    """Writes rows of a pairs file and their pages; returns how many rows."""
    if not len(rows):
        return 0
    found = connection.execute(query("load.next_page"), {"partition_no": partition_no}).fetchone()
    first_page = found[0] if found else 0
    pages: list[Bytes] = []
    with copy_in(connection, "load.copy_pairs") as send:
        for (pair_block,), page_block in _ahead(pairs.blocks(_mask(rows), partition_no, first_page, 1)):
            send(pair_block)
            pages.append(page_block)
    with copy_in(connection, "load.copy_pages") as send:
        for block in pages:
            send(block)
    return len(rows)


def insert_side_by_side(
    connection: Connection,
    others: Sequence[Connection],
    partition_no: int,
    pairs: PairsFile,
    rows: Longs,
) -> int:
    """Like `insert` for a partition without rows; they go through other connections, by ranges of keys."""
    if not len(rows):
        return 0
    with ExitStack() as stack:
        copies = [*((other, "load.copy_pairs") for other in others), (connection, "load.copy_pages")]
        senders = [stack.enter_context(copy_in(*copy)) for copy in copies]
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in senders]
        under_way: deque[list[Future[None]]] = deque()
        for pair_blocks, page_block in _ahead(pairs.blocks(_mask(rows), partition_no, 0, len(others))):
            blocks = zip(threads, senders, [*pair_blocks, page_block], strict=True)
            under_way.append([thread.submit(send, block) for thread, send, block in blocks])
            if len(under_way) > _BLOCKS_UNDER_WAY:
                _finish(under_way.popleft())
        for sent in under_way:
            _finish(sent)
    return len(rows)


def _finish(sent: list[Future[None]]) -> None:
    for future in sent:
        future.result()


def _mask(rows: Longs) -> Mask:
    wanted = np.zeros(int(rows.max()) + 1, np.bool_)
    wanted[rows] = True
    return wanted


def _incumbents(connections: Sequence[Connection], candidates: Candidates, rule: DedupeRule) -> _Incumbents:
    parts = np.array_split(candidates.keys, len(connections))
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(_probed, connections, parts, repeat(rule)))
    rows = list(chain.from_iterable(found))
    keys_found, owners, *texts = zip(*rows, strict=True) if rows else ((), ())
    places = np.searchsorted(candidates.keys, keys_of(list(keys_found)))
    ranks, hashes = texts or ((), ())
    return _Incumbents(places, np.array(owners, np.int32), np.array(ranks, np.int32), keys_of(list(hashes)))


def _probed(connection: Connection, keys: Keys, rule: DedupeRule) -> list[tuple[bytes, int, int, bytes]]:
    """Key, owner and what the rule compares of the rows with one of these keys."""
    connection.execute(query("load.only_index_scans"))
    rows: list[tuple[bytes, int, int, bytes]] = []
    for part in _slices(keys):
        rows += connection.execute(query(f"load.probe_{rule}"), part, binary=True).fetchall()
    connection.execute(query("load.any_scans"))
    return rows


def _slices(keys: Keys) -> Iterator[dict[str, object]]:
    """Ascending keys in runs, as parameters; the bounds tell the planner which leaves they are in."""
    for start in range(0, len(keys), _KEYS_PER_PROBE):
        part = keys[start : start + _KEYS_PER_PROBE]
        first, last = (UUID(bytes=key.ljust(16, b"\0")) for key in (part[0], part[-1]))
        yield {"keys": KeyArray(part), "first": first, "last": last}


def _owners(connection: Connection, numbers: Ints) -> Longs:
    """(partition_no, crawl_no, partition) of each number, shape (numbers, 3)."""
    distinct, inverse = np.unique(numbers, return_inverse=True)
    rows = connection.execute(query("load.owners"), {"numbers": distinct.tolist()}).fetchall()
    table = np.array(sorted(row[:3] for row in rows), np.int64).reshape(-1, 3)
    return table[inverse]


def _still_open(connection: Connection, numbers: Ints) -> Ints:
    """Those of the partitions whose batches are not cut yet; from here on nobody cuts them."""
    if not len(numbers):
        return numbers
    distinct = np.unique(numbers).tolist()
    rows = connection.execute(query("load.open_owners"), {"numbers": distinct}).fetchall()
    return np.array([number for (number,) in rows], np.int32)


def _better(
    me: Owner, candidates: Candidates, incumbents: _Incumbents, partitions: Longs, rule: DedupeRule
) -> Mask:
    """Whether the candidate has more of a right to the row than the incumbent of the same crawl."""
    lower: Mask = partitions > me.partition
    if rule is DedupeRule.PAIR:
        return lower
    ranks, hashes = candidates.ranks[incumbents.places], candidates.hashes[incumbents.places]
    same_rank, same_hash = ranks == incumbents.ranks, hashes == incumbents.hashes
    better: Mask = (ranks > incumbents.ranks) | (
        same_rank & ((hashes < incumbents.hashes) | (same_hash & lower))
    )
    return better


ItemT = TypeVar("ItemT")


def _ahead(items: Iterator[ItemT]) -> Iterator[ItemT]:
    """The items, each next one being made in a thread while the last is used."""
    with ThreadPoolExecutor(1) as pool:
        end: tuple[()] = ()
        upcoming = pool.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]

"""Resolves conflicts between a partition's new rows and existing ones."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from laion_etl.database.binary_copy import copy_in
from laion_etl.database.dedupe_keys import (
    Candidates,
    DedupeRule,
    KeyArray,
    Keys,
    Mask,
    PairsFile,
    Segment,
)
from laion_etl.database.kernels import Ints, Longs
from laion_etl.database.queries import query

# So few that the part of the index that holds them fits into a processor's cache.
_KEYS_PER_CHUNK = 32_768


@dataclass(frozen=True, slots=True)
class PartitionRef:
    """A partition of table partition."""

    partition_no: int
    crawl_no: int
    partition: int


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which candidates get a row.

    `won`: the candidates that get one. `contested`: those whose key has a row already. `taken`: number of
    rows taken over, by the partition_no that had them.
    """

    won: Mask
    contested: Mask
    lost_in_crawl: int = 0
    lost_earlier: int = 0
    taken: dict[int, int] = field(default_factory=dict)


# Rows as the queries probe_pair and probe_url return them.
_ROW = {
    DedupeRule.PAIR: np.dtype([("key", "S16"), ("owner", ">i4")]),
    DedupeRule.URL: np.dtype([("key", "S16"), ("owner", ">i4"), ("rank", ">i4"), ("hash", "S16")]),
}
Rows = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class ExistingRows:
    """Rows that exist already, each with the position of its key among the candidates."""

    positions: Longs
    owners: Ints
    ranks: Ints
    hashes: Keys

    @classmethod
    def from_rows(cls, parts: list[Rows], candidates: Candidates, rule: DedupeRule) -> "ExistingRows":
        """Sorts the rows of all parts into the order of the candidates."""
        rows = np.concatenate([np.empty(0, _ROW[rule]), *parts])
        positions = np.searchsorted(candidates.keys, rows["key"])
        order = np.argsort(positions)
        rows, by_url = rows[order], rule is DedupeRule.URL
        return cls(
            positions[order],
            rows["owner"].astype(np.int32),
            rows["rank"].astype(np.int32) if by_url else np.empty(0, np.int32),
            rows["hash"] if by_url else np.empty(0, "S16"),
        )

    def __len__(self) -> int:
        return len(self.positions)


def resolve(
    connection: Connection, me: PartitionRef, candidates: Candidates, existing: ExistingRows, rule: DedupeRule
) -> Resolution:
    """Decides which candidates get a row, and removes the rows they take over.

    The caller holds the load lock.
    """
    won = np.ones(len(candidates), np.bool_)
    contested = np.zeros(len(candidates), np.bool_)
    contested[existing.positions] = True
    if not len(existing):
        return Resolution(won, contested)
    owners = _owners(connection, existing.owners)
    in_crawl = owners[:, 1] == me.crawl_no
    better = in_crawl & _wins(me, candidates, existing, owners[:, 2], rule)
    better &= np.isin(existing.owners, _still_open(connection, existing.owners[better]))
    won[existing.positions[~better]] = False
    for chunk in candidates.where(existing.positions[better]).chunks(_KEYS_PER_CHUNK):
        connection.execute(query("load.remove_pairs"), _key_parameters(chunk.keys))
    numbers, counts = np.unique(existing.owners[better], return_counts=True)
    return Resolution(
        won,
        contested,
        lost_in_crawl=int((in_crawl & ~better).sum()),
        lost_earlier=int((~in_crawl).sum()),
        taken=dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
    )


def find_existing_rows(connection: Connection, candidates: Candidates, rule: DedupeRule) -> ExistingRows:
    """Returns the existing rows with keys of the candidates."""
    connection.execute(query("load.only_index_scans"))
    found = [_probe(connection, chunk, rule) for chunk in candidates.chunks(_KEYS_PER_CHUNK)]
    connection.execute(query("load.any_scans"))
    return ExistingRows.from_rows(found, candidates, rule)


def insert(connection: Connection, partition_no: int, pairs: PairsFile, candidates: Candidates) -> None:
    """Writes candidates and their pages."""
    if not len(candidates):
        return
    found = connection.execute(query("load.next_page"), {"partition_no": partition_no}).fetchone()
    for segment in pairs.segments(found[0] if found else 0):
        mine = candidates.where(segment.holds(candidates))
        with copy_in(connection, "load.copy_pairs") as send:
            for chunk in mine.chunks(_KEYS_PER_CHUNK):
                send(segment.pair_rows(chunk, partition_no))
        with copy_in(connection, "load.copy_pages") as send:
            send(segment.page_rows(np.unique(segment.pages[mine.rows - segment.start]), partition_no))


def insert_free(
    connection: Connection,
    others: Sequence[Connection],
    partition_no: int,
    pairs: PairsFile,
    candidates: Candidates,
    rule: DedupeRule,
) -> ExistingRows:
    """Writes the candidates whose keys are free, and their pages; returns the rows that have the other keys.

    For a partition without rows. Each of the other connections handles one range of keys in short runs: a run
    is looked up and then written at once, while its part of the index is still in the caches. Pages go
    through `connection`.
    """
    existing_rows: list[Rows] = []
    with ExitStack() as stack:
        send_pages = stack.enter_context(copy_in(connection, "load.copy_pages"))
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in others]
        for other in others:
            other.execute(query("load.only_index_scans"))
        for segment in pairs.segments(0):
            mine = candidates.where(segment.holds(candidates))
            is_sent = np.zeros(len(segment.pages), np.bool_)
            ranges = [mine.where(part) for part in _even_slices(len(mine), len(others))]
            work = [
                thread.submit(_insert_chunk, other, segment, chunk, partition_no, rule)
                for thread, other, part in zip(threads, others, ranges, strict=True)
                for chunk in part.chunks(_KEYS_PER_CHUNK)
            ]
            try:
                for done in as_completed(work):
                    rows, found = done.result()
                    existing_rows.append(found)
                    pages = np.unique(segment.pages[rows - segment.start])
                    new = pages[~is_sent[pages - segment.pages[0]]]
                    is_sent[new - segment.pages[0]] = True
                    send_pages(segment.page_rows(new, partition_no))
            finally:
                for future in work:
                    future.cancel()
    return ExistingRows.from_rows(existing_rows, candidates, rule)


def _insert_chunk(
    connection: Connection, segment: Segment, chunk: Candidates, partition_no: int, rule: DedupeRule
) -> tuple[Longs, Rows]:
    """Returns the rows of the file that were written, and the existing rows with the other keys."""
    existing_rows = _probe(connection, chunk, rule)
    if len(existing_rows):
        chunk = chunk.where(~chunk.among(np.sort(existing_rows["key"])))
    if len(chunk):
        with copy_in(connection, "load.copy_pairs") as send:
            send(segment.pair_rows(chunk, partition_no))
    return chunk.rows, existing_rows


def _even_slices(count: int, parts: int) -> list[slice]:
    bounds = [count * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def _probe(connection: Connection, chunk: Candidates, rule: DedupeRule) -> Rows:
    row = connection.execute(query(f"load.probe_{rule}"), _key_parameters(chunk.keys), binary=True).fetchone()
    return np.frombuffer((row and row[0]) or b"", _ROW[rule])


def _key_parameters(keys: Keys) -> dict[str, object]:
    """Ascending keys as parameters; by the bounds the planner knows which leaves they are in."""
    first, last = (UUID(bytes=key.ljust(16, b"\0")) for key in (keys[0], keys[-1]))
    return {"keys": KeyArray(keys), "first": first, "last": last}


def _owners(connection: Connection, numbers: Ints) -> Longs:
    """Returns (partition_no, crawl_no, partition) of each number, shape (numbers, 3)."""
    distinct, inverse = np.unique(numbers, return_inverse=True)
    rows = connection.execute(query("load.owners"), {"numbers": distinct.tolist()}).fetchall()
    table = np.array(sorted(row[:3] for row in rows), np.int64).reshape(-1, 3)
    return table[inverse]


def _still_open(connection: Connection, numbers: Ints) -> Ints:
    """Returns the partitions whose batches are not cut yet, and locks them against being cut."""
    if not len(numbers):
        return numbers
    distinct = np.unique(numbers).tolist()
    rows = connection.execute(query("load.open_owners"), {"numbers": distinct}).fetchall()
    return np.array([number for (number,) in rows], np.int32)


def _wins(
    me: PartitionRef, candidates: Candidates, existing: ExistingRows, partitions: Longs, rule: DedupeRule
) -> Mask:
    """Returns which candidates take precedence over the existing row of the same crawl."""
    lower: Mask = partitions > me.partition
    if rule is DedupeRule.PAIR:
        return lower
    ranks, hashes = candidates.ranks[existing.positions], candidates.hashes[existing.positions]
    same_rank, same_hash = ranks == existing.ranks, hashes == existing.hashes
    better: Mask = (ranks > existing.ranks) | (same_rank & ((hashes < existing.hashes) | (same_hash & lower)))
    return better

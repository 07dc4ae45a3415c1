"""Resolves conflicts between a partition's new rows and existing ones."""

from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from laion_etl.database.binary_copy import copy_in
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, KeyArray, Keys, Mask, PairsFile
from laion_etl.database.kernels import Ints, Longs
from laion_etl.database.locks import planner_of
from laion_etl.database.queries import query

# So few that the part of the index that holds them fits into a processor's cache.
KEYS_PER_CHUNK = 32_768


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
ROW = {
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
        rows = joined_rows(parts, rule)
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

    def where(self, chosen: Mask) -> "ExistingRows":
        """Returns the chosen rows."""
        ranks, hashes = (
            (self.ranks[chosen], self.hashes[chosen]) if len(self.ranks) else (self.ranks, self.hashes)
        )
        return ExistingRows(self.positions[chosen], self.owners[chosen], ranks, hashes)


def resolve(
    connection: Connection, me: PartitionRef, candidates: Candidates, existing: ExistingRows, rule: DedupeRule
) -> Resolution:
    """Decides which candidates get a row, and removes the rows they take over.

    The caller holds the lock of table pair; `existing` has no rows of the partition itself.
    """
    won = np.ones(len(candidates), np.bool_)
    contested = np.zeros(len(candidates), np.bool_)
    contested[existing.positions] = True
    if not len(existing):
        return Resolution(won, contested)
    owners = _owners(connection, existing.owners)
    in_crawl = owners[:, 1] == me.crawl_no
    better = in_crawl & _wins(me, candidates, existing, owners[:, 2], rule)
    better &= np.isin(existing.owners, _still_open(connection, me.crawl_no, existing.owners[better]))
    won[existing.positions[~better]] = False
    for chunk in candidates.where(existing.positions[better]).chunks(KEYS_PER_CHUNK):
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
    found = [probe(connection, chunk, rule) for chunk in candidates.chunks(KEYS_PER_CHUNK)]
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
            for chunk in mine.chunks(KEYS_PER_CHUNK):
                send(segment.pair_rows(chunk, partition_no))
        with copy_in(connection, "load.copy_pages") as send:
            send(segment.page_rows(np.unique(segment.pages[mine.rows - segment.start]), partition_no))


def probe(connection: Connection, chunk: Candidates, rule: DedupeRule) -> Rows:
    """Returns the existing rows with keys of a chunk, in any order."""
    row = connection.execute(query(f"load.probe_{rule}"), _key_parameters(chunk.keys), binary=True).fetchone()
    return np.frombuffer((row and row[0]) or b"", ROW[rule])


def joined_rows(parts: list[Rows], rule: DedupeRule) -> Rows:
    """Returns the rows of all parts, none for no parts."""
    return np.concatenate([np.empty(0, ROW[rule]), *parts])


def planner_at_work(connection: Connection, crawl_no: int) -> bool:
    """Whether the marks of column planning are in force.

    If not, no planner of the crawl begins before this transaction ends.
    """
    row = connection.execute(query("locks.take"), planner_of(crawl_no).keys).fetchone()
    return row is None or not row[0]


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


def _still_open(connection: Connection, crawl_no: int, numbers: Ints) -> Ints:
    """Returns the partitions of a crawl whose batches are not cut yet, and locks them against being cut."""
    if not len(numbers):
        return numbers
    keys = {
        "numbers": np.unique(numbers).tolist(),
        "planner_at_work": planner_at_work(connection, crawl_no),
    }
    rows = connection.execute(query("load.open_owners"), keys).fetchall()
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

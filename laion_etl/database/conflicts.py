"""Resolves conflicts between a partition's new rows and existing ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from laion_etl.database.dedupe_keys import Candidates, DedupeRule, KeyArray, Keys, Mask
from laion_etl.database.kernels import Ints, Longs
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

    Of `won`, `lost_in_crawl` and `lost_earlier` one is set for each candidate. `owners`: the partition_no
    that its row was taken over from, else 0.
    """

    won: Mask
    lost_in_crawl: Mask
    lost_earlier: Mask
    owners: Ints

    @property
    def taken(self) -> Mask:
        """Whether the row was taken over."""
        mask: Mask = self.owners != 0
        return mask


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

    The caller holds the locks of the ranges; `existing` has no rows of the partition itself.
    """
    won = np.ones(len(candidates), np.bool_)
    lost_in_crawl, lost_earlier = np.zeros_like(won), np.zeros_like(won)
    taken_from = np.zeros(len(candidates), np.int32)
    if not len(existing):
        return Resolution(won, lost_in_crawl, lost_earlier, taken_from)
    owners = _owners(connection, existing.owners)
    in_crawl = owners[:, 1] == me.crawl_no
    better = in_crawl & _wins(me, candidates, existing, owners[:, 2], rule)
    better &= np.isin(existing.owners, open_partitions(connection, existing.owners[better]))
    won[existing.positions[~better]] = False
    lost_in_crawl[existing.positions[in_crawl & ~better]] = True
    lost_earlier[existing.positions[~in_crawl]] = True
    taken_from[existing.positions[better]] = existing.owners[better]
    remove_pairs(connection, candidates.keys[existing.positions[better]])
    return Resolution(won, lost_in_crawl, lost_earlier, taken_from)


def remove_pairs(connection: Connection, keys: Keys) -> None:
    """Deletes the rows with these ascending keys."""
    for start in range(0, len(keys), KEYS_PER_CHUNK):
        connection.execute(query("load.remove_pairs"), _key_parameters(keys[start : start + KEYS_PER_CHUNK]))


def find_existing_rows(connection: Connection, candidates: Candidates, rule: DedupeRule) -> ExistingRows:
    """Returns the existing rows with keys of the candidates."""
    connection.execute(query("load.only_index_scans"))
    found = [_probe(connection, chunk, rule) for chunk in candidates.chunks(KEYS_PER_CHUNK)]
    connection.execute(query("load.any_scans"))
    return ExistingRows.from_rows(found, candidates, rule)


def _probe(connection: Connection, chunk: Candidates, rule: DedupeRule) -> Rows:
    """Returns the existing rows with keys of a chunk, in any order."""
    row = connection.execute(query(f"load.probe_{rule}"), _key_parameters(chunk.keys), binary=True).fetchone()
    return np.frombuffer((row and row[0]) or b"", ROW[rule])


def joined_rows(parts: list[Rows], rule: DedupeRule) -> Rows:
    """Returns the rows of all parts, none for no parts."""
    return np.concatenate([np.empty(0, ROW[rule]), *parts])


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


def open_partitions(connection: Connection, numbers: Sequence[int] | Ints) -> Ints:
    """Returns the partitions whose batches are not cut yet, and keeps planners from cutting them.

    Several loaders may do so with the same partition.
    """
    if not len(numbers):
        return np.empty(0, np.int32)
    rows = connection.execute(query("load.open_owners"), {"numbers": np.unique(numbers).tolist()}).fetchall()
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

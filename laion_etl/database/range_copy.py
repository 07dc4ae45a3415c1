"""Copies one key range from a server to another, compares both, and deletes it on the old one.

Meanwhile no program writes the range: the record of its home says so on both servers (sql/014_servers.sql),
and each transaction here holds the range's lock and checks that record. Some 65,000 rows are read, sent and
written in each, so that no snapshot is held for long; a part that is copied again replaces what a killed move
left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
from psycopg import Connection, sql

from laion_etl.core.errors import DatabaseError
from laion_etl.core.quantities import quantity
from laion_etl.database.binary_copy import copy_in, copy_out
from laion_etl.database.connection import Database
from laion_etl.database.key_ranges import KeyRanges, ranges_of_table
from laion_etl.database.queries import query

PURPOSE = "move of key ranges"


@dataclass(frozen=True, slots=True)
class RangeCopy:
    """The copy of range `number` from server `old` to server `new`, whose place in the list is `new_no`."""

    number: int
    first: Database
    old: Database
    new: Database
    new_no: int
    timeout_s: float

    def copy(self) -> None:
        """Copy everything that the old server has of the range."""
        for bounds in self._parts():
            pages, pairs = self.old.run(partial(_read, bounds=bounds), self.timeout_s)
            write = partial(self._write, bounds=bounds, pages=pages, pairs=pairs)
            self.new.run(write, self.timeout_s)
        counts = self._counts(self.old)
        self.new.run(partial(self._write_counts, counts=counts))

    def compare(self) -> int:
        """Return the number of pairs. Raises DatabaseError if the servers do not have the same rows."""
        pairs = 0
        for first, last in self._parts():
            keys = {"first": first, "last": last}
            old, new = (
                one.run(partial(_fetched, name="move.sum_of_pairs", keys=keys), self.timeout_s)
                for one in (self.old, self.new)
            )
            if old != new:
                raise self._difference(
                    f"{quantity(old[0][0], 'pair')} and {new[0][0]:,} with another checksum"
                )
            pairs += old[0][0]
        if self._counts(self.old) != self._counts(self.new):
            raise self._difference("other counts of partitions")
        return pairs

    def delete_old(self) -> None:
        """Delete the range on the old server; the record says that the new one has it."""
        for first, last in self._parts():
            delete = partial(self._delete, name="move.delete_pairs", keys={"first": first, "last": last})
            self.old.run(delete, self.timeout_s)
        self.old.run(partial(self._delete, name="move.delete_counts", keys={"range_no": self.number}))

    def _parts(self) -> Iterator[tuple[UUID, UUID]]:
        return ranges_of_table(self.first, KeyRanges.of(self.first).bounds(self.number))

    def _counts(self, server: Database) -> list[Any]:
        return server.rows("move.counts", {"range_no": self.number})

    def _write(
        self, connection: Connection, bounds: tuple[UUID, UUID], pages: list[Any], pairs: bytes
    ) -> None:
        self._lock(connection, owner=False)
        connection.execute(query("load.lazy_commit"))  # _write_counts waits for all of it
        keys = {"first": bounds[0], "last": bounds[1]}
        connection.execute(query("move.delete_pairs"), keys)
        columns = dict(
            zip(("partitions", "pages", "urls", "licenses"), zip(*pages, strict=True), strict=False)
        )
        if pages:
            connection.execute(
                query("move.add_pages"), {name: list(column) for name, column in columns.items()}
            )
        if pairs:
            with copy_in(connection, "load.copy_pairs") as send:
                send(np.frombuffer(pairs, np.uint8))

    def _write_counts(self, connection: Connection, counts: list[Any]) -> None:
        self._lock(connection, owner=False)
        connection.execute(query("move.delete_counts"), {"range_no": self.number})
        with connection.cursor() as cursor, cursor.copy(query("move.copy_counts")) as copy:
            for row in counts:
                copy.write_row(row)

    def _delete(self, connection: Connection, name: str, keys: dict[str, Any]) -> None:
        self._lock(connection, owner=True)
        connection.execute(query(name), keys)

    def _lock(self, connection: Connection, *, owner: bool) -> None:
        """Take the range's lock, and check whether the new server is its owner, as `owner` demands."""
        take_range(connection, self.number)
        row = connection.execute(query("move.home"), {"range_no": self.number}).fetchone()
        if row is None or (row[0] == self.new_no) != owner:
            raise DatabaseError(
                f"cannot go on with the {PURPOSE}: another program has moved range {self.number}; run it "
                "again"
            )

    def _difference(self, what: str) -> DatabaseError:
        return DatabaseError(
            f"cannot move key range {self.number} from {self.old.public_name} to {self.new.public_name}: "
            f"after copying they have {what}; nothing is deleted, see their logs and run it again"
        )


def take_range(connection: Connection, number: int) -> None:
    """Lock a range until the end of the transaction. Raises DatabaseError if another program holds its
    lock."""
    row = connection.execute(query("move.take_range"), {"range_no": number}).fetchone()
    if row is None or not row[0]:
        names = [name for (name,) in connection.execute(query("locks.range_holders")).fetchall()]
        raise DatabaseError(
            f"cannot move key range {number}: {' and '.join(names) or 'another program'} has locked it; "
            "stop loaders and planners, and run `laion-etl db move-ranges` again"
        )


def _read(connection: Connection, bounds: tuple[UUID, UUID]) -> tuple[list[Any], bytes]:
    """Return the pages of a part of a range, and its pairs in the format of COPY."""
    connection.execute(query("plan.index_scans"))
    first, last = bounds
    pages = connection.execute(query("move.pages"), {"first": first, "last": last}).fetchall()
    statement = sql.SQL(query("move.copy_pairs")).format(first=sql.Literal(first), last=sql.Literal(last))
    return pages, b"".join(copy_out(connection, statement))


def _fetched(connection: Connection, name: str, keys: dict[str, Any]) -> list[Any]:
    connection.execute(query("plan.index_scans"))
    return connection.execute(query(name), keys).fetchall()

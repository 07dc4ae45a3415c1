"""Locks of key ranges: who holds one is the only writer of the pairs in it.

Loaders, corrections, imports of keys, `forget` and removals take them. Such a lock is taken and let go by the
transaction that writes: it is tried, never waited for, so no transaction waits with a snapshot, and what is
written and the record of it are there together or not at all. A program that finds all ranges taken that it
could go on with pauses outside of any transaction.

A single writer per range needs no ON CONFLICT, which costs as much per row as the row. One lock for the
whole table did the same for one loader in the database (a crawl of 3 billion pairs: 33 hours); a lock per
leaf would tie the number of loaders to how the table is stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.database.connection import Database
from laion_etl.database.polling import poll
from laion_etl.database.queries import query

ResultT = TypeVar("ResultT")

_NAME_BYTES = 63  # of application_name, longer ones are cut


class Runner(Protocol):
    """Runs work in a transaction: Database.run or HeldLocks.run."""

    def __call__(
        self, work: Callable[[Connection], ResultT], timeout_s: float | None = None, /
    ) -> ResultT: ...


def take_ranges(connection: Connection, wanted: Sequence[int], at_most: int, purpose: str) -> list[int]:
    """Locks the first free ranges among those wanted, until the end of the transaction; returns them.

    Raises DatabaseError if one of them is not on this server.
    """
    keys = {"ranges": list(wanted), "at_most": at_most, "name": f"laion_etl: {purpose}"[:_NAME_BYTES]}
    taken = [number for (number,) in connection.execute(query("locks.take_ranges"), keys).fetchall()]
    if taken and (away := connection.execute(query("locks.away"), {"ranges": taken}).fetchone()):
        range_no, server_no, is_moving = away
        where = "is being moved to another server" if is_moving else f"is on server {server_no}"
        raise DatabaseError(
            f"cannot go on with the {purpose}: key range {range_no} {where}; when `laion-etl db "
            "move-ranges` has ended, run it again with the current LAION_ETL_DATABASE_URLS"
        )
    return taken


def range_holders(database: Database) -> str:
    """Names the programs that hold ranges now."""
    names = [name for (name,) in database.rows("locks.range_holders")]
    return " and ".join(dict.fromkeys(names)) or "another program"


@dataclass(frozen=True, slots=True)
class _Done(Generic[ResultT]):
    """What a transaction returned that had its ranges; None means that it did not get them."""

    result: ResultT


def run_with_ranges(
    database: Database,
    run: Runner,
    wanted: Sequence[int],
    purpose: str,
    work: Callable[[Connection], ResultT],
    timeout_s: float | None = None,
) -> ResultT:
    """Runs `work` in one transaction of `run` that holds all these ranges, and waits for them outside of it.

    `database` is asked who holds them. `work` must be idempotent.
    """

    def attempt(connection: Connection) -> _Done[ResultT] | None:
        if len(take_ranges(connection, wanted, len(wanted), purpose)) < len(wanted):
            return None
        return _Done(work(connection))

    return poll(lambda: run(attempt, timeout_s), lambda: range_holders(database), purpose).result

"""Locks that programs hold for hours and wait for without harm to anyone else.

A transaction that waits for a lock, or reads for long, holds a snapshot: Postgres then keeps every old
version of every row in the database, and a claim of the batch queue steps over all of them (measured: 886
claims a second fell to 38). So a lock is tried, and if another program has it, tried again after a pause
outside of any transaction.

It is held by a transaction of a connection of its own that does nothing else. Such a transaction has no
snapshot in READ COMMITTED, and the lock ends with the connection, however that ends. Session locks would do
the same, but not behind PgBouncer in transaction mode; a lease in a table would need a thread that extends
it.

The work itself runs in short transactions of other connections, each checked: it is rolled back if the lock
was lost meanwhile. To exclude that an old holder commits after a new one has begun, the work shares a
second lock, the gate, which a new holder closes for a moment before it begins.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.database.connection import Database
from laion_etl.database.polling import poll
from laion_etl.database.queries import query

ResultT = TypeVar("ResultT")

_NAME_BYTES = 63  # of application_name, longer ones are cut


@dataclass(frozen=True, slots=True)
class Lock:
    """An advisory lock of the database, by two numbers."""

    kind: int
    number: int = 0

    @property
    def keys(self) -> dict[str, object]:
        return {"kind": self.kind, "number": self.number}


# Kind 1: the key ranges, by their numbers (range_locks.py).
# Held by planners, of any crawl.
PLANNERS = Lock(2)
# Held by the load of a partition that an earlier version of it has loaded.
CORRECTIONS = Lock(4)
# Held by imports of keys: of two at once the one with the lower number would take keys over.
IMPORTS = Lock(5)


def planner_of(crawl_no: int) -> Lock:
    """The lock of the planner of a crawl."""
    return Lock(2, crawl_no)


class LostLockError(DatabaseError):
    """The lock ended with its connection; what has been committed so far is valid."""


class HeldLocks:
    """Locks that this program holds, and transactions under them."""

    def __init__(self, database: Database, locks: Sequence[Lock], pid: int, purpose: str) -> None:
        self._database = database
        self._locks = locks
        self._pid = pid
        self._purpose = purpose

    def run(
        self,
        work: Callable[[Connection], ResultT],
        timeout_s: float | None = None,
        database: Database | None = None,
    ) -> ResultT:
        """Runs `work` like `Database.run`; commits only if the locks are still held at its end.

        `database`: another one than that of the locks, for work on several connections. Raises LostLockError.
        """

        def checked(connection: Connection) -> ResultT:
            for lock in self._locks:
                self._require(connection, "locks.enter_gate", lock)
            result = work(connection)
            for lock in self._locks:
                self._require(connection, "locks.is_held", lock)
            return result

        return (database or self._database).run(checked, timeout_s)

    def _require(self, connection: Connection, name: str, lock: Lock) -> None:
        row = connection.execute(query(name), {**lock.keys, "pid": self._pid}).fetchone()
        if row is None or not row[0]:
            raise LostLockError(
                f"cannot go on with {self._purpose}: its connection that held the lock was lost; run it again"
            )


def run_locked(
    database: Database, locks: Sequence[Lock], purpose: str, work: Callable[[HeldLocks], ResultT]
) -> ResultT:
    """Waits for the locks, in no transaction, and runs `work`; again when they or connections are lost.

    `purpose` names the program to those that wait for it, for example "load of partition 3 of C". `work`
    opens its transactions with `HeldLocks.run` and must be idempotent.
    """

    def attempt() -> ResultT:
        with _held(database, locks, purpose) as held:
            return work(held)

    return database.with_retry(attempt, also=(LostLockError,))


@contextmanager
def _held(database: Database, locks: Sequence[Lock], purpose: str) -> Iterator[HeldLocks]:
    with database.another() as holder, ExitStack() as stack:

        def take() -> tuple[ExitStack, int] | None:
            with ExitStack() as transaction:
                connection = holder.connection
                transaction.enter_context(connection.transaction())
                name = f"laion_etl: {purpose}"[:_NAME_BYTES]
                row = connection.execute(query("locks.hold"), {"name": name}).fetchone()
                for lock in locks:
                    if not _is_true(connection, "locks.take", lock):
                        return None
                connection.execute(query("locks.drop_snapshot"))
                return transaction.pop_all(), int(row[0]) if row else 0

        def holders() -> str:
            return _holders(database, locks)

        transaction, pid = poll(take, holders, purpose)
        stack.enter_context(transaction)
        for lock in locks:

            def close_gate(lock: Lock = lock) -> bool | None:
                return database.run(lambda connection: _is_true(connection, "locks.close_gate", lock)) or None

            poll(close_gate, lambda: "the last transaction of a lost holder", purpose)
        yield HeldLocks(database, locks, pid, purpose)


def _is_true(connection: Connection, name: str, lock: Lock) -> bool:
    row = connection.execute(query(name), lock.keys).fetchone()
    return bool(row and row[0])


def _holders(database: Database, locks: Sequence[Lock]) -> str:
    """Names the programs that hold the locks now."""
    names = [name for lock in locks for (name,) in database.rows("locks.holders", lock.keys)]
    return " and ".join(dict.fromkeys(names)) or "another program"

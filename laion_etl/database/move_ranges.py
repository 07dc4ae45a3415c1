"""Moves key ranges to the servers that a longer list assigns them to: `laion-etl db move-ranges`.

The first server's table range_home records which server has a range, and that changes in one transaction:
before it the old server has the range, and after it the new one, even if the program is killed. The steps
of a range:

1. moving_to is recorded, on the old server under the range's lock: from then on nothing writes the range.
2. It is copied, and both copies are compared by count and checksum (range_copy.py).
3. The new server becomes its home; moved_from remembers the old one.
4. It is deleted on the old server, and moved_from with it.

A killed move resumes at the step that the record shows. Commands that need pairs refuse to work until all
ranges are settled. Pages stay on the old server, where other ranges share them, until their crawl is
forgotten.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.database.connection import Database
from laion_etl.database.key_ranges import KeyRanges
from laion_etl.database.locks import IMPORTS, PLANNERS, HeldLocks, run_locked
from laion_etl.database.queries import query
from laion_etl.database.range_copy import PURPOSE, RangeCopy, take_range
from laion_etl.database.server_setup import SERVERS, claim_servers, record_servers
from laion_etl.database.servers import URLS, Home, check_list, opened, recorded_homes, recorded_ids

_PARTITIONS = 500  # copied in one transaction


@dataclass(frozen=True, slots=True)
class RangeMove:
    """A range and the numbers of its old and its new server; `pairs`: without imported keys."""

    range_no: int
    old: int
    new: int
    pairs: int


def planned_moves(database: Database) -> list[RangeMove]:
    """Return what a move to the servers of the settings has to do, without touching the new ones."""
    count = 1 + len(database.further)
    _check_longer(database, count)
    known = len(recorded_ids(database))
    pairs: Counter[int] = Counter()
    with ExitStack() as stack:
        servers = [
            database,
            *(stack.enter_context(opened(u, database)) for u in database.further[: known - 1]),
        ]
        for server in servers:
            pairs.update(dict(server.rows("move.pairs_by_range")))
    return [
        RangeMove(number, home.server_no, number % count, pairs[number])
        for number, home in enumerate(recorded_homes(database))
        if home.server_no != number % count
    ]


def move_ranges(database: Database, moved: Callable[[RangeMove], None] = lambda _: None) -> list[RangeMove]:
    """Move all ranges that have another server in the list of the settings; return them.

    `moved` is called after each. Raises DatabaseError while loaders or planners are at work, or a plan or a
    forget is not finished, and if a new server is not empty.
    """
    _check_idle(database)
    with _servers(database) as servers:
        move = _Move(servers, moved)
        return run_locked(database, [PLANNERS, IMPORTS, SERVERS], PURPOSE, move.run)


@dataclass(frozen=True, slots=True)
class _Move:
    """The move to these servers."""

    servers: tuple[Database, ...]
    moved: Callable[[RangeMove], None]
    done: list[RangeMove] = field(default_factory=list)

    @property
    def first(self) -> Database:
        """The server with the record."""
        return self.servers[0]

    def run(self, held: HeldLocks) -> list[RangeMove]:
        """Move everything."""
        _check_finished(self.first)
        self._add_servers(held)
        homes = recorded_homes(self.first)
        for number, home in enumerate(homes):
            if home.moved_from is None and home.server_no != self._target(number):
                self._stop_writers(held, number, home)
        for server in self.servers[1:]:
            self._copy_partitions(server)
        for number, home in enumerate(recorded_homes(self.first)):
            self._move(held, number, home)
        return self.done

    def _target(self, number: int) -> int:
        return number % len(self.servers)

    def _add_servers(self, held: HeldLocks) -> None:
        """Record the new servers: from then on other commands need the longer list, too."""
        known = len(recorded_ids(self.first))
        if known == len(self.servers):
            check_list(self.first, self.servers[1:])
            return
        _check_longer(self.first, len(self.servers))
        check_list(self.first, self.servers[1:known])
        ids = claim_servers(self.first, self.servers[1:], known)
        held.run(lambda connection: record_servers(connection, ids, known))

    def _stop_writers(self, held: HeldLocks, number: int, home: Home) -> None:
        """Record that a range is being moved."""
        record = partial(_set_home, number=number, server_no=home.server_no, moving_to=self._target(number))

        def stop(connection: Connection) -> None:
            take_range(connection, number)
            record(connection)

        if home.server_no:
            self.servers[home.server_no].run(stop)
            held.run(record)
        else:
            held.run(stop)

    def _copy_partitions(self, server: Database) -> None:
        """Copy all partitions of the first server to an additional one."""
        after = -1
        while rows := self.first.rows("move.partitions", {"after": after, "rows": _PARTITIONS}):
            server.run(partial(_add_partitions, rows=rows))
            after = rows[-1][2]

    def _move(self, held: HeldLocks, number: int, home: Home) -> None:
        """Move a range to its server, from the step that the record shows."""
        old, new = (home.server_no, self._target(number)) if home.moved_from is None else (
            home.moved_from, home.server_no
        )  # fmt: skip
        if old == new:
            return
        timeout_s = self.first.settings.bulk_timeout_s
        copy = RangeCopy(number, self.first, self.servers[old], self.servers[new], new, timeout_s)
        if home.moved_from is None:
            copy.copy()
            pairs = copy.compare()
            held.run(partial(_set_home, number=number, server_no=new, moved_from=old))
        else:
            pairs = 0
        for server_no in {old, new} - {0}:
            self.servers[server_no].run(partial(_set_home, number=number, server_no=new))
        copy.delete_old()
        held.run(partial(_set_home, number=number, server_no=new))
        self.done.append(RangeMove(number, old, new, pairs))
        self.moved(self.done[-1])


@contextmanager
def _servers(database: Database) -> Iterator[tuple[Database, ...]]:
    with ExitStack() as stack:
        yield database, *(stack.enter_context(opened(url, database)) for url in database.further)


def _check_longer(database: Database, count: int) -> None:
    """Raise DatabaseError unless servers can be added to those that are recorded."""
    known = len(recorded_ids(database))
    if count < known:
        raise DatabaseError(
            f"cannot move key ranges to {count} servers: they are on {known}; name these in {URLS}, in their "
            "order, and the new ones after them"
        )
    homes = recorded_homes(database)
    if count > known and any(not one.is_settled or one.server_no != n % known for n, one in enumerate(homes)):
        raise DatabaseError(
            f"cannot add servers: the last move to {known} servers was not finished; run it to its end with "
            f"these in {URLS} first"
        )
    if count > KeyRanges.of(database).count:
        raise DatabaseError(
            f"cannot use {count} servers: the database has {KeyRanges.of(database).count} key ranges, which "
            "cannot be changed; name fewer servers, or load into a new database"
        )


def _check_idle(database: Database) -> None:
    """Raise DatabaseError while a planner, an import or another move is at work."""
    locks = (PLANNERS, IMPORTS, SERVERS)
    names = [name for lock in locks for (name,) in database.rows("locks.holders", lock.keys)]
    if names:
        raise DatabaseError(
            f"cannot move key ranges: {' and '.join(dict.fromkeys(names))} is at work; stop loaders and "
            "planners, and run `laion-etl db move-ranges` again"
        )


def _check_finished(database: Database) -> None:
    """Raise DatabaseError if a plan or a forget was begun and not ended."""
    for name, what in (("move.open_rounds", "the plan of"), ("move.being_forgotten", "db forget of")):
        if crawls := [crawl for (crawl,) in database.rows(name)]:
            raise DatabaseError(
                f"cannot move key ranges: {what} {', '.join(crawls)} is not finished; run it to its end first"
            )


def _set_home(
    connection: Connection,
    number: int,
    server_no: int,
    moving_to: int | None = None,
    moved_from: int | None = None,
) -> None:
    keys = {
        "range_no": number,
        "server_no": server_no,
        "moving_to": moving_to,
        "moved_from": moved_from,
    }
    connection.execute(query("servers.set_home"), keys)


def _add_partitions(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    names = ("crawl_no", "crawl", "partition_no", "partition", "loading", "version", "first_page", "planning")
    for row in rows:
        keys = dict(zip(names, row, strict=True))
        connection.execute(query("move.add_crawl"), keys)
        connection.execute(query("move.add_partition"), keys)

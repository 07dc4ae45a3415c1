"""The servers that hold the key ranges: which one has which range, and a connection to each.

Range r is on server r mod n. The first server's table range_home is the record of that. A command that reads
or writes pairs opens all servers, and goes on only if they are those of the record, in its order: with any
other list it would load pairs that exist already, or plan without those that it does not see. Commands of the
queue (download, status) use the first server only, and need neither the list nor the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import UUID

from laion_etl.core.errors import DatabaseError
from laion_etl.core.quantities import quantity
from laion_etl.database.connection import Database
from laion_etl.database.key_ranges import KeyRanges, ranges_of_table
from laion_etl.database.server_setup import add_servers, is_new

URLS = "LAION_ETL_DATABASE_URLS"


@dataclass(frozen=True, slots=True)
class Home:
    """Where a range is, and the state of a move that is not finished."""

    server_no: int
    moving_to: int | None = None
    moved_from: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing of the range is on another server."""
        return self.moving_to is None and self.moved_from is None


@dataclass(frozen=True, slots=True)
class RangeServers:
    """The servers, each through one connection; `homes`: the place in `databases` of each range's server."""

    ranges: KeyRanges
    databases: tuple[Database, ...]
    homes: tuple[int, ...]

    @property
    def first(self) -> Database:
        """The server with crawls, partitions, plans and the queue."""
        return self.databases[0]

    @property
    def further(self) -> tuple[Database, ...]:
        """The other servers."""
        return self.databases[1:]

    def by_server(self, numbers: Sequence[int]) -> list[tuple[Database, list[int]]]:
        """Return each server that has some of these ranges, with them, ascending."""
        found = [
            (database, sorted(number for number in numbers if self.homes[number] == place))
            for place, database in enumerate(self.databases)
        ]
        return [(database, own) for database, own in found if own]

    def slices(self, within: tuple[UUID, UUID] | None = None) -> Iterator[tuple[Database, UUID, UUID]]:
        """Yield ranges of keys, ascending, each with its server and small enough for a short transaction.

        `within`: only those from its first to its last key.
        """
        if not self.further:
            yield from ((self.first, first, last) for first, last in ranges_of_table(self.first, within))
            return
        low, high = within or (UUID(int=0), UUID(int=2**128 - 1))
        for number in self.ranges.between(low, high):
            first, last = self.ranges.bounds(number)
            own = max(first, low, key=int), min(last, high, key=int)
            for bounds in ranges_of_table(self.first, own):
                yield self.databases[self.homes[number]], *bounds

    @contextmanager
    def others(self) -> "Iterator[RangeServers]":
        """Open the same servers through other connections, for another thread, until the block ends."""
        with ExitStack() as stack:
            databases = tuple(stack.enter_context(one.another()) for one in self.databases)
            yield RangeServers(self.ranges, databases, self.homes)


@contextmanager
def range_servers(database: Database) -> Iterator[RangeServers]:
    """Open the servers of a database, which is the first, until the block ends.

    A list of several servers is recorded when it is first used with an empty database. Raises DatabaseError
    if the list is not the recorded one, or ranges are being moved.
    """
    with ExitStack() as stack:
        further = [stack.enter_context(opened(url, database)) for url in database.further]
        if further and len(recorded_ids(database)) == 1 and is_new(database):
            add_servers(database, further, 1)
        check_list(database, further)
        homes = recorded_homes(database)
        count = 1 + len(further)
        if any(not home.is_settled or home.server_no != n % count for n, home in enumerate(homes)):
            raise DatabaseError(
                "cannot use the key ranges: moving them to other servers was not finished; stop loaders and "
                "planners, and run `laion-etl db move-ranges` to its end"
            )
        places = tuple(home.server_no for home in homes)
        yield RangeServers(KeyRanges(len(homes)), (database, *further), places)


@contextmanager
def opened(url: str, first: Database) -> Iterator[Database]:
    """Open another server, with its schema up to date. Raises DatabaseError."""
    leaves = first.rows("servers.leaves")[0][0]
    one = Database(url, first.settings)
    try:
        one.open(leaves, KeyRanges.of(first).count)
        yield one
    finally:
        one.close()


def recorded_ids(database: Database) -> list[UUID]:
    """Return the ids of the servers that the first one has recorded, in their order."""
    return [server_id for _, server_id in database.rows("servers.recorded")]


def recorded_homes(database: Database) -> list[Home]:
    """Return where each range is, by the record of the first server."""
    return [Home(*rest) for _, *rest in database.rows("servers.homes")]


def check_list(database: Database, further: Sequence[Database]) -> None:
    """Raise DatabaseError unless these are the recorded servers, in their order."""
    recorded = recorded_ids(database)
    if len(recorded) != 1 + len(further):
        more = "" if len(recorded) > 1 else ", or run `laion-etl db move-ranges` to use more"
        raise DatabaseError(
            f"cannot use {quantity(1 + len(further), 'server')}: the pairs of this database are on "
            f"{len(recorded)}; name those in {URLS}, in their order{more}"
        )
    for server_no, one in enumerate(further, 1):
        ((server_id, own_no, _),) = one.rows("servers.this")
        if server_id != recorded[server_no]:
            place = (
                f"it is server {recorded.index(server_id)}" if server_id in recorded else "it is not recorded"
            )
            raise DatabaseError(
                f"cannot use Postgres at {one.public_name} as server {server_no}: {place}; name the servers "
                f"in {URLS} in their order"
            )
        if own_no != server_no:
            raise DatabaseError(
                f"cannot use Postgres at {one.public_name} as server {server_no}: it says that it is server "
                f"{own_no}; was it restored from another backup than the first server?"
            )

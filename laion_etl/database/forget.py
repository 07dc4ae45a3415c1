"""Removes a crawl from Postgres in short transactions; killed at any moment, it goes on where it was.

`crawl.forgotten_to` says how far it is: the pairs up to that key are deleted. Until the end nothing of the
crawl can be loaded, planned or downloaded, and not one of its partitions counts as loaded. Pairs are deleted
under the locks of their ranges, one range after the other: a loader of the crawl that is at work ends with an
error at its next range, and loaders of other crawls go on in the other ranges.
"""

from collections.abc import Mapping
from functools import partial
from uuid import UUID

from psycopg import Connection

from laion_etl.database.connection import Database
from laion_etl.database.load import crawl_number
from laion_etl.database.load_stats import delete_load_stats
from laion_etl.database.locks import PLANNERS, HeldLocks, run_locked
from laion_etl.database.queries import query
from laion_etl.database.range_locks import run_with_ranges
from laion_etl.database.rollups import roll_up
from laion_etl.database.servers import RangeServers, range_servers
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

_ROWS = 10_000  # of batches and pages, deleted in one transaction


def forget_crawl(crawl: str, settings: Settings, store: Store, database: Database) -> None:
    """Removes a crawl's pairs, partitions and batches from Postgres, and the stats of their load.

    Other files in the store stay. The stats are deleted first: after a kill, `load` writes them again or
    another `forget` finishes. They are deleted again at the end, in case a loader was just writing its own,
    and before the lock is released, so that those of the next loader stay.
    Raises DatabaseError for an unknown crawl.
    """
    database.run(lambda connection: crawl_number(connection, crawl, even_forgotten=True))

    def forget(held: HeldLocks, servers: RangeServers) -> None:
        delete_load_stats(crawl, store)
        for number, _ in database.rows("load.crawl_number", {"crawl": crawl}):  # none after a second attempt
            _Forget(crawl, held, servers, number, settings.database.bulk_timeout_s).run()
        delete_load_stats(crawl, store)

    with range_servers(database) as servers:
        run_locked(database, [PLANNERS], f"forget of {crawl}", partial(forget, servers=servers))


class _Forget:
    """The removal of the rows of a crawl."""

    def __init__(
        self, crawl: str, held: HeldLocks, servers: RangeServers, crawl_no: int, timeout_s: float
    ) -> None:
        self._purpose = f"forget of {crawl}"
        self._crawl = crawl
        self._held = held
        self._servers = servers
        self._keys = {"crawl_no": crawl_no}
        self._timeout_s = timeout_s

    def run(self) -> None:
        """Removes everything, batches first, so that no worker claims one whose pairs are gone."""
        begun = self._held.run(self._begin)
        while self._execute("forget.batches", rows=_ROWS):
            pass
        first = self._servers.first
        roll_up(first)
        for server in self._servers.further:
            self._forget_on(server)
        numbers = self._partitions(first)
        self._delete_pairs(first, numbers, begun)
        for number in numbers:
            while self._execute("forget.pages", partition_no=number, rows=_ROWS):
                pass
            self._execute("forget.partition", partition_no=number)
        self._execute("forget.thousands")
        self._execute("forget.crawl")

    def _forget_on(self, server: Database) -> None:
        """Removes the crawl from an additional server; from then on no loader can write any of it there."""
        self._held.run(lambda _: None)  # raises if the lock was lost
        ((begun,),) = server.rows("servers.forget_begin", {**self._keys, "crawl": self._crawl})
        numbers = self._partitions(server)
        self._delete_pairs(server, numbers, begun)
        for number in numbers:
            while _executed(server, "forget.pages", {"partition_no": number, "rows": _ROWS}):
                pass
            _executed(server, "forget.partition", {"partition_no": number})
        _executed(server, "servers.forget_end", self._keys)

    def _partitions(self, server: Database) -> list[int]:
        return [number for (number,) in server.rows("forget.partitions", self._keys)]

    def _delete_pairs(self, server: Database, partitions: list[int], begun: UUID) -> None:
        """Deletes the pairs that a server has, from the key `begun` on."""
        if not partitions:
            return
        run = self._held.run if server is self._servers.first else server.run
        for one, first, last in self._servers.slices():
            if one is server and last > begun:
                keys = {**self._keys, "first": first, "last": last, "partitions": partitions}
                delete = partial(_delete_pairs, keys=keys)
                ranges = self._servers.ranges.between(first, last)
                run_with_ranges(server, run, ranges, self._purpose, delete, self._timeout_s)

    def _begin(self, connection: Connection) -> UUID:
        connection.execute(query("forget.lock_rounds"), self._keys)
        connection.execute(query("forget.plan_windows"), self._keys)
        connection.execute(query("forget.plan_rounds"), self._keys)
        connection.execute(query("forget.unmark_partitions"), self._keys)
        row = connection.execute(query("forget.begin"), self._keys).fetchone()
        return row[0] if row else UUID(int=0)

    def _execute(self, name: str, **keys: int) -> int:
        """Runs a statement in its own transaction; returns the number of rows."""
        return self._held.run(
            lambda connection: connection.execute(query(name), {**self._keys, **keys}).rowcount,
            self._timeout_s,
        )


def _executed(server: Database, name: str, keys: Mapping[str, int]) -> int:
    """Runs a statement in a transaction of its own; returns the number of rows."""
    return server.run(lambda connection: connection.execute(query(name), keys).rowcount)


def _delete_pairs(connection: Connection, keys: dict[str, object]) -> None:
    connection.execute(query("plan.index_scans"))
    connection.execute(query("forget.pairs"), keys)
    connection.execute(query("forget.move_on"), keys)

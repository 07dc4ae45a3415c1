"""Rows of table partition on several servers: copies on the additional ones, and the sums of their counts.

A partition is loaded by what its row on the first server says. The copy on an additional server is there so
that a transaction which writes a range of it can check, on its own server, that its version is still the
current one, that the crawl is not being forgotten, and which partitions still take pairs. Its counts by range
are on the server of the range; the stats on the first server are their sum, which is renewed after each load
that changed it, and when a plan begins.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.errors import DatabaseError
from laion_etl.core.funnel import LoadReason
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.database.polling import poll
from laion_etl.database.queries import query
from laion_etl.database.servers import RangeServers

_AT_ONCE = 500  # partitions of one transaction
_COLUMNS = ("crawl_no", "crawl", "partition_no", "partition", "loading", "version", "first_page")


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of those ranges of a partition's version that are loaded."""

    ranges: int = 0
    kept: int = 0
    in_crawl: int = 0
    earlier: int = 0

    @property
    def pairs(self) -> int:
        """All pairs of the ranges."""
        return self.kept + self.in_crawl + self.earlier

    def plus(self, other: "Totals") -> "Totals":
        """Return the sum of both."""
        return Totals(
            self.ranges + other.ranges,
            self.kept + other.kept,
            self.in_crawl + other.in_crawl,
            self.earlier + other.earlier,
        )


_ByVersion = dict[tuple[int, int], Totals]  # by partition_no and version


def copy_partition(partition_no: int, servers: RangeServers, purpose: str) -> None:
    """Copy the row of a partition to the additional servers.

    Raises DatabaseError if it is not the current one.
    """
    if not servers.further:
        return
    rows = servers.first.rows("servers.partition_to_copy", {"partition_no": partition_no})
    for server in servers.further:
        copied = rows and server.rows("servers.copy_partition", dict(zip(_COLUMNS, rows[0], strict=True)))
        if not copied or not copied[0][0]:
            raise DatabaseError(
                f"cannot go on with the {purpose}: on {server.public_name} another version of it is being "
                "loaded, or the crawl is being forgotten; run it again"
            )


def pages_end(crawl: str, partition: int, servers: RangeServers) -> int:
    """Return a page number above all that a partition has on the additional servers."""
    keys = {"crawl": crawl, "partition": partition}
    return max((int(server.rows("servers.pages_end", keys)[0][0]) for server in servers.further), default=0)


def freeze_copies(partitions: Sequence[int], servers: RangeServers, purpose: str) -> None:
    """Keep loaders from taking over or giving back pairs of partitions on the additional servers."""
    for server in servers.further:
        for start in range(0, len(partitions), _AT_ONCE):
            keys = {"numbers": list(partitions[start : start + _AT_ONCE])}

            freeze = partial(_frozen, keys=keys)
            poll(partial(server.run, freeze), lambda: "a loader that takes pairs over", purpose)


def _frozen(connection: Connection, keys: dict[str, Any]) -> bool | None:
    ((expected,),) = connection.execute(query("servers.existing_partitions"), keys).fetchall()
    if len(connection.execute(query("servers.lock_partitions"), keys).fetchall()) < expected:
        return None
    connection.execute(query("servers.freeze_partitions"), keys)
    return True


def totals_elsewhere(partitions: Sequence[int], servers: RangeServers) -> _ByVersion:
    """Return the counts of the additional servers."""
    found: _ByVersion = defaultdict(Totals)
    for server in servers.further:
        for key, totals in _totals(server, partitions):
            found[key] = found[key].plus(totals)
    return found


def refresh_stats(partitions: Sequence[int], servers: RangeServers) -> None:
    """Set the stats of loaded partitions to the sums of all servers; those of a single one are always right.

    Raises DatabaseError if the ranges of a partition do not account for all of its pairs.
    """
    if not servers.further:
        return
    for start in range(0, len(partitions), _AT_ONCE):
        some = list(partitions[start : start + _AT_ONCE])
        for is_last_time in (False, False, True):
            work = partial(_refreshed, some=some, servers=servers, is_last_time=is_last_time)
            if poll(partial(servers.first.run, work), lambda: "another writer of stats", "sum of the ranges"):
                break


def _refreshed(
    connection: Connection, some: list[int], servers: RangeServers, *, is_last_time: bool
) -> bool | None:
    """Sum up in one transaction; None: another program is doing so, False: a partition was loaded meanwhile.

    The lock comes before the sums are read: of several programs the last one has the latest sums.
    """
    locked = connection.execute(query("servers.lock_stats"), {"numbers": some}).fetchone()
    if locked is None or not locked[0]:
        return None
    connection.execute(query("locks.drop_snapshot"))  # the other servers may be slow
    elsewhere = totals_elsewhere(some, servers)
    rows = connection.execute(query("servers.stats_to_refresh"), {"numbers": some}).fetchall()
    here = dict(_rows_of(connection.execute(query("servers.totals"), {"numbers": some}).fetchall()))
    changed: dict[int, Jsonb] = {}
    for number, version, plain in rows:
        key, stats = (number, version), StageStats.from_plain(plain)
        totals = here.get(key, Totals()).plus(elsewhere.get(key, Totals()))
        if totals.ranges < len(servers.homes) and not is_last_time:
            return False
        if (new := _summed(stats, totals, len(servers.homes))) != stats:
            changed[number] = Jsonb(new.to_plain())
    if changed:
        values = {"numbers": list(changed), "stats": list(changed.values())}
        connection.execute(query("load.change_stats"), values)
    return True


def check_sum(totals: Totals, ranges: int, pairs: int, purpose: str) -> None:
    """Raise DatabaseError unless all ranges are loaded and account for all pairs."""
    if (totals.ranges, totals.pairs) != (ranges, pairs):
        raise DatabaseError(
            f"cannot end the {purpose}: {totals.ranges} of its {ranges} ranges account for {totals.pairs:,} "
            f"of {quantity(pairs, 'pair')}; if no server was restored from an older backup, which `laion-etl "
            "db reconcile` finds, please report this bug"
        )


def incomplete_partitions(crawl: str, servers: RangeServers) -> list[int]:
    """Return the loaded partitions of a crawl of which the servers do not have all ranges and pairs.

    One server alone has them, as they are recorded by the transactions that record the ranges.
    """
    if not servers.further:
        return []
    rows = servers.first.rows("servers.loaded_partitions", {"crawl": crawl})
    found: _ByVersion = defaultdict(Totals)
    for server in servers.databases:
        for start in range(0, len(rows), _AT_ONCE):
            for key, totals in _totals(server, [row[0] for row in rows[start : start + _AT_ONCE]]):
                found[key] = found[key].plus(totals)
    return [
        partition
        for number, version, partition, pairs in rows
        if (found[number, version].ranges, found[number, version].pairs) != (len(servers.homes), pairs)
    ]


def _summed(stats: StageStats, totals: Totals, ranges: int) -> StageStats:
    """Return stats with the counts of the ranges."""
    kept_out = (LoadReason.DUPLICATE_IN_CRAWL, LoadReason.DUPLICATE_OF_EARLIER_CRAWL)
    others = {reason: count for reason, count in stats.dropped.items() if reason not in map(str, kept_out)}
    pairs = stats.input - sum(others.values())
    check_sum(totals, ranges, pairs, f"count of {stats.unit} of {stats.crawl}")
    counts = zip(map(str, kept_out), (totals.in_crawl, totals.earlier), strict=True)
    dropped = others | {reason: count for reason, count in counts if count}
    return replace(stats, kept=totals.kept, dropped=dropped)


def _totals(database: Database, partitions: Sequence[int]) -> list[tuple[tuple[int, int], Totals]]:
    return _rows_of(database.rows("servers.totals", {"numbers": list(partitions)}))


def _rows_of(rows: list[Any]) -> list[tuple[tuple[int, int], Totals]]:
    return [((number, version), Totals(*counts)) for number, version, *counts in rows]

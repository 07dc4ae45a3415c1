"""Load stage: writes the pairs of a partition to Postgres, where the primary key is the dedupe.

The keys are cut into ranges. Loaders of different partitions write different ranges side by side, each range
in one transaction with its record (range_load.py); a killed one goes on with the ranges that are left. When
all are loaded the partition gets its fingerprint: until then it is not planned. Ranges that were loaded from
an earlier version of the partition are replaced one after the other, and pairs it no longer contains go back
to the partitions that lost them (corrections.py). A loaded partition is not loaded again.

Rows and counts do not depend on the order in which partitions, or their ranges, are loaded: a pair that
several partitions of a crawl hold belongs to the lowest of them (under rule url: to the one with the best
caption), so a later loader takes it over where needed, unless its batch is already cut. A load that is
interrupted may have taken pairs over; if the partition is corrected then, it gives them back.

If a removal rewrites the pairs file, what was loaded from it before is replaced like an earlier version.
"""

from dataclasses import dataclass, replace
from functools import partial

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.errors import DamagedFileError, DatabaseError, NotLoadedError
from laion_etl.core.funnel import LoadReason
from laion_etl.core.numba_cache import ensure_compiled
from laion_etl.core.schemas import parse_stats_name, partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.conflicts import PartitionRef
from laion_etl.database.connection import Database
from laion_etl.database.corrections import Correction
from laion_etl.database.dedupe_keys import Candidates, DedupeRule
from laion_etl.database.load_stats import load_stats_name, parse_counters, stats_to_store
from laion_etl.database.loaded import check_rules, load_fingerprint, loading_fingerprint
from laion_etl.database.locks import CORRECTIONS, HeldLocks, run_locked
from laion_etl.database.pair_texts import PairTexts
from laion_etl.database.pairs_file import PairsFile
from laion_etl.database.partition_copies import (
    Totals,
    check_sum,
    copy_partition,
    pages_end,
    refresh_stats,
    totals_elsewhere,
)
from laion_etl.database.queries import query
from laion_etl.database.range_load import LoadWork
from laion_etl.database.servers import RangeServers, range_servers
from laion_etl.database.servers_load import ServersLoad
from laion_etl.io.outputs import only_output
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

IMPORTED = "imported-memory"  # the crawl that imported keys belong to
_PAGES = 10_000  # deleted in one transaction


def load_partition(
    crawl: str, partition: int, settings: Settings, store: Store, database: Database
) -> StageStats:
    """Loads `pairs/<crawl>/part-<partition>.parquet`; returns its stats, also kept in `load/<crawl>/`.

    Raises DatabaseError when the partition was parsed again after its pairs were cut into batches, or when
    the database has another dedupe rule; SettingsError when the partition was parsed with other settings.
    """
    if crawl == IMPORTED:
        raise DatabaseError(
            f"cannot load {IMPORTED}: the name is reserved for imported keys; give the crawl another one"
        )
    ensure_compiled()
    rule = DedupeRule.from_settings(settings.load)
    unit = partition_name(partition)
    parsed = store.read_stats(parse_stats_name(crawl, partition))
    check_rules(crawl, partition, parsed, settings.parse)
    store.begin(load_stats_name(crawl, unit))
    with range_servers(database) as servers:
        changed = _changed_partitions(crawl, partition, rule, settings, store, servers)
        refresh_stats(changed, servers)
    for partition_no in changed:
        stats_to_store(partition_no, store, database)
    return store.read_stats(load_stats_name(crawl, unit))


def _changed_partitions(
    crawl: str, partition: int, rule: DedupeRule, settings: Settings, store: Store, servers: RangeServers
) -> list[int]:
    """Loads a partition, again if a removal has rewritten its pairs meanwhile; returns what has changed."""
    while True:
        parsed = store.read_stats(parse_stats_name(crawl, partition))
        load = _Load(crawl, partition, rule, parsed, settings, store, servers)
        try:
            return load.changed_partitions()
        except DamagedFileError:
            if not load.is_outdated():
                raise


def _begin(connection: Connection, crawl: str, rule: DedupeRule) -> int:
    """Returns the number of a crawl, assigned when it is new; the database must have this dedupe rule."""
    settle_rule(connection, rule)
    connection.execute(query("load.register_crawl"), {"crawl": crawl})
    return crawl_number(connection, crawl)


def crawl_number(connection: Connection, crawl: str, *, even_forgotten: bool = False) -> int:
    """Returns the number of a loaded crawl; raises DatabaseError for an unknown one.

    And for one that is being forgotten, unless `even_forgotten`.
    """
    row = connection.execute(query("load.crawl_number"), {"crawl": crawl}).fetchone()
    if row is None:
        raise NotLoadedError(
            f"cannot find {crawl} in the database: nothing of it is loaded yet; run "
            f"`laion-etl stage load --crawl {crawl} --partition N` for each of its partitions first"
        )
    number, is_forgotten = row
    if is_forgotten and not even_forgotten:
        raise DatabaseError(
            f"cannot use {crawl}: it is being forgotten, or that was interrupted; run "
            f"`laion-etl db forget --crawl {crawl}` to its end first"
        )
    return int(number)


def begin_partition(connection: Connection, crawl_no: int, partition: int, fingerprint: str) -> int:
    """Adds a partition as not loaded yet, by the fingerprint it will be loaded with; returns its number."""
    keys = {"crawl_no": crawl_no, "partition": partition, "loading": fingerprint}
    row = connection.execute(query("load.add_partition"), keys).fetchone()
    return int(row[0]) if row else 0


def settle_rule(connection: Connection, rule: DedupeRule) -> None:
    """Sets the dedupe rule at the first load of a database; raises DatabaseError if it has another one."""
    connection.execute(query("load.set_rule"), {"rule": rule})
    row = connection.execute(query("load.rule")).fetchone()
    if row is not None and row[0] != rule:
        raise DatabaseError(
            f"cannot load with LAION_ETL_LOAD_DEDUPE={rule}: this database removes duplicates by {row[0]}; "
            f"set it to {row[0]}, or use another database"
        )


@dataclass(frozen=True, slots=True)
class _Load:
    """The load of one partition."""

    crawl: str
    partition: int
    rule: DedupeRule
    parsed: StageStats
    settings: Settings
    store: Store
    servers: RangeServers

    @property
    def database(self) -> Database:
        """The first server."""
        return self.servers.first

    def changed_partitions(self) -> list[int]:
        """Loads the partition unless it is loaded; returns the partitions whose stats may have changed."""
        self.database.run(partial(_begin, crawl=self.crawl, rule=self.rule))
        if (known := self.database.run(self._loaded)) is not None:
            return [known]
        candidates = self._pairs.candidates()
        with self._pairs.texts(candidates) as texts:
            return self._load(candidates, texts)

    def _loaded(self, connection: Connection) -> int | None:
        """Returns the number of the partition if it is loaded."""
        keys = {"crawl": self.crawl, "partition": self.partition, "fingerprint": self.fingerprint}
        row = connection.execute(query("load.loaded_as"), keys).fetchone()
        return int(row[0]) if row else None

    def _load(self, candidates: Candidates, texts: PairTexts) -> list[int]:
        """Loads range by range until all ranges have this version."""
        first_page = pages_end(self.crawl, self.partition, self.servers)
        announced = self.database.run(partial(self._announce, pages_end=first_page))
        if isinstance(announced, int):
            return [announced]
        me, version, first_page, is_new = announced
        ranges = self.servers.ranges
        work = LoadWork(self.crawl, me, version, first_page, self.rule, ranges, candidates, texts)
        copy_partition(me.partition_no, self.servers, work.purpose)
        load = ServersLoad(work, self.servers, is_new, self.settings)
        changed = load.run()
        self._correct(work, changed)
        self._check_file()
        self._save(work)
        return [me.partition_no, *sorted(changed - {me.partition_no})]

    def _correct(self, work: LoadWork, changed: set[int]) -> None:
        """Replaces ranges of earlier versions; adds partitions whose stats may have changed."""
        for server, own in self.servers.by_server(self.servers.ranges.numbers):
            begun = server.run(work.begun)
            if any(begun.get(number) != work.version for number in own):
                self._correct_on(server, own, work, changed)

    def is_outdated(self) -> bool:
        """Whether a removal, or parse, has written the pairs file anew since its stats were read."""
        now = self.store.read_stats(parse_stats_name(self.crawl, self.partition))
        return loading_fingerprint(now, self.rule) != self._loading

    def _check_file(self) -> None:
        """Raises DamagedFileError if the pairs file is not the one that was loaded.

        A removal empties rows after it has rewritten files: it finds those written here, or is seen here.
        """
        if self.is_outdated():
            raise DamagedFileError("the pairs are not those that were loaded: they have been written anew")

    def _correct_on(self, server: Database, own: list[int], work: LoadWork, changed: set[int]) -> None:
        timeout_s = self.settings.database.bulk_timeout_s

        def correct(held: HeldLocks) -> None:
            begun = held.run(work.begun)
            outdated = [number for number in own if begun.get(number) != work.version]
            Correction(work, self.store, held, server, timeout_s).replace(outdated, changed)

        run_locked(server, [CORRECTIONS], work.purpose, correct)
        keys = {"partition_no": work.me.partition_no, "first_page": work.first_page, "rows": _PAGES}
        while server.run(lambda one: one.execute(query("load.outdated_pages"), keys).rowcount):
            pass

    def _announce(self, connection: Connection, pages_end: int) -> tuple[PartitionRef, int, int, bool] | int:
        """Returns the partition, its version and first page, and whether it is new; its number if loaded.

        Raises DatabaseError when pairs of another version are in batches.
        """
        crawl_no = _begin(connection, self.crawl, self.rule)
        keys = {"crawl_no": crawl_no, "partition": self.partition}
        row = connection.execute(query("load.partition"), keys).fetchone()
        if row is None:
            number = begin_partition(connection, crawl_no, self.partition, self._loading)
            return PartitionRef(number, crawl_no, self.partition), 1, 0, True
        number, fingerprint, loading, version, first_page, planned, planning = row
        if fingerprint == self.fingerprint:
            return int(number)  # another loader has loaded it meanwhile
        if loading != self._loading:
            if planned or planning:
                raise DatabaseError(
                    f"cannot load partition {self.partition} of {self.crawl} again: its pairs, or the rules "
                    "of loading, have changed since they were cut into batches; to rebuild the crawl run "
                    f"`laion-etl db forget --crawl {self.crawl}` first"
                )
            begun = {"partition_no": number, "loading": self._loading, "pages_end": pages_end}
            version, first_page = connection.execute(query("load.begin_version"), begun).fetchone() or (0, 0)
        return PartitionRef(number, crawl_no, self.partition), version, first_page, False

    @property
    def fingerprint(self) -> str:
        """The fingerprint the partition will have when it is loaded."""
        return load_fingerprint(self.parsed, self.rule)

    @property
    def _loading(self) -> str:
        """What the partition is known by until then."""
        return loading_fingerprint(self.parsed, self.rule)

    @property
    def _pairs(self) -> PairsFile:
        name = f"pairs/{self.crawl}/{partition_name(self.partition)}.parquet"
        expected = only_output(self.parsed, self.store.uri(name))
        return PairsFile(self.store, name, self.rule, replace(expected, name=name))

    def _save(self, work: LoadWork) -> None:
        """Saves stats and fingerprint: from here on the partition is loaded."""

        number = work.me.partition_no
        elsewhere = totals_elsewhere([number], self.servers).get((number, work.version), Totals())

        def save(connection: Connection) -> None:
            keys = {"partition_no": number, "version": work.version}
            connection.execute(
                query("load.lock_partition"), keys
            )  # before the counts are read: see load_stats
            work.check(connection)
            row = connection.execute(query("load.range_totals"), keys).fetchone()
            totals = Totals(*(row or ())).plus(elsewhere)
            check_sum(totals, work.ranges.count, len(work.candidates), work.purpose)
            dropped = {
                LoadReason.DUPLICATE_IN_PARTITION: self.parsed.kept - len(work.candidates),
                LoadReason.DUPLICATE_IN_CRAWL: totals.in_crawl,
                LoadReason.DUPLICATE_OF_EARLIER_CRAWL: totals.earlier,
            }
            stats = StageStats(
                "load",
                self.crawl,
                partition_name(self.partition),
                self.fingerprint,
                self.parsed.kept,
                totals.kept,
                {str(reason): count for reason, count in dropped.items() if count},
                details={"settings": {"load": {"dedupe": str(self.rule)}}},
            )
            saved = {"fingerprint": self.fingerprint, "stats": Jsonb(stats.to_plain())}
            connection.execute(query("load.save_partition"), {**keys, **saved})
            parsed = {"partition_no": number, "parsed": Jsonb(parse_counters(self.parsed))}
            connection.execute(query("load.save_parsed"), parsed)

        self.database.run(save)

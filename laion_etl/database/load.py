"""Load stage: writes the pairs of a partition to Postgres, where the primary key is the dedupe.

Keys are looked up, and new rows go by binary COPY straight into table pair, over several connections and in
short transactions. Until the last one the partition has no fingerprint: it is not planned, and its next
load goes on where a killed one ended. A corrected partition is replaced in one transaction; pairs it no
longer contains go back to the partitions that lost them. A loaded partition is not loaded again.

Rows and counts do not depend on the order in which partitions are loaded: a pair that several partitions of
a crawl hold belongs to the lowest of them (under rule url: to the one with the best caption), so a later
loader takes it over where needed, unless its batch is already cut. It takes all of them over in its last
transaction: an interrupted load that is corrected later has taken nothing from others.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.errors import DatabaseError
from laion_etl.core.funnel import LoadReason
from laion_etl.core.numba_cache import ensure_compiled
from laion_etl.core.schemas import parse_stats_name, partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.conflicts import PartitionRef, Resolution, insert, resolve
from laion_etl.database.connection import Database
from laion_etl.database.corrections import Correction
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, PairsFile
from laion_etl.database.free_keys import FreeKeys
from laion_etl.database.load_stats import load_stats_name, note_taken, parse_counters, stats_to_store
from laion_etl.database.loaded import check_rules, load_fingerprint
from laion_etl.database.locks import PAIRS, HeldLocks, run_locked
from laion_etl.database.queries import query
from laion_etl.io.storage import Store
from laion_etl.settings import Settings

IMPORTED = "imported-memory"  # the crawl that imported keys belong to


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
    load = _Load(crawl, partition, rule, parsed, settings, store, database)
    store.begin(load_stats_name(crawl, unit))
    for partition_no in load.changed_partitions():
        stats_to_store(partition_no, store, database)
    return store.read_stats(load_stats_name(crawl, unit))


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
        raise DatabaseError(
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
    database: Database

    def changed_partitions(self) -> list[int]:
        """Loads the partition unless it is loaded; returns the partitions whose stats may have changed."""
        self.database.run(partial(_begin, crawl=self.crawl, rule=self.rule))
        if (known := self.database.run(self._loaded)) is not None:
            return [known]
        candidates = self._pairs.candidates()
        purpose = f"load of partition {self.partition} of {self.crawl}"
        return run_locked(self.database, [PAIRS], purpose, partial(self._load, candidates))

    def _loaded(self, connection: Connection) -> int | None:
        """Returns the number of the partition if it is loaded."""
        keys = {"crawl": self.crawl, "partition": self.partition, "fingerprint": self.fingerprint}
        row = connection.execute(query("load.loaded_as"), keys).fetchone()
        return int(row[0]) if row else None

    def _load(self, candidates: Candidates, held: HeldLocks) -> list[int]:
        if (known := held.run(self._loaded)) is not None:
            return [known]  # another loader has loaded it meanwhile
        me, is_resumed, is_other = held.run(self._announce)
        timeout_s = self.settings.database.bulk_timeout_s
        if is_other:
            correction = Correction(self.crawl, me, self.rule, self.store, held, timeout_s)
            return correction.replace(self._pairs, candidates, self._save)
        free = FreeKeys(held, me.partition_no, self.rule, is_resumed, timeout_s)
        with ExitStack() as stack:
            connections = range(max(1, self.settings.load.connections))
            others = [stack.enter_context(self.database.another()) for _ in connections]
            existing = free.insert(others, self._pairs, candidates)

        def finish(connection: Connection) -> list[int]:
            resolved = resolve(connection, me, candidates, existing, self.rule)
            taken = candidates.where(resolved.won & resolved.contested)
            insert(connection, me.partition_no, self._pairs, taken)
            self._save(connection, me, candidates, resolved)
            return [me.partition_no, *note_taken(connection, resolved)]

        return held.run(finish, timeout_s)

    def _announce(self, connection: Connection) -> tuple[PartitionRef, bool, bool]:
        """Returns the partition, whether it has been begun already, and whether from other pairs."""
        crawl_no = _begin(connection, self.crawl, self.rule)
        keys = {"crawl_no": crawl_no, "partition": self.partition}
        row = connection.execute(query("load.partition"), keys).fetchone()
        if row is not None:
            number, fingerprint, loading = row
            is_other = bool(fingerprint) or loading != self.fingerprint
            return PartitionRef(number, crawl_no, self.partition), True, is_other
        number = begin_partition(connection, crawl_no, self.partition, self.fingerprint)
        return PartitionRef(number, crawl_no, self.partition), False, False

    @property
    def fingerprint(self) -> str:
        """The fingerprint the partition will have when it is loaded."""
        return load_fingerprint(self.parsed, self.rule)

    @property
    def _pairs(self) -> PairsFile:
        name = f"pairs/{self.crawl}/{partition_name(self.partition)}.parquet"
        return PairsFile(self.store, name, self.rule)

    def _save(
        self, connection: Connection, me: PartitionRef, candidates: Candidates, resolved: Resolution
    ) -> None:
        """Saves stats and fingerprint: from here on the partition is loaded."""
        dropped = {
            LoadReason.DUPLICATE_IN_PARTITION: self.parsed.kept - len(candidates),
            LoadReason.DUPLICATE_IN_CRAWL: resolved.lost_in_crawl,
            LoadReason.DUPLICATE_OF_EARLIER_CRAWL: resolved.lost_earlier,
        }
        stats = StageStats(
            "load",
            self.crawl,
            partition_name(self.partition),
            self.fingerprint,
            self.parsed.kept,
            int(resolved.won.sum()),
            {str(reason): count for reason, count in dropped.items() if count},
        )
        keys = {"partition_no": me.partition_no, "fingerprint": self.fingerprint}
        connection.execute(query("load.save_partition"), {**keys, "stats": Jsonb(stats.to_plain())})
        parsed = {"partition_no": me.partition_no, "parsed": Jsonb(parse_counters(self.parsed))}
        connection.execute(query("load.save_parsed"), parsed)

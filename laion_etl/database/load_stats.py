"""Stats of loaded partitions: kept in Postgres, where other loads adjust them, and copied to the store."""

from dataclasses import replace

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.funnel import LoadReason
from laion_etl.core.schemas import partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.conflicts import Resolution
from laion_etl.database.connection import Database
from laion_etl.database.polling import poll
from laion_etl.database.queries import query
from laion_etl.io.storage import Store


def load_stats_name(crawl: str, unit: str) -> str:
    """Return the name of the load stats of a partition in the store."""
    return f"load/{crawl}/{unit}.json"


def parse_counters(parsed: StageStats) -> dict[str, object]:
    """Return what is kept of the stats of parse with the loaded partition: plain JSON values."""
    counters = {"input": parsed.input, "kept": parsed.kept, "dropped": parsed.dropped}
    return {**counters, "records": parsed.details.get("records")}


def delete_load_stats(crawl: str, store: Store) -> None:
    """Deletes the load stats of all partitions of a crawl."""
    for name in store.list(f"load/{crawl}"):
        store.delete(name)


def stats_to_store(partition_no: int, store: Store, database: Database) -> None:
    """Writes a partition's stats from Postgres to the store.

    A lock, not waited for in a transaction, makes the last of several writers write the latest state.
    """
    keys = {"partition_no": partition_no}

    def write(connection: Connection) -> bool | None:
        locked = connection.execute(query("load.lock_stats"), keys).fetchone()
        if locked is None or not locked[0]:
            return None
        row = connection.execute(query("load.stats_of"), keys).fetchone()
        connection.execute(query("locks.drop_snapshot"))  # the store may be slow
        if row is not None and row[2]:
            crawl, partition, plain = row
            name, stats = load_stats_name(crawl, partition_name(partition)), StageStats.from_plain(plain)
            if not store.exists(name) or store.read_stats(name) != stats:
                store.write_stats(name, stats)
        return True

    poll(lambda: database.run(write), lambda: "another writer of the same stats", "writing of load stats")


def note_taken(connection: Connection, resolved: Resolution) -> list[int]:
    """Counts rows taken over as duplicates of the partitions that lost them; returns their numbers."""
    for partition_no, count in resolved.taken.items():
        row = connection.execute(query("load.stats_of"), {"partition_no": partition_no}).fetchone()
        if row is not None and row[2]:  # an interrupted partition is counted when it is loaded again
            stats = StageStats.from_plain(row[2])
            adjust(connection, partition_no, moved(stats, -count, LoadReason.DUPLICATE_IN_CRAWL))
    return list(resolved.taken)


def moved(stats: StageStats, won: int, reason: LoadReason) -> StageStats:
    """Returns stats with `won` more pairs kept, and as many fewer dropped for a reason."""
    dropped = {**stats.dropped, str(reason): stats.dropped.get(reason, 0) - won}
    return replace(
        stats, kept=stats.kept + won, dropped={name: count for name, count in dropped.items() if count}
    )


def adjust(connection: Connection, partition_no: int, stats: StageStats) -> None:
    """Replace the stats of a loaded partition."""
    keys = {"partition_no": partition_no, "stats": Jsonb(stats.to_plain())}
    connection.execute(query("load.adjust_stats"), keys)

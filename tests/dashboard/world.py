"""A crawl in progress as the stages leave it in store and Postgres, with hostile text where possible."""

from dataclasses import replace

from psycopg import Connection

from laion_etl.alerts import Alert, Kind, deliver
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import partition_name, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import open_database
from laion_etl.io.storage import Store, open_store
from laion_etl.settings import Settings
from tests.database.pairs import batch_no, batch_nos
from tests.publish.world import CRAWL, build_world, write_world

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><b>\u202ebold"
ADVICE = "; give Airflow's workers the right to read the bucket, then clear the task"
CAUSE = f"{HOSTILE} can't be read: {'AccessDenied ' * 80}{ADVICE}"
PARTITIONS = 24
BATCHES = 40
FIRST_BATCH = batch_no(0, CRAWL)


def write_crawl(settings: Settings) -> None:
    """24 partitions, 20 of them loaded; of 40 batches 3 are scored, 20 more downloaded, one failed."""
    store = open_store(settings.store_uri)
    numbers = batch_nos(BATCHES, CRAWL)
    world = build_world(batches=3, first_batch=FIRST_BATCH)
    world.batches[FIRST_BATCH][0]["caption"] = HOSTILE
    write_world(world, store, numbers)
    for number in range(1, PARTITIONS):
        _write_partition(number, store)
    for number in numbers[3:23]:
        stats = StageStats(
            "download", CRAWL, batch_name(number), "f", 500, 380, {"http_error": 90, "timeout": 30}
        )
        store.write_stats(f"{shard_stem(CRAWL, number)}_stats.json", stats)
    with open_database(settings) as database:
        database.run(_write_rows)
    alert = Alert(Kind.FAILED, CRAWL, "manual__1", "parse", "partition 21", CAUSE, 4)
    deliver(alert, settings)
    deliver(replace(alert, unit="partition 22"), settings)


def _write_partition(number: int, store: Store) -> None:
    if number in (21, 22):
        return
    parsed = StageStats(
        "parse", CRAWL, partition_name(number), "f", 9_000, 2_400, {"no_alt": 5_000, "tracker": 1_600}
    )
    store.write_stats(f"pairs/{CRAWL}/{partition_name(number)}.json", parsed)
    if number < 20:
        loaded = StageStats(
            "load", CRAWL, partition_name(number), "f", 2_400, 2_000, {"duplicate_in_crawl": 400}
        )
        store.write_stats(f"load/{CRAWL}/{partition_name(number)}.json", loaded)


def add_crawl(connection: Connection, crawl: str) -> int:
    """The number of a new crawl."""
    added = connection.execute("insert into crawl (crawl) values (%s) returning crawl_no", [crawl])
    return int((added.fetchone() or (0,))[0])


_PARTITION = """
insert into partition (crawl_no, partition, fingerprint, planned, stats)
values (%s, %s, %s, %s, '{"input": 2400, "kept": 2000}')
"""
_BATCH = """
insert into batch (batch, crawl_no, pairs, file, state, attempts, lease_owner, lease_expires, stats, error,
                   updated_at, claimed_at)
values (%(batch)s, %(crawl)s, 500, '{}', %(state)s, 1, %(owner)s, now() + make_interval(secs => %(left_s)s),
        '{"kept": 380}', %(error)s, now() - make_interval(mins => 2),
        now() - make_interval(mins => 2, secs => %(took_s)s))
"""


def _write_rows(connection: Connection) -> None:
    crawl = add_crawl(connection, CRAWL)
    for number in range(21):
        connection.execute(_PARTITION, [crawl, number, "" if number == 20 else "f", number < 18])
    for number in range(BATCHES):
        state = "done" if number < 23 else "failed" if number == 23 else "leased" if number < 26 else "ready"
        row = {
            "batch": FIRST_BATCH + number,
            "crawl": crawl,
            "state": state,
            "owner": "worker:1:1" if state == "leased" else None,
            "left_s": 600 if number == 24 else -60,
            "error": HOSTILE if state == "failed" else None,
            "took_s": 30 + 7 * (number % 11),
        }
        connection.execute(_BATCH, row)

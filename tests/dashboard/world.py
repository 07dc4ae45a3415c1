"""A crawl in progress as the stages leave it in store and Postgres, with hostile text where possible."""

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.alerts import Alert, Kind, deliver
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import partition_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.usage import Usage
from laion_etl.database.connection import open_database
from laion_etl.database.load_stats import parse_counters
from laion_etl.dataset.score_progress import GroupRecord
from laion_etl.io.storage import Store, open_store
from laion_etl.io.usage_records import UsageRecord
from laion_etl.settings import Settings
from tests.database.pairs import batch_no, batch_nos
from tests.publish.world import CRAWL, build_world, write_world

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><b>\u202ebold"
ADVICE = "; give Airflow's workers the right to read the bucket, then clear the task"
CAUSE = f"{HOSTILE} can't be read: {'AccessDenied ' * 80}{ADVICE}"
SENTENCE = "6% of links timed out"
PARTITIONS = 24
BATCHES = 40
FIRST_BATCH = batch_no(0, CRAWL)


def write_usage(store: Store) -> None:
    """Write what a download worker that still runs has used in an hour."""
    used = Usage(pod_s=3_600, core_s=7_200, web_bytes=2_000_000_000)
    worker = UsageRecord(
        CRAWL, "download", "worker", 2, 0, time.time(), running=True, usage=used, ran_s=used.pod_s
    )
    store.write(f"usage/{CRAWL}/download/worker-1.json", worker.to_json())


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
            "download",
            CRAWL,
            batch_name(number),
            "f",
            500,
            380,
            {"http_error": 90, "timeout": 30},
            details={"network": {"hosts": 61, "diagnosis": [SENTENCE]}},
        )
        store.write_stats(f"{shard_stem(CRAWL, number)}_stats.json", stats)
    write_group(CRAWL, numbers[:3], store, of=23)
    write_usage(store)
    with open_database(settings) as database:
        database.run(partial(_write_rows, store=store))
    alert = Alert(Kind.FAILED, CRAWL, "manual__1", "parse", "partition 21", CAUSE, 4)
    deliver(alert, settings)
    deliver(replace(alert, unit="partition 22"), settings)


def write_group(crawl: str, batches: Iterable[int], store: Store, of: int) -> None:
    """The record of a score stage with one group, after these batches."""
    record = GroupRecord(crawl, "0/1", of, store)
    record.begin()
    for number in batches:
        record.add(store.read_stats(f"{scored_stem(crawl, number)}_stats.json"))
    record.finish()


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
insert into partition (crawl_no, partition, fingerprint, planned, stats, parsed)
values (%s, %s, %s, %s, %s, %s)
"""
_BATCH = """
insert into batch (batch, crawl_no, pairs, file, state, attempts, lease_owner, lease_expires, stats, error,
                   updated_at, claimed_at)
values (%(batch)s, %(crawl)s, %(pairs)s, '{}', %(state)s, 1, %(owner)s,
        now() + make_interval(secs => %(left_s)s), %(stats)s, %(error)s, now() - make_interval(mins => 2),
        now() - make_interval(mins => 2, secs => %(took_s)s))
"""


def _write_rows(connection: Connection, store: Store) -> None:
    """Partitions 0 to 9 as an earlier version loaded them: without the counters of their parse."""
    crawl = add_crawl(connection, CRAWL)
    for number in range(20):
        loaded = store.read_stats(f"load/{CRAWL}/{partition_name(number)}.json")
        parsed = parse_counters(store.read_stats(f"pairs/{CRAWL}/{partition_name(number)}.json"))
        records = [Jsonb(loaded.to_plain()), Jsonb(parsed) if number >= 10 else None]
        connection.execute(_PARTITION, [crawl, number, "f", number < 18, *records])
    connection.execute(_PARTITION, [crawl, 20, "", False, Jsonb({}), None])
    for place, number in enumerate(batch_nos(BATCHES, CRAWL)):
        states = ((23, "downloaded"), (24, "parked"), (26, "downloading"), (BATCHES, "ready"))
        state = next(name for end, name in states if place < end)
        done = store.read_stats(f"{shard_stem(CRAWL, number)}_stats.json") if state == "downloaded" else None
        row = {
            "batch": number,
            "pairs": done.input if done else 500,
            "stats": Jsonb(done.to_plain()) if done else None,
            "crawl": crawl,
            "state": state,
            "owner": "worker:1:1" if state == "downloading" else None,
            "left_s": 600 if place == 24 else -60,
            "error": HOSTILE if state == "parked" else None,
            "took_s": 30 + 7 * (place % 11),
        }
        connection.execute(_BATCH, row)


_THOUSANDS = """
insert into batch (batch, crawl_no, pairs, file, state, stats, error, lease_expires)
select batch, %s, 20, '{}', state::batch_state,
       case state when 'downloaded' then '{"kept": 10, "dropped": {"timeout": 10}, "outputs": []}'::jsonb end,
       case state when 'parked' then format('cannot read batch %%s', batch) end,
       now() + (1703.5 - batch) * interval '1 hour' + interval '30 minutes'
from (select batch, case when batch < 1700 then 'downloaded' when batch < 1703 then 'parked'
                         when batch < 1705 then 'downloading' else 'ready' end as state
      from generate_series(500, 2999) as batch) as planned
"""


def write_thousands(connection: Connection) -> None:
    """Batches 500 to 2,999 of CRAWL; in the second thousand three are parked, one is held, one is silent."""
    connection.execute(_THOUSANDS, [add_crawl(connection, CRAWL)])

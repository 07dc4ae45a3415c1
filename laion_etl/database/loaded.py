"""What of a crawl is loaded, by the only place that knows: Postgres.

A stats file in the store outlives `laion-etl forget`, a restored backup and a move to another database, so it
can't say what is loaded. And a row in Postgres outlives the pairs it was loaded from, when these are parsed
anew. So a partition counts only when Postgres has cut its pairs into batches and the pairs file of the store
is still the one that they were loaded from.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from psycopg import Connection

from laion_etl.core.errors import SettingsError
from laion_etl.core.schemas import parse_stats_name
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.queries import query
from laion_etl.io.storage import Store
from laion_etl.settings import ParseSettings, Stage, shaping

_READERS = 8  # stats files are small: reading them is waiting, on S3 above all


@dataclass(frozen=True, slots=True)
class LoadedCrawl:
    """The partitions whose current pairs are in batches, and the fingerprint of the plan of these batches."""

    partitions: frozenset[int]
    plan: str


def load_fingerprint(parsed: StageStats, rule: DedupeRule | str) -> str:
    """What a partition is known by once the pairs of these parse stats are loaded."""
    return fingerprint("load", parsed.outputs, str(rule))


def plan_fingerprint(batches: list[tuple[int, int, Mapping[str, object]]]) -> str:
    """What a plan is known by: number, pairs and file of each of its batches, ascending."""
    return fingerprint("plan", batches)


def check_rules(crawl: str, partition: int, parsed: StageStats, settings: ParseSettings) -> None:
    """Raises SettingsError for pairs that other rules made than these.

    They are what a run finds whose parse failed before it began and was marked as a success. Stats of older
    versions do not name their rules.
    """
    made = parsed.details.get("rules")
    if made is not None and made != json.loads(json.dumps(shaping(settings, Stage.PARSE)["parse"])):
        raise SettingsError(
            f"cannot load partition {partition} of {crawl}: its pairs were made by other parse settings; run "
            f"`laion-etl parse --crawl {crawl} --partition {partition}` first (in Airflow clear the task "
            "parse: marking it as a success does not parse)"
        )


def loaded_crawl(crawl: str, store: Store, database: Database) -> LoadedCrawl:
    """What Postgres has of a crawl; nothing where it does not know it. Raises DatabaseError, StorageError."""
    rule, loads, plan = database.run(partial(_in_postgres, crawl=crawl))
    with ThreadPoolExecutor(_READERS) as pool:
        current = list(pool.map(partial(_current_fingerprint, crawl, rule, store), loads))
    numbers = (number for number, now in zip(loads, current, strict=True) if loads[number] == now)
    return LoadedCrawl(frozenset(numbers), plan)


def _in_postgres(connection: Connection, crawl: str) -> tuple[str, dict[int, str], str]:
    """The dedupe rule, the load fingerprints of the planned partitions by number, and the plan's."""
    rule = connection.execute(query("load.rule")).fetchone()
    loads = connection.execute(query("load.planned"), {"crawl": crawl}).fetchall()
    batches = connection.execute(query("plan.batches_of"), {"crawl": crawl}).fetchall()
    return rule[0] if rule else "", dict(loads), plan_fingerprint(batches)


def _current_fingerprint(crawl: str, rule: str, store: Store, partition: int) -> str | None:
    """That of the pairs the store has now; None where they are not parsed, or being parsed anew."""
    name = parse_stats_name(crawl, partition)
    return load_fingerprint(store.read_stats(name), rule) if store.exists(name) else None

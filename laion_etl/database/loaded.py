"""Which partitions of a crawl are loaded, according to Postgres.

A stats file in the store outlives `laion-etl db forget`, a restored backup and a move to another database,
so it cannot prove what is loaded. And a row in Postgres outlives the pairs file it was loaded from when that
is parsed again. So a partition counts only if Postgres has its pairs cut into batches and the store still
has the pairs file they were loaded from.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from psycopg import Connection

from laion_etl.core.errors import SettingsError
from laion_etl.core.schemas import parse_stats_name
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import RULES_VERSION, DedupeRule
from laion_etl.database.queries import query
from laion_etl.io.outputs import rewritten_as
from laion_etl.io.planned import plan_fingerprint
from laion_etl.io.storage import Store
from laion_etl.settings import ParseSettings, Stage, shaping

_READERS = 8  # stats files are small: reading them is mostly waiting, above all on S3


@dataclass(frozen=True, slots=True)
class LoadedCrawl:
    """The partitions whose current pairs are in batches, and the fingerprint of the plan of these batches.

    `windows_left`: of a plan that is not finished; its batches may be downloaded, but there will be more.
    """

    partitions: frozenset[int]
    plan: str
    windows_left: int = 0


def load_fingerprint(parsed: StageStats, rule: DedupeRule | str) -> str:
    """Returns the fingerprint of a partition once the pairs of these parse stats are loaded."""
    return fingerprint("load", RULES_VERSION, parsed.outputs, str(rule))


def loading_fingerprint(parsed: StageStats, rule: DedupeRule | str) -> str:
    """Returns what a load that has not ended is known by: also by the file, if a removal has rewritten it.

    Its rows have other numbers then, and ranges that were loaded from the file before have what was removed.
    """
    loaded, file = load_fingerprint(parsed, rule), rewritten_as(parsed)
    return loaded if file is None else fingerprint("loading", loaded, file)


def check_rules(crawl: str, partition: int, parsed: StageStats, settings: ParseSettings) -> None:
    """Raises SettingsError for pairs that were made with other parse settings than these.

    A run finds such pairs when its parse task failed before it began and was marked as a success. Stats of
    older versions do not record the settings.
    """
    made = parsed.details.get("rules")
    if made is not None and made != json.loads(json.dumps(shaping(settings, Stage.PARSE)["parse"])):
        raise SettingsError(
            f"cannot load partition {partition} of {crawl}: its pairs were made by other parse settings; run "
            f"`laion-etl stage parse --crawl {crawl} --partition {partition}` first (in Airflow clear the "
            "task parse: marking it as a success does not parse)"
        )


def loaded_crawl(crawl: str, store: Store, database: Database) -> LoadedCrawl:
    """Returns what is loaded of a crawl, nothing if it is unknown. Raises DatabaseError, StorageError."""
    rule, loads, plan, left = database.run(partial(_in_postgres, crawl=crawl))
    with ThreadPoolExecutor(_READERS) as pool:
        current = list(pool.map(partial(_current_fingerprint, crawl, rule, store), loads))
    numbers = (number for number, now in zip(loads, current, strict=True) if loads[number] == now)
    return LoadedCrawl(frozenset(numbers), plan, left)


def _in_postgres(connection: Connection, crawl: str) -> tuple[str, dict[int, str], str, int]:
    """Returns the dedupe rule, fingerprints of planned partitions by number, the plan's, and windows left."""
    keys = {"crawl": crawl}
    rule = connection.execute(query("load.rule")).fetchone()
    loads = connection.execute(query("load.planned"), keys).fetchall()
    left = connection.execute(query("plan.windows_left_of"), keys).fetchone()
    if connection.execute(query("plan.a_round_of"), keys).fetchone():
        files = connection.execute(query("plan.window_files_of"), keys).fetchall()
        plan = plan_fingerprint([file for (file,) in files])
    else:  # planned by a version without windows
        plan = fingerprint("plan", connection.execute(query("plan.batches_of"), keys).fetchall())
    return rule[0] if rule else "", dict(loads), plan, left[0] if left else 0


def _current_fingerprint(crawl: str, rule: str, store: Store, partition: int) -> str | None:
    """Returns the load fingerprint of the pairs in the store now; None if there are none, or a parse runs."""
    name = parse_stats_name(crawl, partition)
    return load_fingerprint(store.read_stats(name), rule) if store.exists(name) else None

"""Checks, before any work, that the settings of a run agree with the plan of its crawl.

Pairs that are cut into batches are final. A run with other rules would parse their partitions again,
overwrite finished files, and fail hours later when it loads them. Postgres knows the planned partitions and
their parse stats hold the rules, so the check costs one query and one small file per partition.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from laion_etl.core.errors import SettingsError
from laion_etl.core.import_factory import load_factory
from laion_etl.core.schemas import parse_stats_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import Partition, written_numbers
from laion_etl.database.connection import Database, has_database, open_database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.loaded import loaded_crawl
from laion_etl.database.servers import range_servers
from laion_etl.io.storage import Store
from laion_etl.parse.custom_filters import load_filters
from laion_etl.parse.language import language_detector, languages_kept
from laion_etl.parse.link_source import link_source
from laion_etl.parse.stage import blocked_fingerprint, parse_fingerprint, plain_rules
from laion_etl.settings import PREFIX, Settings

_READERS = 16  # small files from an object store: 900 take two seconds


def check_run(crawl: str, partitions: Sequence[Partition], settings: Settings, store: Store) -> None:
    """Raise SettingsError for invalid settings, or ones that differ from the planned rules of the crawl."""
    languages_kept(settings.parse, language_detector(settings.parse))
    load_filters(settings.parse)
    link_source(settings.parse)
    if settings.publish.subsets:
        from laion_etl.dataset.subsets import subsets  # loads DuckDB

        subsets(settings.publish)
    for name in settings.safety.heads:  # made once there is a model
        load_factory(name, "LAION_ETL_SAFETY_HEADS", "a Head")
    if not has_database(settings):
        return
    with open_database(settings) as database, range_servers(database):
        _check_dedupe(settings, database)
        planned = [int(number) for (number,) in database.rows("load.planned_of_crawl", {"crawl": crawl})]
    asked = {partition.number: partition for partition in partitions}
    again = [number for number in planned if number in asked]
    _check_parsed(_read_stats(crawl, again or planned[:1], store), asked, settings)


def check_parse(asked: Partition, settings: Settings, store: Store) -> None:
    """Raise SettingsError if parsing a partition would replace pairs that are cut into batches by others.

    Postgres is asked only where something differs: a parse needs no database, and many of them run at once.
    """
    parsed = _read_stats(asked.crawl, [asked.number], store)
    try:
        _check_parsed(parsed, {asked.number: asked}, settings)
    except SettingsError:
        if _is_in_batches(asked, settings, store):
            raise


def _is_in_batches(asked: Partition, settings: Settings, store: Store) -> bool:
    """Whether the pairs that the store has of a partition are those that are planned."""
    if not has_database(settings):
        return False
    with open_database(settings) as database:
        return asked.number in loaded_crawl(asked.crawl, store, database).partitions


def _check_dedupe(settings: Settings, database: Database) -> None:
    rule = DedupeRule.from_settings(settings.load)
    for (settled,) in database.rows("load.rule"):
        if settled != rule:
            raise SettingsError(
                f"cannot load into this database: it removes duplicates by {settled} and "
                f"LAION_ETL_LOAD_DEDUPE says {rule}; set it to {settled}, or use another database"
            )


def _read_stats(crawl: str, numbers: Sequence[int], store: Store) -> dict[int, StageStats]:
    """Stats of parsed partitions, except those whose files are gone: they have nothing to overwrite."""

    def read(number: int) -> StageStats | None:
        name = parse_stats_name(crawl, number)
        return store.read_stats(name) if store.exists(name) else None

    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(numbers, pool.map(read, numbers), strict=True)
        return {number: stats for number, stats in found if stats is not None}


def _check_parsed(parsed: dict[int, StageStats], asked: Mapping[int, Partition], settings: Settings) -> None:
    """Raise SettingsError if partitions were parsed by other rules, or from other WAT files than these."""
    for number, stats in parsed.items():
        _check_rules(stats.crawl, stats, settings)
        if number in asked:
            _check_files(asked[number], stats)
    _check_fingerprints([asked[number] for number in parsed if number in asked], parsed, settings)


def _check_rules(crawl: str, planned: StageStats, settings: Settings) -> None:
    """Raise SettingsError naming the rules that differ; stats of older versions lack them."""
    before: dict[str, Any] = planned.details.get("rules", {})
    now = plain_rules(settings)
    changed = [
        f"{PREFIX}PARSE_{name.upper()} was {_shown(before[name])} and is {_shown(now[name])}"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
    if changed:
        raise SettingsError(_refusal(crawl, "; ".join(changed)))


def _check_files(partition: Partition, planned: StageStats) -> None:
    before = planned.details.get("wat_numbers")
    now = written_numbers(number for number, _ in partition.indexed_wat_files)
    if before is not None and before != now:
        what = (
            f"partition {partition.number} has WAT files {before} and would have {now}, as after a trial run "
            "with --wat-files"
        )
        raise SettingsError(_refusal(partition.crawl, what))


def _check_fingerprints(
    again: Sequence[Partition], planned: dict[int, StageStats], settings: Settings
) -> None:
    """Raise SettingsError if a fingerprint differs for any other reason."""
    if not again:
        return
    blocked = blocked_fingerprint(settings)
    for partition in again:
        if planned[partition.number].fingerprint != parse_fingerprint(
            partition.indexed_wat_files, settings, blocked
        ):
            what = (
                f"partition {partition.number} was parsed with other blocklists, from another "
                "LAION_ETL_CRAWL_SOURCE, or by an older version"
            )
            raise SettingsError(_refusal(partition.crawl, what))


def _refusal(crawl: str, what: str) -> str:
    return (
        f"cannot work on {crawl}: these rules differ from the planned ones: {what}; run it with the "
        "planned rules or in another database, or take the crawl out of this one first to build it anew "
        f"(laion-etl db forget --crawl {crawl})"
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "empty"
    return str(value)

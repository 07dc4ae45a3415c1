"""The command that publishes a crawl, at once or in ranges of its batches."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laion_etl.cli.common import (
    CrawlOption,
    JsonOption,
    NameOption,
    all_ranges,
    console,
    open_settings,
    read_range,
    say_json,
    show_nothing_new,
    show_places,
    stage_result,
)
from laion_etl.core.quantities import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from laion_etl.core.stage_stats import StageStats
    from laion_etl.database.loaded import LoadedCrawl
    from laion_etl.io.storage import Store
    from laion_etl.publish.completeness import Expected
    from laion_etl.settings import Settings


def publish(  # noqa: PLR0913, PLR0917 - Typer declares options as parameters
    crawl: CrawlOption,
    name: NameOption = "",
    expect: Annotated[
        str,
        typer.Option(
            help="Fail if too many of these partitions are missing, such as 0-2,5; default: publish what is "
            "there."
        ),
    ] = "",
    allow_missing: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="With --expect: share of partitions, and of batches, that may be missing, 0 to 1.",
        ),
    ] = 0.0,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Only check the crawl and print its ranges of batches; a crawl of one range is published at "
            "once.",
        ),
    ] = False,
    range_: Annotated[
        str, typer.Option("--range", metavar="I/N", help="Only publish range I of N, such as 1/16.")
    ] = "",
    hashes: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Only hash the images of range I of N. Needed if LAION_ETL_PUBLISH_DUPLICATES is exact or "
            "near, or semantic duplicates are looked for, for all ranges before the first one is published.",
        ),
    ] = "",
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Only compare the images of all ranges. Needed if LAION_ETL_PUBLISH_DUPLICATES is near, or "
            "semantic duplicates are looked for, after --hashes and before --range.",
        ),
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Only merge the published ranges and make the version visible.")
    ] = False,
    reshard: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Also write the published samples into tars of this many each; 0: do not. Give "
            "the same number with --prepare, --hashes, --compare, --range and --finish. Default: "
            "LAION_ETL_PUBLISH_RESHARD.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish the scored shards of a crawl as a version of the dataset, with card, manifest and report.

    A crawl of many batches is published in ranges. Several commands can publish them at the same time:
    --prepare prints them, --range publishes one, and --finish completes the version. Without these options
    this command does it all.
    """
    from laion_etl.io.usage_records import usage_recorded

    if (prepare + bool(range_) + bool(hashes) + compare + finish) > 1:
        raise typer.BadParameter(
            "expected at most one of --prepare, --hashes, --compare, --range and --finish"
        )
    settings, store = open_settings()
    if name:
        settings = replace(settings, publish=replace(settings.publish, name=name))
    if reshard is not None:
        settings = replace(settings, publish=replace(settings.publish, reshard=reshard))
    parts = {"prepare": prepare, "compare": compare, "finish": finish}
    unit = range_ or hashes or next((name for name, wanted in parts.items() if wanted), "whole")
    with usage_recorded(crawl, "publish", unit, store):
        if range_ or hashes:
            _one_range(crawl, range_, hashes, settings, store, as_json)
        elif compare:
            _compare(crawl, settings, store, as_json)
        elif finish:
            _finish(crawl, settings, store, as_json)
        else:
            expected = _expected(crawl, expect, allow_missing, settings, store)
            publish_it = _prepare if prepare else _whole
            publish_it(crawl, settings, store, expected, as_json)


def _one_range(
    crawl: str, range_: str, hashes: str, settings: "Settings", store: "Store", as_json: bool
) -> None:
    from laion_etl.publish.ranges import hash_range, publish_range

    unit, step = (range_, publish_range) if range_ else (hashes, hash_range)
    variants = settings.publish.variants
    _show_range(crawl, unit, step(crawl, *read_range(unit), settings, store, variants), as_json)


def _compare(crawl: str, settings: "Settings", store: "Store", as_json: bool) -> None:
    from laion_etl.publish.compared_ranges import compare_ranges

    variants = settings.publish.variants
    _show_range(crawl, "", compare_ranges(crawl, settings, store, variants), as_json)


def _finish(crawl: str, settings: "Settings", store: "Store", as_json: bool) -> None:
    from laion_etl.publish.stage import finish_variants

    _show_published(crawl, finish_variants(crawl, settings, store), store, as_json)


def _whole(
    crawl: str, settings: "Settings", store: "Store", expected: "Expected | None", as_json: bool
) -> None:
    from laion_etl.publish.stage import publish_variants

    _show_published(crawl, publish_variants(crawl, settings, store, expected), store, as_json)


def _prepare(
    crawl: str, settings: "Settings", store: "Store", expected: "Expected | None", as_json: bool
) -> None:
    from laion_etl.publish.stage import prepare_variants

    prepared = prepare_variants(crawl, settings, store, expected)
    if isinstance(prepared, list):
        _show_published(crawl, prepared, store, as_json, ranges=[])
        return
    console().print(f"{crawl}: to be published in {quantity(prepared, 'range')}", highlight=False)
    if as_json:
        say_json({"crawl": crawl, "stage": "publish", "ranges": all_ranges(prepared)})


def _expected(
    crawl: str, expect: str, allow_missing: float, settings: "Settings", store: "Store"
) -> "Expected | None":
    from laion_etl.crawl import read_numbers
    from laion_etl.publish.completeness import Expected

    if not expect:
        return None
    return Expected(read_numbers(expect), allow_missing, _loaded(crawl, settings, store))


def _show_published(
    crawl: str, published: "Sequence[StageStats]", store: "Store", as_json: bool, **more: Any
) -> None:
    results = [
        stage_result(stats, **show_places(stats, store), fingerprint=stats.fingerprint) for stats in published
    ]
    if not published:
        show_nothing_new(crawl)
    if as_json:
        nothing = {"crawl": crawl, "stage": "publish", "nothing_new": True}
        say_json(({**results[-1], "variants": results} if results else nothing) | more)


def _show_range(crawl: str, range_: str, done_now: "Sequence[StageStats]", as_json: bool) -> None:
    results = [stage_result(stats) for stats in done_now]
    if as_json:
        counts = {name: results[-1][name] if results else 0 for name in ("input", "kept")}
        say_json({"crawl": crawl, "stage": "publish", "range": range_, **counts, "variants": results})


def _loaded(crawl: str, settings: "Settings", store: "Store") -> "LoadedCrawl":
    from laion_etl.database.connection import open_database
    from laion_etl.database.loaded import loaded_crawl

    with open_database(settings) as database:
        return loaded_crawl(crawl, store, database)

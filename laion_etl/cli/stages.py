"""One command per stage, as Airflow's tasks run them."""

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from laion_etl.cli.common import (
    CrawlOption,
    JsonOption,
    PartitionOption,
    SelectionOption,
    chosen_partitions,
    console,
    done,
    open_settings,
    read_range,
    say,
    say_json,
)
from laion_etl.cli.console import progress, summary
from laion_etl.cli.extras import Commands
from laion_etl.cli.publish import publish
from laion_etl.cli.score import score
from laion_etl.core.errors import SettingsError, Stopped
from laion_etl.core.quantities import quantity

if TYPE_CHECKING:
    from laion_etl.crawl import Partition
    from laion_etl.settings import Settings

commands = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Run one stage of a crawl, as Airflow's tasks do."
)


@commands.command()
def parse(
    crawl: CrawlOption,
    partition: PartitionOption,
    wat: Annotated[
        list[str] | None,
        typer.Argument(help="WAT files to parse (path, s3:// or https://); default: those of the partition."),
    ] = None,
    wat_files: SelectionOption = "",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of parser processes, 0 for one per core; default: LAION_ETL_PARSE_JOBS."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Parse the WAT files of one partition into a parquet file of pairs.

    Refused with other rules or WAT files than those of pairs that are cut into batches already.
    """
    from laion_etl.cli.run_checks import check_parse
    from laion_etl.core.arrow_memory import save_arrow_memory
    from laion_etl.crawl import Partition
    from laion_etl.io.usage_records import usage_recorded
    from laion_etl.parse.stage import parse_partition

    save_arrow_memory()
    settings, store = open_settings()
    if jobs is not None:
        settings = replace(settings, parse=replace(settings.parse, jobs=jobs))
    asked = (
        Partition(crawl, partition, 0, tuple(wat))
        if wat
        else _partition(crawl, partition, wat_files, settings)
    )
    check_parse(asked, settings, store)
    with (
        usage_recorded(crawl, "parse", str(partition), store),
        progress(console(), f"parse partition {partition}") as report,
    ):
        stats = parse_partition(crawl, partition, asked.indexed_wat_files, settings, store, report)
    done(stats, as_json)


@commands.command()
def load(crawl: CrawlOption, partition: PartitionOption, as_json: JsonOption = False) -> None:
    """Load the pairs of one partition into Postgres, without duplicates."""
    from laion_etl.database.connection import open_database
    from laion_etl.database.load import load_partition
    from laion_etl.io.usage_records import usage_recorded

    settings, store = open_settings()
    with usage_recorded(crawl, "load", str(partition), store), open_database(settings) as database:
        done(load_partition(crawl, partition, settings, store, database), as_json)


@commands.command()
def plan(
    crawl: CrawlOption,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare", help="Only begin a plan that several commands make, and print its ranges as JSON."
        ),
    ] = False,
    range_: Annotated[
        str,
        typer.Option(
            "--range",
            metavar="I/N",
            help="Plan only range I of N, such as 1/16, of a plan that --prepare began.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Assign the new pairs of a crawl to batches, which download workers take."""
    from laion_etl.database.connection import open_database
    from laion_etl.io.planned import batches_in
    from laion_etl.io.usage_records import usage_recorded
    from laion_etl.plan.stage import UNPLANNED, Prepared, plan_batches, plan_range, prepare_plan

    if prepare and range_:
        raise SettingsError("cannot use --prepare and --range together; leave one of them out")
    part = read_range(range_) if range_ else None
    settings, store = open_settings()
    unit = range_ or ("prepare" if prepare else "whole")
    with usage_recorded(crawl, "plan", unit, store), open_database(settings) as database:
        if part is not None:
            stats = plan_range(crawl, *part, settings, store, database)
            done(stats, as_json, plan=stats.fingerprint, unplanned=stats.details[UNPLANNED])
            return
        of = (crawl, settings, store, database)
        made = prepare_plan(*of) if prepare else Prepared(plan_batches(*of))
    batches = len(batches_in(made.stats)) + made.batches
    done(made.stats, as_json, batches=batches, plan=made.stats.fingerprint, ranges=made.ranges)


@commands.command()
def download(
    crawl: CrawlOption,
    batch: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Download only the batch with this number, whatever its state; again only if its shard is "
            "not whole or of other settings. Default: all that are left.",
        ),
    ] = None,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="With --batch: replace a shard that has samples even if no link can be fetched now.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download the images of a crawl batch by batch until none is left, or those of a single batch."""
    from laion_etl.core.arrow_memory import save_arrow_memory
    from laion_etl.core.schemas import plan_stats_name
    from laion_etl.core.stopping import Stop
    from laion_etl.database.connection import open_database
    from laion_etl.download.metrics import Metrics
    from laion_etl.download.shared_hosts import SharedHosts
    from laion_etl.download.worker import Worker, open_queue
    from laion_etl.io.usage_records import usage_recorded

    if allow_empty and batch is None:
        raise SettingsError(
            "cannot use --allow-empty: it needs --batch; name the batch, or leave --allow-empty out"
        )
    save_arrow_memory()
    settings, store = open_settings()
    with (
        usage_recorded(crawl, "download", "worker", store),
        open_database(settings) as database,
        progress(console(), "download") as report,
    ):
        queue = open_queue(crawl, settings, database)
        stop = Stop(settings.download.grace_s)
        signal.signal(signal.SIGTERM, lambda *_: stop.request())
        worker = Worker(
            crawl,
            settings,
            store,
            queue,
            lambda _, done, total: report(done, total),
            stop,
            Metrics(settings.download.metrics_file, settings.core.statsd),
            SharedHosts(database, settings.download),
        )
        finished = worker.run() if batch is None else [worker.run_one(batch, allow_empty=allow_empty)]
        stopped = stop.requested and batch is None
        batches_done = 0 if stopped else queue.counts().shards
    for stats in finished:
        console().print(summary(stats), highlight=False)
    if not finished and not stopped:
        say(f"download: no batch of {crawl} is left")
    if stopped:  # not exit code 0, which says that the queue has nothing left
        raise Stopped(
            f"stopped after {quantity(len(finished), 'batch', 'batches')}; run the same command again to "
            "continue"
        )
    if as_json:
        say_json(
            {
                "crawl": crawl,
                "stage": "download",
                "batches": [int(stats.unit) for stats in finished],
                "done": batches_done,
                "plan": store.read_stats(plan_stats_name(crawl)).fingerprint,
                "input": sum(stats.input for stats in finished),
                "kept": sum(stats.kept for stats in finished),
            }
        )


commands.command()(score)
commands.command()(publish)


def _partition(crawl: str, number: int, selection: str, settings: "Settings") -> "Partition":
    found = {partition.number: partition for partition in chosen_partitions(crawl, selection, settings)}
    if number not in found:
        raise SettingsError(f"{crawl} has no partition {number}; choose {min(found)} to {max(found)}")
    return found[number]

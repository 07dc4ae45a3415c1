"""Commands for a whole crawl: run it, and show its progress; and the demo."""

from pathlib import Path
from typing import Annotated

import typer

from laion_etl.cli.common import (
    CrawlOption,
    JsonOption,
    SelectionOption,
    as_name,
    chosen_partitions,
    console,
    open_settings,
    say_json,
    settings_and_store,
    show_funnel,
    show_nothing_new,
    show_places,
)
from laion_etl.cli.extras import needs


@needs("score")
def run_crawl(
    crawl: Annotated[
        str,
        typer.Argument(
            callback=as_name, help="Id of the crawl, such as CC-MAIN-2024-38; with --wat, any name."
        ),
    ],
    wat: Annotated[
        list[str] | None,
        typer.Option(help="WAT file to parse (path, s3:// or https://); may be given several times."),
    ] = None,
    wat_files: SelectionOption = "",
    as_json: JsonOption = False,
) -> None:
    """Run all stages of a crawl on this machine, without Airflow.

    Example, with the first WAT file of a crawl: `laion-etl run CC-MAIN-2024-38 --wat-files 0:1`.
    """
    from laion_etl.cli.local_run import LocalRun
    from laion_etl.cli.run_checks import check_run
    from laion_etl.crawl import Partition

    settings, store = open_settings()
    found = [Partition(crawl, 0, 0, tuple(wat))] if wat else chosen_partitions(crawl, wat_files, settings)
    check_run(crawl, found, settings, store)
    published = LocalRun(crawl, settings, store, console()).all_stages(found)
    show_funnel(crawl, store)
    places = [{"version": stats.unit, "rows": stats.kept, **show_places(stats, store)} for stats in published]
    if not published:
        show_nothing_new(crawl)
    if as_json:
        say_json({"crawl": crawl, "published": places})


@needs("airflow", "score", "search")
def demo(
    keep: Annotated[bool, typer.Option(help="Keep Airflow running until Ctrl-C.")] = False,
) -> None:
    """Build a small dataset with Airflow, from a bundled crawl to the report."""
    from laion_etl.demo.demo import run_demo
    from laion_etl.settings import load_settings

    raise typer.Exit(run_demo(Path(load_settings().core.data_dir) / "demo", keep, console()))


def status(
    crawl: Annotated[str, typer.Option(callback=as_name, help="Id of the crawl; default: all crawls.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show the progress of a crawl: stages, rates, time left, leases, failures, funnel and cost."""
    from laion_etl.database.connection import open_database
    from laion_etl.report.bill import read_bill
    from laion_etl.report.crawl_progress import ProgressReader, progress_funnel
    from laion_etl.report.crawl_status import all_crawls, crawl_status, crawls_to_plain

    settings, store = settings_and_store()
    with open_database(settings) as database:
        if not crawl:
            console().print(all_crawls(database))
            if as_json:
                say_json({"crawls": crawls_to_plain(database)})
            return
        reader = ProgressReader(crawl)
        known = reader.database(database)
        stored = reader.store(store, known)
        funnel = progress_funnel(crawl, known, stored)
        found = crawl_status(crawl, funnel, database)
    found = found.with_missing(stored.score.missing, stored.score.missing_count)
    console().print(found.as_table())
    console().print(funnel.as_table())
    bill = read_bill(crawl, settings, store)
    if bill.stages:
        console().print(bill.as_table())
    if as_json:
        say_json(found.to_plain() | {"bill": bill.to_plain()})


def diagnose(
    crawl: CrawlOption,
    batch: Annotated[
        int | None,
        typer.Option(min=0, help="Only this batch, by its number; default: the whole crawl so far."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show why links gave no image, by cause and host, and how many images a change would win back."""
    from laion_etl.database.connection import open_database
    from laion_etl.report.link_losses import batch_losses, crawl_losses
    from laion_etl.report.link_losses_text import losses_as_lines

    settings, store = settings_and_store()
    if batch is not None:
        found = batch_losses(crawl, batch, store)
    else:
        with open_database(settings) as database:
            found = crawl_losses(crawl, store, database)
    for line in losses_as_lines(found):
        console().print(line, markup=False, highlight=False)
    if as_json:
        say_json(found.to_plain())


@needs("dashboard")
def dashboard(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 picks a free one.")
    ] = 8_081,
) -> None:
    """Serve the dashboard without Airflow, on this machine, at an address with a token."""
    from laion_etl.dashboard.serve import serve

    serve(port, console())

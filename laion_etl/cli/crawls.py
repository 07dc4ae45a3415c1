"""Commands about crawls: list them, list the partitions of one, and estimate its size."""

from typing import Annotated

import typer

from laion_etl.cli.common import (
    CrawlOption,
    JsonOption,
    SelectionOption,
    chosen_partitions,
    console,
    open_settings,
    say_json,
)
from laion_etl.cli.extras import Commands
from laion_etl.core.quantities import quantity

commands = typer.Typer(
    cls=Commands, no_args_is_help=True, help="List Common Crawl's crawls, and the partitions of a crawl."
)


@commands.command("list")
def list_crawls(
    refresh: Annotated[
        bool, typer.Option(help="Ask the crawl source instead of reading the saved list.")
    ] = False,
    register: Annotated[
        bool,
        typer.Option(help="With --refresh: save newly found crawls, so that Airflow creates their DAGs."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the known crawls, newest first."""
    from rich.table import Table

    from laion_etl.crawl import discover_crawls, known_crawls, register_crawls
    from laion_etl.settings import load_settings

    settings = load_settings()
    found = discover_crawls(settings) if refresh else known_crawls(settings)
    if refresh and register:
        for crawl in register_crawls(found, settings):
            console().print(f"new: {crawl.id} ({crawl.name})", highlight=False)
    if as_json:
        say_json({"crawls": [{"id": crawl.id, "released": crawl.released.isoformat()} for crawl in found]})
        return
    table = Table("crawl", "name", "released")
    for crawl in found:
        table.add_row(crawl.id, crawl.name, crawl.released.isoformat())
    console().print(table)


def estimate_crawl(crawl: CrawlOption, wat_files: SelectionOption = "", as_json: JsonOption = False) -> None:
    """Estimate the pairs, bytes, hours and cost of a crawl from runs that are already in the store.

    Without one, run a single WAT file first: `laion-etl run CC-MAIN-2024-38 --wat-files 0:1`.
    """
    from rich.table import Table

    from laion_etl.report.estimate import estimate, estimated_costs

    settings, store = open_settings()
    files = sum(len(partition.wat_files) for partition in chosen_partitions(crawl, wat_files, settings))
    found = estimate(crawl, files, store)
    by = f"{found.by_wat_files:,} of {found.by_crawl}"
    table = Table("what", "how much", title=f"{crawl}: {quantity(files, 'WAT file')}, by {by}")
    plain = found.to_plain() | estimated_costs(found, settings)
    for name, value in plain.items():
        if isinstance(value, (int, float)) and not name.endswith("wat_files"):
            shown = f"{value / 1e9:,.2f} GB" if name.endswith("_bytes") else f"{value:,}"
            table.add_row(name.removesuffix("_bytes").replace("_", " "), shown)
    console().print(table)
    if as_json:
        say_json(plain)


@commands.command("partitions")
def list_partitions(crawl: CrawlOption, wat_files: SelectionOption = "", as_json: JsonOption = False) -> None:
    """Check the settings of a run, and list the partitions that it would parse and load."""
    from laion_etl.cli.run_checks import check_run

    settings, store = open_settings()
    found = chosen_partitions(crawl, wat_files, settings)
    check_run(crawl, found, settings, store)
    files = sum(len(partition.wat_files) for partition in found)
    console().print(
        f"{crawl}: {quantity(files, 'WAT file')} in {quantity(len(found), 'partition')}", highlight=False
    )
    if as_json:
        say_json({"crawl": crawl, "partitions": [partition.number for partition in found]})

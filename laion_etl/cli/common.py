"""Shared by the commands: options, settings and store, and the output of results."""

import json
import logging
import re
from contextvars import ContextVar
from typing import Annotated, Any

import typer
from rich.console import Console

from laion_etl.cli.console import summary
from laion_etl.core.errors import SettingsError
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import Partition, parse_selection, partitions
from laion_etl.io.statsd import StageMetrics
from laion_etl.io.storage import Store, open_store
from laion_etl.settings import Settings, load_settings

console = Console(soft_wrap=True)


def as_name(name: str) -> str:
    """Check a name: it becomes a folder of the store and must not lead out of it."""
    if name and not _NAME.fullmatch(name):
        raise typer.BadParameter(f"invalid name {name!r}: only letters, digits, '.', '_' and '-' are allowed")
    return name


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RESULT: ContextVar[str] = ContextVar("result", default="")  # the URI of --result
CrawlOption = Annotated[str, typer.Option(callback=as_name, help="Crawl id, for example CC-MAIN-2024-38.")]
PartitionOption = Annotated[int, typer.Option(min=0, help="Partition number.")]
SelectionOption = Annotated[
    str,
    typer.Option(
        "--wat-files", metavar="A:B", help="Only WAT files A to B-1 of the crawl's list (wat.paths)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line at the end.")]
NameOption = Annotated[
    str, typer.Option(callback=as_name, help="Name of the dataset; default: LAION_ETL_PUBLISH_NAME.")
]
VersionOption = Annotated[str, typer.Option(help="Version of the dataset; default: the current one.")]


def settings_and_store() -> tuple[Settings, Store]:
    """Settings and the store, for commands that only read it."""
    settings = load_settings()
    return settings, open_store(settings.store_uri)


def open_settings() -> tuple[Settings, Store]:
    """Settings and the store, for commands that write to it; raises StorageError if it is not writable."""
    settings, store = settings_and_store()
    store.watcher = StageMetrics(settings.core)
    if settings.core.run_id:  # a task keeps the log: include successes
        logging.getLogger("laion_etl").setLevel(logging.INFO)
    store.check()
    return settings, store


def chosen_partitions(crawl: str, selection: str, settings: Settings) -> list[Partition]:
    """The partitions with the WAT files of a selection; raises SettingsError for none."""
    found = partitions(crawl, settings, parse_selection(selection) if selection else None)
    if not found:
        step = settings.core.wat_files_sample
        sample = f" when only every {step}-th is taken (LAION_ETL_WAT_FILES_SAMPLE)" if step > 1 else ""
        raise SettingsError(
            f"cannot work on {crawl}: --wat-files {selection or 'left out'} selects no WAT files"
            f"{sample}; choose a range within them"
        )
    return found


def show_places(published: StageStats, store: Store) -> dict[str, str]:
    """Prints and returns the locations of a published dataset and its report."""
    from laion_etl.dataset.versions import Release
    from laion_etl.publish.presentation import REPORT

    release = Release(*published.unit.split("/"))
    places = {"dataset": store.uri(release.folder), "report": store.uri(release.file(REPORT))}
    for what, uri in places.items():
        console.print(f"{what}: {uri}", highlight=False)
    return places


def show_nothing_new(crawl: str) -> None:
    """Prints why nothing was published."""
    console.print(f"nothing new in {crawl}: all its pairs were known before", highlight=False)


def show_funnel(crawl: str, store: Store) -> None:
    """Prints the funnel of a crawl so far."""
    from laion_etl.dataset.funnel_report import crawl_funnel

    console.print(crawl_funnel(store, crawl).as_table())


def say(*lines: str) -> None:
    """Prints lines that contain untrusted text, without interpreting markup."""
    for line in lines:
        console.print(line, markup=False, highlight=False)


def done(stats: StageStats, as_json: bool, **more: Any) -> None:
    """Prints the result of a unit of work."""
    console.print(summary(stats), highlight=False)
    if as_json:
        plain = stats.to_plain()
        say_json({k: plain[k] for k in ("stage", "crawl", "unit", "input", "kept", "dropped")} | more)


def say_json(value: dict[str, Any]) -> None:
    """Prints the JSON on one line, and writes it to the file of --result."""
    text = json.dumps(value)
    folder, _, name = RESULT.get().rpartition("/")
    if name:
        open_store(folder).write(name, text.encode())
    print(text, flush=True)

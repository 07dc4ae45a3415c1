"""Shared by the commands: options, settings and store, and the output of results.

A shell starts `laion-etl` for every completion. So this module and those of the commands import nothing that
takes time: what a command needs, it imports when it runs.
"""

import json
import re
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from laion_etl.core.stage_stats import StageStats
    from laion_etl.crawl import Partition
    from laion_etl.io.storage import Store
    from laion_etl.settings import Settings

RESULT: ContextVar[str] = ContextVar("result", default="")  # the URI of --result
AS_JSON: ContextVar[bool] = ContextVar("as_json", default=False)  # --json


def console() -> "Console":
    """Return where to print what a person reads: stdout, or stderr with --json, whose stdout is JSON only."""
    return _console(stderr=AS_JSON.get())


@cache
def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    return Console(soft_wrap=True, stderr=stderr)


def _json_wanted(wanted: bool) -> bool:
    AS_JSON.set(wanted)
    return wanted


def as_name(name: str) -> str:
    """Check a name: it becomes a folder of the store and must not lead out of it."""
    if name and not _NAME.fullmatch(name):
        raise typer.BadParameter(f"invalid name {name!r}: only letters, digits, '.', '_' and '-' are allowed")
    return name


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CrawlOption = Annotated[str, typer.Option(callback=as_name, help="Id of the crawl, such as CC-MAIN-2024-38.")]
PartitionOption = Annotated[
    int, typer.Option(min=0, help="Number of the partition, from `laion-etl crawl partitions`.")
]
SelectionOption = Annotated[
    str,
    typer.Option(
        "--wat-files",
        metavar="A:B",
        help="Only the WAT files from number A up to, but not including, B of the crawl's list (wat.paths): "
        "0:10 are the first ten. Default: all.",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_json_wanted,
        help="Print the result on stdout as one JSON object, and everything else on stderr.",
    ),
]
NameOption = Annotated[
    str, typer.Option(callback=as_name, help="Name of the dataset; default: LAION_ETL_PUBLISH_NAME.")
]
VersionOption = Annotated[str, typer.Option(help="Version of the dataset; default: the current one.")]


def settings_and_store() -> "tuple[Settings, Store]":
    """Settings and the store, for commands that only read it."""
    from laion_etl.io.storage import open_store
    from laion_etl.settings import load_settings

    settings = load_settings()
    return settings, open_store(settings.store_uri)


def open_settings() -> "tuple[Settings, Store]":
    """Settings and the store, for commands that write to it; raises StorageError if it is not writable."""
    import logging

    from laion_etl.io.statsd import StageMetrics

    settings, store = settings_and_store()
    store.watcher = StageMetrics(settings.core)
    if settings.core.run_id:  # a task keeps the log: include successes
        logging.getLogger("laion_etl").setLevel(logging.INFO)
    store.check()
    return settings, store


def chosen_partitions(crawl: str, selection: str, settings: "Settings") -> "list[Partition]":
    """The partitions with the WAT files of a selection; raises SettingsError for none."""
    from laion_etl.core.errors import SettingsError
    from laion_etl.crawl import parse_selection, partitions

    found = partitions(crawl, settings, parse_selection(selection) if selection else None)
    if not found:
        step = settings.core.wat_files_sample
        sample = f" when only every {step}-th is taken (LAION_ETL_WAT_FILES_SAMPLE)" if step > 1 else ""
        raise SettingsError(
            f"cannot work on {crawl}: --wat-files {selection or 'left out'} selects no WAT files"
            f"{sample}; choose a range within them"
        )
    return found


def read_range(text: str) -> tuple[int, int]:
    """Read I/N of --range, counted from 1; raises SettingsError for anything else."""
    from laion_etl.core.errors import SettingsError
    from laion_etl.core.whole_numbers import whole_number

    number, total = map(whole_number, text.partition("/")[::2])
    if number is None or total is None or not 1 <= number <= total:
        raise SettingsError(f"invalid --range {text}; expected I/N with I from 1 to N, for example 7/64")
    return number, total


def all_ranges(count: int) -> list[str]:
    """Return the ranges I/N of `count`, as --prepare names them."""
    return [f"{number}/{count}" for number in range(1, count + 1)]


def show_places(published: "StageStats", store: "Store") -> dict[str, str]:
    """Prints and returns the locations of a published dataset and its report."""
    from laion_etl.dataset.versions import Release
    from laion_etl.publish.presentation import REPORT

    release = Release(*published.unit.split("/"))
    places = {"dataset": store.uri(release.folder), "report": store.uri(release.file(REPORT))}
    for what, uri in places.items():
        console().print(f"{what}: {uri}", highlight=False)
    return places


def show_nothing_new(crawl: str) -> None:
    """Prints why nothing was published."""
    console().print(f"nothing new in {crawl}: all its pairs were known before", highlight=False)


def show_funnel(crawl: str, store: "Store") -> None:
    """Prints the funnel of a crawl so far."""
    from laion_etl.dataset.funnel_report import crawl_funnel

    console().print(crawl_funnel(store, crawl).as_table())


def say(*lines: str) -> None:
    """Prints lines that contain untrusted text, without interpreting markup."""
    for line in lines:
        console().print(line, markup=False, highlight=False)


def stage_result(stats: "StageStats", **more: Any) -> dict[str, Any]:
    """Prints the line of a finished unit of work, and returns its part of the JSON."""
    from laion_etl.cli.console import summary

    console().print(summary(stats), highlight=False)
    plain = stats.to_plain()
    return {k: plain[k] for k in ("stage", "crawl", "unit", "input", "kept", "dropped")} | more


def done(stats: "StageStats", as_json: bool, **more: Any) -> None:
    """Prints the result of a unit of work."""
    result = stage_result(stats, **more)
    if as_json:
        say_json(result)


def say_json(value: dict[str, Any]) -> None:
    """Prints the JSON, the only output on stdout with --json, and writes it to the file of --result."""
    text = json.dumps(value)
    folder, _, name = RESULT.get().rpartition("/")
    if name:
        from laion_etl.io.storage import open_store

        open_store(folder).write(name, text.encode())
    print(text, flush=True)

"""Commands for removal requests: remove what a list names, and locate what a crawl has."""

from typing import TYPE_CHECKING, Annotated

import typer

from laion_etl.cli.common import (
    CrawlOption,
    JsonOption,
    all_ranges,
    as_name,
    console,
    read_range,
    say,
    say_json,
    settings_and_store,
)
from laion_etl.cli.console import progress

if TYPE_CHECKING:
    from laion_etl.io.storage import Store
    from laion_etl.removal.stage import Removal
    from laion_etl.removal.work import Work
    from laion_etl.settings import Settings


def locate(
    crawl: CrawlOption,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only print the ranges, to be done side by side (--json).")
    ] = False,
    part: Annotated[
        str, typer.Option("--range", metavar="I/N", help="Do only one range, such as 3/16.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Write what the locator of a crawl lacks, by which `dataset remove` finds the files it has to read."""
    from laion_etl.dataset.locator import build, units

    _, store = settings_and_store()
    if prepare:
        count = len(units.slices(crawl, store))
        say(f"{crawl}: {count:,} ranges to locate")
        if as_json:
            say_json({"crawl": crawl, "ranges": all_ranges(count)})
        return
    number, count = read_range(part) if part else (1, 1)
    found = build.locate(crawl, store, number, count)
    say(f"{crawl}: {found.units:,} units located in {found.segments:,} segments, {found.covered:,} were so")
    if as_json:
        say_json({"crawl": crawl, "range": part, **found._asdict()})


def remove(
    listed: Annotated[
        str, typer.Option("--list", help="File of domains, URLs, image hashes or pair ids, one per line.")
    ] = "",
    request_id: Annotated[
        str, typer.Option("--request", callback=as_name, help="Id of a prepared removal, instead of --list.")
    ] = "",
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Search, and print the ranges in which files are to be rewritten."),
    ] = False,
    part: Annotated[
        str, typer.Option("--range", metavar="I/N", help="Rewrite the files of one range, such as 3/16.")
    ] = "",
    finish: Annotated[
        bool, typer.Option("--finish", help="When all ranges are rewritten: publish the new versions.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the versions that still contain removed samples.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove listed samples everywhere, publish versions without them, and keep them out of future runs."""
    from laion_etl.blocklists.removal_requests import read_request_of
    from laion_etl.io.remote_files import read_input
    from laion_etl.removal import stage
    from laion_etl.removal.lists import MAX_BYTES, read_list
    from laion_etl.removal.work import Work

    if bool(listed) == bool(request_id) or prepare + bool(part) + finish > 1:
        raise typer.BadParameter(
            "give --list or --request, and one of --prepare, --range and --finish at most"
        )
    settings, store = settings_and_store()
    if listed:
        request = read_list(read_input(listed, MAX_BYTES), listed)
    else:
        request = read_request_of(request_id, store)
    unfinished = None
    with progress(console(), "remove, files") as report:
        try:
            if part:
                files = stage.rewrite_range(request.id, *read_range(part), settings, store, report)
                _say_rewritten(request.id, part, files, as_json=as_json)
                return
            if finish:
                done: stage.Removal | Work = stage.finish(request.id, settings, store, purge=purge)
            else:
                carry_out = stage.prepare if prepare else stage.remove
                done = carry_out(request, settings, store, purge=purge, on_file=report)
        except stage.UnfinishedRemovalError as error:
            done, unfinished = error.removal, error
    if isinstance(done, Work):
        _say_prepared(done, store, as_json=as_json)
    else:
        _say_removed(done, settings, store, prepared=prepare, as_json=as_json)
    if unfinished is not None:
        raise unfinished


def _say_prepared(work: "Work", store: "Store", *, as_json: bool) -> None:
    from laion_etl.blocklists.removal_requests import read_request_of

    say(
        f"removal {work.request_id}: {len(work.units):,} units to rewrite; run `laion-etl dataset remove "
        f"--request {work.request_id} --range I/{work.ranges}` for I from 1 to {work.ranges}, then --finish"
    )
    if as_json:
        crawls = list(read_request_of(work.request_id, store).crawls)
        prepared = {"id": work.request_id, "crawls": crawls, "units": len(work.units)}
        say_json({**prepared, "ranges": all_ranges(work.ranges)})


def _say_rewritten(request_id: str, part: str, files: int, *, as_json: bool) -> None:
    say(f"removal {request_id}: range {part} is done, {files:,} files")
    if as_json:
        say_json({"id": request_id, "range": part, "files": files})


def _say_removed(
    done: "Removal", settings: "Settings", store: "Store", *, prepared: bool, as_json: bool
) -> None:
    """Print what was removed, and redact the pairs in Postgres."""
    from laion_etl.database.connection import has_database, open_database
    from laion_etl.database.redact import redact_pairs

    found = ", ".join(f"{rule} {count:,}" for rule, count in done.request.counts.items() if count)
    say(f"{len(done.request.pair_ids):,} pairs ({found or 'none'}): {store.uri(done.request.name)}")
    for stats in done.published:
        say(f"new version: {stats.unit}, {stats.kept:,} rows of {stats.crawl}")
    for version in done.holding:
        say(f"still contains removed samples: {version} (--purge deletes it)")
    for version in done.purged:
        say(f"deleted: {version}")
    blanked = None
    if done.request.named_pairs and has_database(settings):
        with open_database(settings) as database:
            blanked = redact_pairs(done.request.named_pairs, settings, database)
        say(f"{blanked:,} pairs emptied in Postgres")
    if as_json:
        ranges: dict[str, list[str]] = {"ranges": []} if prepared else {}
        say_json(done.to_plain() | {"in_database": blanked} | ranges)

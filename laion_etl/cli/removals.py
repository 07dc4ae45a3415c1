"""Commands for removal requests: remove what a list names, and locate what a crawl has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

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
from laion_etl.core.quantities import quantity

if TYPE_CHECKING:
    from laion_etl.blocklists.removal_requests import Request
    from laion_etl.io.storage import Store
    from laion_etl.removal.line_counts import LineResult
    from laion_etl.removal.lists import RemovalList
    from laion_etl.removal.requested_lines import RequestedLine
    from laion_etl.removal.stage import Removal
    from laion_etl.removal.work import Work
    from laion_etl.settings import Settings


def locate(
    crawl: CrawlOption,
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Only show how many ranges there are; --json lists them for --range."),
    ] = False,
    part: Annotated[
        str,
        typer.Option(
            "--range",
            metavar="I/N",
            help="Do only one range, such as 3/16; several can run at the same time.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Complete a crawl's locator: the index by which `dataset remove` finds the files that it has to read."""
    from laion_etl.dataset.locator import build, units

    _, store = settings_and_store()
    units.check_has_files(crawl, store)
    if prepare:
        count = len(units.slices(crawl, store))
        say(f"{crawl}: {quantity(count, 'range')} to locate")
        if as_json:
            say_json({"crawl": crawl, "ranges": all_ranges(count)})
        return
    found = build.locate(crawl, store, *(read_range(part) if part else (1, 1)))
    say(
        f"{crawl}: {quantity(found.units, 'unit')} located in {quantity(found.segments, 'segment')}, "
        f"{found.covered:,} already were"
    )
    if as_json:
        say_json({"crawl": crawl, "range": part, **found._asdict()})


def remove(  # noqa: PLR0913, PLR0917 - Typer declares options as parameters
    listed: Annotated[
        str,
        typer.Option(
            "--list",
            help="File of domains, URLs, image-of:URL, sample keys, image hashes or pair ids, one per line.",
        ),
    ] = "",
    request_id: Annotated[
        str,
        typer.Option("--request", callback=as_name, help="Id that --prepare has printed; replaces --list."),
    ] = "",
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare", help="Only find the files to rewrite, and print an id and the ranges for --range."
        ),
    ] = False,
    part: Annotated[
        str,
        typer.Option(
            "--range",
            metavar="I/N",
            help="Rewrite the files of one range, such as 3/16, of a prepared removal.",
        ),
    ] = "",
    finish: Annotated[
        bool, typer.Option("--finish", help="Publish the new versions, once all ranges are rewritten.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the versions that still contain removed samples.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what each line of the list matches; change nothing.")
    ] = False,
    allow_misses: Annotated[
        bool, typer.Option("--allow-misses", help="Do not fail if lines of the list match nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove listed samples everywhere, publish versions without them, and keep them out of future runs.

    Example: `laion-etl dataset remove --list requests.txt --dry-run`, then the same without --dry-run.

    A large removal can be divided: --prepare, then --range for each range, then --finish.
    """
    from laion_etl.removal import stage
    from laion_etl.removal.work import Work

    if bool(listed) == bool(request_id) or prepare + bool(part) + finish + dry_run > 1:
        raise typer.BadParameter(
            "give --list or --request, and one of --prepare, --range, --finish and --dry-run at most"
        )
    if part:
        _rewrite_range(listed, request_id, part, as_json=as_json)
        return
    settings, store = settings_and_store()
    wanted = read_wanted(listed, request_id, store)
    if not dry_run:
        wanted.record_images(store)
    unfinished = None
    with progress(console(), "remove, files") as report:
        try:
            if dry_run:
                found, work = stage.look_up(
                    wanted.request, settings, store, on_file=report, lines=wanted.lines
                )
                _say_found(found, work, wanted, as_json=as_json)
                _check_misses(wanted, found, allowed=allow_misses)
                return
            if finish:
                done: stage.Removal | Work = stage.finish(wanted.request.id, settings, store, purge=purge)
            elif prepare:
                done = stage.prepare(
                    wanted.request, settings, store, purge=purge, on_file=report, lines=wanted.lines
                )
            else:
                done = stage.remove(
                    wanted.request, settings, store, purge=purge, on_file=report, lines=wanted.lines
                )
        except stage.UnfinishedRemovalError as error:
            done, unfinished = error.removal, error
    if isinstance(done, Work):
        _say_prepared(done, store, as_json=as_json)
    else:
        _say_removed(done, wanted, settings, store, prepared=prepare, as_json=as_json)
    if unfinished is not None:
        raise unfinished
    if not isinstance(done, Work):
        _check_misses(wanted, done.request, allowed=allow_misses)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be removed: the request, and the lines of its list, if they are known.

    `source`: the list, for messages. `listed`: its content, if that was given.
    """

    request: "Request"
    source: str
    lines: Sequence["RequestedLine"] = ()
    listed: "RemovalList | None" = None
    earlier: tuple["Request", ...] = ()

    def record_images(self, store: "Store") -> None:
        """Record which images lines name by a URL: once they are removed, it cannot be looked up any more."""
        from laion_etl.removal.image_of import record_images

        if self.listed is not None:
            record_images(self.listed, store)

    def stored(self, store: "Store") -> "Request":
        """Return the request as it was carried out."""
        from laion_etl.blocklists.removal_requests import read_request

        return read_request(self.request, store)

    def results(self, found: "Request") -> list["LineResult"]:
        """Return what each line has matched."""
        from laion_etl.removal.line_counts import line_results

        return line_results(self.lines, found, self.earlier)


def read_wanted(listed: str, request_id: str, store: "Store") -> Wanted:
    """Return what a list names, or a request that was prepared. Raises InputError."""
    from laion_etl.blocklists.removal_requests import read_request_of, read_requests
    from laion_etl.io.remote_files import read_input
    from laion_etl.removal.image_of import with_images
    from laion_etl.removal.lists import MAX_BYTES, read_lines
    from laion_etl.removal.requested_lines import read_lines_of
    from laion_etl.removal.samples import pairs_of_samples

    if not listed:
        known = read_lines_of(request_id, store)
        request = read_request_of(request_id, store)
        return Wanted(request, f"the list of removal {request_id}", known, earlier=read_requests(store))
    lines = with_images(read_lines(read_input(listed, MAX_BYTES), listed), store)
    pairs = pairs_of_samples(lines.samples, store) if lines.samples else {}
    requested = lines.requested(pairs)
    wanted = Wanted(lines.request(pairs), listed, requested, lines, read_requests(store))
    if not any(line.hashes is not None for line in requested):
        _check_misses(wanted, wanted.request, allowed=False)
    return wanted


def _check_misses(wanted: Wanted, found: "Request", *, allowed: bool) -> None:
    from laion_etl.removal.line_counts import check_misses

    if not allowed:
        check_misses(wanted.source, wanted.results(found))


def _say_lines(wanted: Wanted, found: "Request") -> list[dict[str, Any]]:
    """Print what each line of the list has matched; return it as plain JSON values."""
    results = wanted.results(found)
    for one in results:
        text = f" {one.line.text[:200]}:" if one.line.text else ""
        say(f"line {one.line.number}:{text} {quantity(one.pairs, 'pair')}")
    return [{"line": one.line.number, "text": one.line.text, "pairs": one.pairs} for one in results]


def _say_found(found: "Request", work: "Work", wanted: Wanted, *, as_json: bool) -> None:
    lines = _say_lines(wanted, found)
    files = sum(map(len, work.units))
    say(
        f"{quantity(len(found.pair_ids), 'pair')} in {quantity(files, 'file')} would be removed; nothing is "
        "changed"
    )
    for failure in work.failures:
        say(f"cannot be searched: {failure}")
    if as_json:
        say_json({"id": found.id, "pairs": len(found.pair_ids), "files": files, "lines": lines})


def _say_prepared(work: "Work", store: "Store", *, as_json: bool) -> None:
    from laion_etl.blocklists.removal_requests import read_request_of

    say(
        f"removal {work.request_id}: {quantity(len(work.units), 'unit')} to rewrite; run `laion-etl dataset "
        f"remove --request {work.request_id} --range I/{work.ranges}` for I from 1 to {work.ranges}, then "
        "--finish"
    )
    if as_json:
        crawls = list(read_request_of(work.request_id, store).crawls)
        prepared = {"id": work.request_id, "crawls": crawls, "units": len(work.units)}
        say_json({**prepared, "ranges": all_ranges(work.ranges)})


def _rewrite_range(listed: str, request_id: str, part: str, *, as_json: bool) -> None:
    """Rewrite one range; only for pairs that match does that read the lines of the list."""
    from laion_etl.removal.stage import rewrite_range

    settings, store = settings_and_store()
    if listed:
        wanted = read_wanted(listed, "", store)
        wanted.record_images(store)
        request_id = wanted.request.id
    with progress(console(), "remove, files") as report:
        files = rewrite_range(request_id, *read_range(part), settings, store, report)
    say(f"removal {request_id}: range {part} is done, {quantity(files, 'file')}")
    if as_json:
        say_json({"id": request_id, "range": part, "files": files})


def _say_removed(
    done: "Removal", wanted: Wanted, settings: "Settings", store: "Store", *, prepared: bool, as_json: bool
) -> None:
    """Print what was removed, and redact the pairs in Postgres."""
    from laion_etl.database.connection import has_database, open_database
    from laion_etl.database.redact import redact_pairs

    lines = _say_lines(wanted, done.request)
    found = ", ".join(f"{rule} {count:,}" for rule, count in done.request.counts.items() if count)
    say(f"{quantity(len(done.request.pair_ids), 'pair')} ({found or 'none'}): {store.uri(done.request.name)}")
    for stats in done.published:
        say(f"new version: {stats.unit}, {quantity(stats.kept, 'row')} of {stats.crawl}")
    for version in done.holding:
        say(f"still contains removed samples: {version} (--purge deletes it)")
    for version in done.purged:
        say(f"deleted: {version}")
    blanked = None
    if done.request.named_pairs and has_database(settings):
        with open_database(settings) as database:
            blanked = redact_pairs(done.request.named_pairs, settings, database)
        say(f"{quantity(blanked, 'pair')} emptied in Postgres")
    if as_json:
        ranges: dict[str, list[str]] = {"ranges": []} if prepared else {}
        listed: dict[str, Any] = {"lines": lines} if wanted.lines else {}
        say_json(done.to_plain() | {"in_database": blanked} | listed | ranges)

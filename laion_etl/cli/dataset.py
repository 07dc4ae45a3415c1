"""Commands for published datasets: verify, compare, correct and measure them."""

from dataclasses import asdict
from typing import Annotated

import typer

from laion_etl.cli import receipts
from laion_etl.cli.common import (
    CrawlOption,
    JsonOption,
    NameOption,
    console,
    open_settings,
    read_range,
    say,
    say_json,
    settings_and_store,
)
from laion_etl.cli.console import progress
from laion_etl.cli.evaluation_sets import evaluation_set
from laion_etl.cli.extras import Commands, needs
from laion_etl.cli.push import push
from laion_etl.cli.removals import locate, remove
from laion_etl.cli.republish import republish
from laion_etl.core.quantities import quantity

commands = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Verify, compare, correct, share and measure published datasets."
)


@commands.command()
def verify(
    name: NameOption = "",
    version: Annotated[str, typer.Option(help="Version to check; default: the current one.")] = "",
    range_: Annotated[
        str,
        typer.Option(
            "--range", metavar="I/N", help="Verify only part I of N of the files, such as 1/4; see --merge."
        ),
    ] = "",
    merge: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Verify nothing, but merge the results of all parts, which are JSON files in this folder.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Check a published version against its manifest: files, bytes, counts, schema and rows.

    A large one can be checked in parts, on several machines: run `laion-etl --result FOLDER/1.json dataset
    verify --range 1/4 --json` and so on for each part, then `laion-etl dataset verify --merge FOLDER`.
    """
    from laion_etl.io.storage import open_store
    from laion_etl.publish.verify import verify_version
    from laion_etl.publish.verify_ranges import merge_reports, read_reports, verify_range

    settings, store = settings_and_store()
    dataset, plain = name or settings.publish.name, None
    with progress(console(), "verify, bytes") as report:
        if merge:
            verdict = merge_reports(read_reports(open_store(merge)), store)
        elif range_:
            part = verify_range(dataset, version, *read_range(range_), store, report)
            verdict, plain = part.report, part.to_plain()
        else:
            verdict = verify_version(dataset, version, store, report)
    for problem in verdict.problems:
        say(f"{problem.file}: {problem.what}")
    found = quantity(len(verdict.problems), "problem") if verdict.problems else "matches its manifest"
    say(
        f"{verdict.dataset}/{verdict.version}: {quantity(verdict.files, 'file')}, "
        f"{quantity(verdict.rows, 'row')}, {quantity(verdict.bytes, 'byte')}: {found}"
    )
    if as_json:
        say_json(plain or verdict.to_plain())
    if verdict.problems:
        raise typer.Exit(1)


@commands.command()
def diff(
    old: Annotated[
        str, typer.Argument(help="Version, such as CC-MAIN-2024-38; NAME/VERSION for another dataset.")
    ],
    new: Annotated[str, typer.Argument(help="Version to compare it with, written in the same way.")],
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two published versions: rows per subset, settings and files."""
    from rich.table import Table

    from laion_etl.publish.diff import diff_versions

    settings, store = settings_and_store()
    found = diff_versions(name or settings.publish.name, old, new, store)
    table = Table("subset", "added", "removed", "changed", "unchanged", title=f"{found.old} to {found.new}")
    for one in found.subsets:
        counts = (one.added, one.removed, one.changed, one.unchanged)
        table.add_row(one.subset, *(f"{count:,}" for count in counts))
    console().print(table)
    for change in found.settings:
        say(f"{change.crawl} {change.setting}: {change.old} -> {change.new}")
    for what, names in (("added", found.columns_added), ("removed", found.columns_removed)):
        if names:
            say(f"columns {what}: {', '.join(names)}")
    say(f"files: {len(found.files_added):,} added, {len(found.files_removed):,} removed")
    if as_json:
        say_json(found.to_plain())


commands.command()(locate)
commands.command()(remove)
commands.command()(push)
commands.command()(republish)
commands.command("evaluation-set")(evaluation_set)
commands.add_typer(receipts.commands, name="receipt")


@commands.command()
def report(crawl: CrawlOption, as_json: JsonOption = False) -> None:
    """Rebuild the report page of a published crawl."""
    from laion_etl.publish.stage import rebuild_report

    settings, store = open_settings()
    place = rebuild_report(crawl, settings, store)
    console().print(f"report: {place}", highlight=False)
    if as_json:
        say_json({"crawl": crawl, "report": place})


@commands.command()
def quality(
    crawl: CrawlOption,
    name: Annotated[str, typer.Option(help="Name of the dataset; default: LAION_ETL_PUBLISH_NAME.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show the similarity and aesthetic scores of a published dataset by language: median and 90% range."""
    from rich.table import Table

    from laion_etl.dataset.manifest import published_part
    from laion_etl.dataset.versions import Release
    from laion_etl.evaluate.quality import dataset_quality

    settings, store = settings_and_store()
    table = Table("language", "samples", "similarity", "aesthetic")
    named = name or settings.publish.name
    release = published_part(named, crawl, store) or Release(named, crawl)
    languages = dataset_quality(f"{release.folder}/", store)
    for row in languages:
        table.add_row(
            row.language or "none",
            f"{row.samples:,}",
            _spread(row.similarity, 3),
            _spread(row.aesthetic, 2) if row.aesthetic else "",
        )
    console().print(table)
    if as_json:
        say_json(
            {
                "dataset": release.name,
                "version": release.version,
                "languages": [asdict(row) for row in languages],
            }
        )


@commands.command("train-check")
@needs("score")
def train_check(
    crawl: CrawlOption,
    model: Annotated[
        str, typer.Option(help="Architecture to train from random weights, as open_clip names it.")
    ] = "laion-etl-tiny",
    samples: Annotated[int, typer.Option(min=2, help="Use at most this many kept samples.")] = 256,
    batch_size: Annotated[int, typer.Option(min=2, help="Samples per step.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Train open_clip for a few steps on the kept samples, to check that the shards are usable."""
    from laion_etl.evaluate.train_check import check_training

    _, store = settings_and_store()
    found = check_training(crawl, store, model=model, max_samples=samples, batch_size=batch_size)
    say(
        f"open_clip trained {model} for {quantity(len(found.losses), 'step')} of {found.batch_size} samples: "
        f"loss {found.losses[0]:.3f} to {found.losses[-1]:.3f}"
    )
    if as_json:
        say_json({"crawl": crawl, "model": model, **asdict(found)})


def _spread(values: tuple[float, float, float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"

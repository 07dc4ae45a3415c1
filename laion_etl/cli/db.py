"""Commands for the database: its schema, and the hashes of all pairs seen so far."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from laion_etl.cli.common import CrawlOption, JsonOption, as_name, console, open_settings, say, say_json
from laion_etl.cli.extras import Commands
from laion_etl.core.quantities import quantity

if TYPE_CHECKING:
    from laion_etl.database.connection import Database
    from laion_etl.database.reconcile import Differences
    from laion_etl.database.stored_crawl import StoredCrawl
    from laion_etl.io.storage import Store
    from laion_etl.settings import Settings

commands = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Maintain the database: its schema, its crawls, and the keys of all pairs seen so far.",
)
seen_keys = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Export and import the keys of all pairs seen so far."
)
commands.add_typer(seen_keys, name="seen-keys")


@commands.command()
def migrate(as_json: JsonOption = False) -> None:
    """Update the database schema; run it as the schema's owner. Other commands do so too if their user may.

    With several servers it updates all of them, and divides the key ranges of a new database among them.
    """
    from laion_etl.database.connection import open_database
    from laion_etl.database.servers import range_servers
    from laion_etl.settings import load_settings

    settings = load_settings()
    with open_database(settings) as database, range_servers(database) as servers:
        applied = [name for (name,) in database.rows("connect.migrations")]
    console().print(f"schema: {', '.join(applied)}", highlight=False)
    if servers.further:
        say(f"key ranges: {len(servers.homes)}, divided among {quantity(len(servers.databases), 'server')}")
    if as_json:
        say_json({"migrations": applied, "servers": len(servers.databases)})


@commands.command("move-ranges")
def move(
    dry_run: Annotated[bool, typer.Option(help="Only list the ranges that would be moved.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Move key ranges to the servers that were added at the end of LAION_ETL_DATABASE_URLS.

    Stop loaders and planners first; downloads may continue. If it is killed, run it again: it continues where
    it was.
    """
    from laion_etl.database.connection import open_database
    from laion_etl.database.move_ranges import RangeMove, move_ranges, planned_moves
    from laion_etl.settings import load_settings

    def report(one: RangeMove) -> None:
        say(
            f"key range {one.range_no}: {quantity(one.pairs, 'pair')} moved from server {one.old} to server "
            f"{one.new}"
        )

    with open_database(load_settings()) as database:
        moves = planned_moves(database) if dry_run else move_ranges(database, report)
    pairs = sum(one.pairs for one in moves)
    verb = "would be moved" if dry_run else "are moved"
    say(f"{quantity(len(moves), 'key range')} with {quantity(pairs, 'pair')} {verb}")
    if as_json:
        say_json({"ranges": [asdict(one) for one in moves], "pairs": pairs, "dry_run": dry_run})


@commands.command()
def forget(crawl: CrawlOption, as_json: JsonOption = False) -> None:
    """Remove a crawl from Postgres, to build it again with other settings; its files stay in the store."""
    from laion_etl.database.connection import open_database
    from laion_etl.database.forget import forget_crawl

    settings, store = open_settings()
    with open_database(settings) as database:
        forget_crawl(crawl, settings, store, database)
    console().print(f"{crawl} is forgotten; load its partitions to start again", highlight=False)
    if as_json:
        say_json({"crawl": crawl})


@commands.command()
def reconcile(
    crawl: CrawlOption,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="Repair what can be repaired; no other command may work on the crawl meanwhile."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare what the store and Postgres have of a crawl, after one of them was restored from a backup.

    The exit code is 1 if they differ; with --fix, if they still differ afterwards.
    """
    from laion_etl.core.errors import InputError
    from laion_etl.crawl import written_numbers
    from laion_etl.database.connection import open_database
    from laion_etl.database.reconcile import find_differences
    from laion_etl.database.stored_crawl import read_stored

    settings, store = open_settings()
    with open_database(settings) as database:
        stored = read_stored(crawl, store)
        if stored.is_empty and not database.rows("load.crawl_number", {"crawl": crawl}):
            raise InputError(
                f"cannot compare {crawl}: neither the store nor the database has anything of it; `laion-etl "
                "status` lists the crawls in the database"
            )
        found = find_differences(crawl, stored, store, database)
        for kind, numbers in found.numbers.items():
            say(f"{kind} {written_numbers(numbers)}: {kind.sentence}")
        left = found
        if fix and found.numbers:
            left = _mend(found, stored, settings, store, database)
            for kind, numbers in left.numbers.items():
                say(f"left: {kind} {written_numbers(numbers)}")
    if not left.numbers:
        console().print(f"store and database agree on {crawl}", highlight=False)
    if as_json:
        say_json({"crawl": crawl, "differences": found.to_plain(), "left": left.to_plain()})
    if left.numbers:
        raise typer.Exit(1)


def _mend(
    found: "Differences", stored: "StoredCrawl", settings: "Settings", store: "Store", database: "Database"
) -> "Differences":
    """Load and plan what the database lost, correct the state of batches, and return what is left.

    The store is not listed again, because everything this adds to it is known.
    """
    from laion_etl.database.load import load_partition
    from laion_etl.database.reconcile import Kind, find_differences, known_batches, mend_batches
    from laion_etl.io.planned import batches_in
    from laion_etl.plan.stage import plan_batches

    lost = [partition for partition in found.of(Kind.LOST_PARTITION) if partition in stored.parsed]
    for partition in lost:
        load_partition(found.crawl, partition, settings, store, database)
    unplanned = found.of(Kind.UNKNOWN_BATCH, Kind.UNRECORDED_BATCH) and database.rows(
        "reconcile.partitions", {"crawl": found.crawl}
    )
    if unplanned:
        before = known_batches(found.crawl, database)
        planned = batches_in(plan_batches(found.crawl, settings, store, database))
        stored.batches.update(set(planned) - before)
    if lost or unplanned:
        found = find_differences(found.crawl, stored, store, database)
    return mend_batches(found, database)


@commands.command()
def requeue(
    crawl: CrawlOption,
    cause: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only batches whose error contains this text, such as 'disk quota'; default: all.",
        ),
    ] = "",
    batch: Annotated[
        int | None, typer.Option(min=0, help="Only the batch with this number; default: all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only count the batches, by cause.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring parked batches back to the queue, with all their attempts, after their cause is repaired.

    A batch is parked when it has failed several times; `laion-etl status --crawl CC-MAIN-2024-38` shows the
    causes.
    """
    from laion_etl.database import requeue as queue
    from laion_etl.database.connection import open_database
    from laion_etl.settings import load_settings

    with open_database(load_settings()) as database:
        found = queue.requeue(crawl, database, cause, batch, dry_run=dry_run)
    counts = [f"{count:>9,} x {one or 'no error recorded'}" for one, count in found.items()]
    verb = "would be ready again" if dry_run else "are ready again"
    say(f"{quantity(sum(found.values()), 'parked batch', 'parked batches')} of {crawl} {verb}", *counts)
    if as_json:
        say_json({"crawl": crawl, "batches": sum(found.values()), "causes": found, "dry_run": dry_run})


@seen_keys.command("export")
def export_keys(
    name: Annotated[
        str,
        typer.Argument(callback=as_name, help="Name of the file, which is memory/NAME.parquet in the store."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Export the keys of all pairs seen so far to a file.

    If they are imported after `laion-etl db forget`, pairs of the forgotten crawl still count as duplicates.
    """
    from laion_etl.database.connection import open_database
    from laion_etl.database.seen_keys import export_seen_keys

    settings, store = open_settings()
    with open_database(settings) as database:
        output, count = export_seen_keys(name, settings, store, database)
    size = f"{output.bytes / count:.1f} bytes each" if count else "empty"
    console().print(f"{quantity(count, 'hash', 'hashes')}, {size}: {store.uri(output.name)}", highlight=False)
    if as_json:
        say_json({"file": store.uri(output.name), "keys": count, "bytes": output.bytes})


@seen_keys.command("import")
def import_keys(
    uri: Annotated[str, typer.Argument(help="Exported file (path, s3:// or https://).")],
    as_json: JsonOption = False,
) -> None:
    """Import exported keys, so that later loads count pairs with these keys as duplicates."""
    from laion_etl.database.connection import open_database
    from laion_etl.database.seen_keys import import_seen_keys

    settings, _ = open_settings()
    with open_database(settings) as database:
        stats = import_seen_keys(uri, settings, database)
    console().print(f"{quantity(stats.input, 'hash', 'hashes')}, {stats.kept:,} of them new", highlight=False)
    if as_json:
        say_json({"keys": stats.input, "new": stats.kept})

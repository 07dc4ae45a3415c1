"""Commands for the database: its schema, and the hashes of all pairs seen so far."""

from typing import Annotated

import typer

from laion_etl.cli.common import CrawlOption, JsonOption, as_name, console, open_settings, say_json
from laion_etl.cli.extras import Commands

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
    """Update the database schema, as its owner; other commands do so too if their user may."""
    from laion_etl.database.connection import open_database
    from laion_etl.settings import load_settings

    settings = load_settings()
    with open_database(settings) as database:
        applied = [name for (name,) in database.rows("connect.migrations")]
    console().print(f"schema: {', '.join(applied)}", highlight=False)
    if as_json:
        say_json({"migrations": applied})


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


@seen_keys.command("export")
def export_keys(
    name: Annotated[
        str, typer.Argument(callback=as_name, help="Name of the file, memory/NAME.parquet in the store.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Export the keys of all pairs seen so far; imported again, pairs of forgotten crawls stay duplicates."""
    from laion_etl.database.connection import open_database
    from laion_etl.database.seen_keys import export_seen_keys

    settings, store = open_settings()
    with open_database(settings) as database:
        output, count = export_seen_keys(name, settings, store, database)
    size = f"{output.bytes / count:.1f} bytes each" if count else "empty"
    console().print(f"{count:,} hashes, {size}: {store.uri(output.name)}", highlight=False)
    if as_json:
        say_json({"file": store.uri(output.name), "keys": count, "bytes": output.bytes})


@seen_keys.command("import")
def import_keys(
    uri: Annotated[str, typer.Argument(help="Exported file (path, s3:// or https://).")],
    as_json: JsonOption = False,
) -> None:
    """Import exported keys, so that later loads drop pairs that have them as duplicates."""
    from laion_etl.database.connection import open_database
    from laion_etl.database.seen_keys import import_seen_keys

    settings, _ = open_settings()
    with open_database(settings) as database:
        stats = import_seen_keys(uri, settings, database)
    console().print(f"{stats.input:,} hashes, {stats.kept:,} of them new", highlight=False)
    if as_json:
        say_json({"keys": stats.input, "new": stats.kept})

"""Commands for published datasets: verify a version, compare two, and remove samples."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from laion_etl.cli.common import JsonOption, NameOption, console, say, say_json, settings_and_store
from laion_etl.cli.console import progress


def verify(
    name: NameOption = "",
    version: Annotated[str, typer.Option(help="A visible version; default: the current one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Check a published version against its manifest: files, bytes, counts, schema, rows."""
    from laion_etl.publish.verify import verify_version

    settings, store = settings_and_store()
    with progress(console, "verify, bytes") as report:
        verdict = verify_version(name or settings.publish.name, version, store, report)
    for problem in verdict.problems:
        say(f"{problem.file}: {problem.what}")
    found = f"{len(verdict.problems):,} problems" if verdict.problems else "matches its manifest"
    say(
        f"{verdict.dataset}/{verdict.version}: {verdict.files:,} files, {verdict.rows:,} rows, "
        f"{verdict.bytes:,} bytes: {found}"
    )
    if as_json:
        say_json(verdict.to_plain())
    if verdict.problems:
        raise typer.Exit(1)


def diff(
    old: Annotated[str, typer.Argument(help="A version, or name/version of another dataset.")],
    new: Annotated[str, typer.Argument(help="The version to compare it with.")],
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two published versions: rows per subset, settings, files."""
    from laion_etl.publish.diff import diff_versions

    settings, store = settings_and_store()
    found = diff_versions(name or settings.publish.name, old, new, store)
    table = Table("subset", "added", "removed", "changed", "unchanged", title=f"{found.old} to {found.new}")
    for one in found.subsets:
        counts = (one.added, one.removed, one.changed, one.unchanged)
        table.add_row(one.subset, *(f"{count:,}" for count in counts))
    console.print(table)
    for change in found.settings:
        say(f"{change.crawl} {change.setting}: {change.old} -> {change.new}")
    for what, names in (("added", found.columns_added), ("removed", found.columns_removed)):
        if names:
            say(f"columns {what}: {', '.join(names)}")
    say(f"files: {len(found.files_added):,} added, {len(found.files_removed):,} removed")
    if as_json:
        say_json(found.to_plain())


def remove(
    listed: Annotated[
        Path, typer.Option("--list", help="File with domains, URLs, image hashes or pair ids, one per line.")
    ],
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the versions that still contain removed samples.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove listed samples from store and database, publish new versions, and block them in future runs."""
    from laion_etl.database.connection import has_database, open_database
    from laion_etl.database.redact import redact_pairs
    from laion_etl.io.remote_files import read_input
    from laion_etl.removal.lists import MAX_BYTES, read_list
    from laion_etl.removal.stage import remove as remove_request

    settings, store = settings_and_store()
    request = read_list(read_input(str(listed), MAX_BYTES), str(listed))
    with progress(console, "remove, files") as report:
        done = remove_request(request, settings, store, purge=purge, on_file=report)
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
        say_json(done.to_plain() | {"in_database": blanked})

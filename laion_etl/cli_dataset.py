"""Commands for datasets that are published: whether a version is whole, and what changed between two."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from laion_etl.console import progress
from laion_etl.settings import Settings, load_settings
from laion_etl.storage import Store, open_store

console = Console(soft_wrap=True)

NameOption = Annotated[str, typer.Option(help="Name of the dataset; left out: LAION_ETL_PUBLISH_NAME.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON line on stdout.")]


def verify(
    name: NameOption = "",
    version: Annotated[str, typer.Option(help="A visible version; left out: the current one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Whether a published version is what its manifest says: files, bytes, counts, schema, rows."""
    from laion_etl.publish.verify import verify_version

    settings, store = _open()
    with progress(console, "verify, bytes") as report:
        verdict = verify_version(name or settings.publish.name, version, store, report)
    for problem in verdict.problems:
        _print(f"{problem.file}: {problem.what}")
    found = f"{len(verdict.problems):,} problems" if verdict.problems else "all as the manifest says"
    _print(
        f"{verdict.dataset}/{verdict.version}: {verdict.files:,} files, {verdict.rows:,} rows, "
        f"{verdict.bytes:,} bytes: {found}"
    )
    if as_json:
        _json(verdict.to_plain())
    if verdict.problems:
        raise typer.Exit(1)


def diff(
    old: Annotated[str, typer.Argument(help="A version, or name/version of another dataset.")],
    new: Annotated[str, typer.Argument(help="The version it is compared with.")],
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """What changed from one published version to another: rows per subset, settings, files."""
    from laion_etl.publish.diff import diff_versions

    settings, store = _open()
    found = diff_versions(name or settings.publish.name, old, new, store)
    table = Table("subset", "added", "removed", "changed", "unchanged", title=f"{found.old} to {found.new}")
    for one in found.subsets:
        counts = (one.added, one.removed, one.changed, one.unchanged)
        table.add_row(one.subset, *(f"{count:,}" for count in counts))
    console.print(table)
    for change in found.settings:
        _print(f"{change.crawl} {change.setting}: {change.old} -> {change.new}")
    _print(f"files: {len(found.files_added):,} added, {len(found.files_removed):,} removed")
    if as_json:
        _json(found.to_plain())


def _open() -> tuple[Settings, Store]:
    settings = load_settings()
    return settings, open_store(settings.store_uri)


def _print(line: str) -> None:
    console.print(line, markup=False, highlight=False)


def _json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)

"""Commands for signed receipts of removals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laion_etl.cli.common import JsonOption, say, say_json, settings_and_store
from laion_etl.cli.extras import Commands

if TYPE_CHECKING:
    from laion_etl.settings import Settings

commands = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Write and check signed receipts of removals."
)


@commands.command()
def write(
    listed: Annotated[str, typer.Option("--list", help="The list that was removed.")],
    out: Annotated[Path, typer.Option(help="File of the receipt.")],
    line: Annotated[
        list[int] | None, typer.Option(help="Only these lines of the list, for one of several who asked.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a signed receipt of a finished removal: lines, what they matched, versions before and after."""
    import json
    from datetime import UTC, datetime

    from laion_etl.cli.removals import read_wanted
    from laion_etl.core.errors import InputError
    from laion_etl.removal.receipts import open_key, receipt

    settings, store = settings_and_store()
    wanted = read_wanted(listed, "", store)
    if not store.exists(wanted.request.name):
        raise InputError(
            f"cannot write a receipt of {listed}: it was not removed from {store.uri()}; run "
            "`laion-etl dataset remove` with it first"
        )
    results = wanted.results(wanted.stored(store))
    if line and (unknown := {*line} - {one.line.number for one in results}):
        raise InputError(
            f"cannot write a receipt of {listed}: its line {min(unknown)} names nothing; give the number of "
            "another line"
        )
    chosen = [one for one in results if not line or one.line.number in line]
    made = receipt(wanted.stored(store), chosen, store, datetime.now(UTC), open_key(_key_file(settings)))
    try:
        out.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; give another file as --out") from error
    say(f"receipt: {out}", f"signed by the key {made['public_key']}")
    if as_json:
        say_json(made)


@commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="The receipt.")],
    key: Annotated[
        str, typer.Option(help="Public key that must have signed it; default: the key of this installation.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Check that a receipt is as it was signed, and by whose key."""
    from laion_etl.core.errors import InputError
    from laion_etl.io.remote_files import read_input
    from laion_etl.removal.receipts import check_receipt, open_key, public_key
    from laion_etl.settings import load_settings

    found = check_receipt(read_input(str(file), 256_000_000), str(file))
    own = _key_file(load_settings())
    if not key and not own.exists():
        raise InputError(
            f"cannot tell who signed {file}: {own} does not exist; give the public key of who sent "
            "it with --key"
        )
    expected = key.lower() or public_key(open_key(own))
    if found["public_key"] != expected:
        raise InputError(
            f"cannot trust {file}: it is signed by the key {found['public_key']}, not by {expected}; ask who "
            "sent it for their public key"
        )
    say(f"{file}: signed by {expected} at {found['time']}, removal {found['request']}")
    for one in found["lines"]:
        say(f"line {one['line']}: {one['asked'][:200]}: {one['pairs']:,} pairs")
    for one in found["datasets"]:
        before = one["before"]["version"] if one["before"] else "was deleted"
        say(f"{one['name']}: last version with it {before}, first without it {one['after']['version']}")
    if as_json:
        say_json(found)


def _key_file(settings: "Settings") -> Path:
    core = settings.core
    return Path(core.receipt_key or Path(core.data_dir) / "receipt-key.pem")

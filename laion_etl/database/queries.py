"""Named SQL statements. SQL is in sql/: numbered migrations, and named queries in sql/queries/<file>.sql."""

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def sql_folder() -> Path:
    """Returns the folder sql/: next to the package in a checkout, inside it in an installed wheel."""
    installed = Path(__file__).parents[1] / "sql"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "sql"


def query(name: str) -> LiteralString:
    """Returns the statement `file.name`, for example 'queue.claim'."""
    file, _, statement = name.partition(".")
    return _statements(file)[statement]


@cache
def _statements(file: str) -> dict[str, LiteralString]:
    text = (sql_folder() / "queries" / f"{file}.sql").read_text()
    parts = _NAME.split(text)[1:]
    # The text comes from our own repository, so it is as trustworthy as a literal.
    return {
        name: cast("LiteralString", body.strip()) for name, body in zip(parts[::2], parts[1::2], strict=True)
    }

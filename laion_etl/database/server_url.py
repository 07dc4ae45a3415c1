"""The URL of a Postgres server: its parts, and what errors may show of it.

Passwords are often generated, and pasted into the URL as they are. With `/`, `@` or `%` in it libpq takes a
part of the password for the host, the port or the name of the database, all of which errors show; and its own
errors quote what it cannot read. Such a URL is refused without a word of what is in it.
"""

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from laion_etl.core.errors import DatabaseRefusedError

_NOT_VALID = "not a valid postgresql:// URL"
_ADVICE = (
    "write what is neither a letter nor a digit in its password as %XX, such as %2F for /, %40 for @, "
    "%25 for %; in libpq's form host=... set the password in single quotes"
)


def url_parts(url: str) -> dict[str, Any]:
    """Return the parameters of a URL by libpq's names. Raises DatabaseRefusedError, which quotes nothing."""
    try:
        parts = conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeError):  # the latter of bytes that are not UTF-8
        parts = None
    if parts is None or _is_misread(url, parts):
        # Without its cause, whose message has a part of the URL, and may reach a log as a traceback.
        raise DatabaseRefusedError(
            f"cannot use the database: its URL (LAION_ETL_DATABASE_URL) is {_NOT_VALID}; {_ADVICE}"
        )
    return parts


def public_name(url: str) -> str:
    """Return host, port and database of a URL, without user and password."""
    try:
        parts = url_parts(url)
    except DatabaseRefusedError:
        return f"LAION_ETL_DATABASE_URL ({_NOT_VALID})"
    host, port = parts.get("host") or "localhost", parts.get("port") or 5432
    return f"{host}:{port}/{parts.get('dbname') or ''}"


def _is_misread(url: str, parts: dict[str, Any]) -> bool:
    """Whether libpq may have taken a part of the password for something else."""
    if not url.startswith(("postgresql://", "postgres://")):
        return False  # `name=value`, where a password has quotes, and any sign
    if any(port and not port.isdecimal() for port in str(parts.get("port") or "").split(",")):
        return True
    rest = url.partition("://")[2]
    # Like libpq: user and password end at the first `@` that comes before any `/`, even behind a `?`.
    login, at, behind = rest.partition("@")
    places = behind if at and "/" not in login else rest
    return "@" in places.partition("?")[0]

"""Migrates the schema: numbered files of sql/, each applied once."""

from pathlib import Path

import psycopg
from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.database.polling import poll
from laion_etl.database.queries import query, sql_folder

_LOCK = 4_190_210_084  # any number, the same in every process
_LOCK_TIMEOUT = "5s"


def migrate(connection: Connection, pair_leaves: int, key_ranges: int = 64) -> list[str]:
    """Applies the numbered files of sql/ that are new to this database; returns their names.

    Safe when many processes start at once: an advisory lock lets one migrate while the others wait. If
    nothing is new, as nearly always, no lock is taken. Each file is applied in a transaction of its own. It
    gives up after a few seconds where a program uses a table that it changes, and begins anew: all later
    statements on the table wait behind one that waits for a lock.

    `pair_leaves`: number of tables that table pair is split into when it is created; `key_ranges`: number of
    ranges that loads are split into. Raises DatabaseError when the user may not change the schema.
    """
    numbers = {"leaves": str(pair_leaves), "key_ranges": str(key_ranges)}
    applied: list[str] = []
    try:
        while _new_migrations(connection):
            applied += poll(
                lambda: _apply_next(connection, numbers),
                lambda: "another program that migrates the database or uses its tables",
                "migration of the database",
            )
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            "cannot migrate the database: its schema is older than this version and this user may not change "
            "it; run `laion-etl db migrate` as the owner of the schema"
        ) from error
    return applied


def _apply_next(connection: Connection, numbers: dict[str, str]) -> list[str] | None:
    """Applies the first file that is new; returns its name, nothing if there is none, or None if it has to
    wait."""
    try:
        with connection.transaction():
            locked = connection.execute("select pg_try_advisory_xact_lock(%s)", [_LOCK]).fetchone()
            if locked is None or not locked[0]:
                return None
            _check_encoding(connection)
            connection.execute("select set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
            connection.execute(query("connect.create_schema_migration"))
            connection.execute(query("connect.numbers"), numbers)
            new = _new_migrations(connection)[:1]
            for path in new:
                connection.execute(path.read_bytes())
                connection.execute("insert into schema_migration (name) values (%s)", [path.stem])
    except psycopg.errors.LockNotAvailable:
        return None
    return [path.stem for path in new]


def _new_migrations(connection: Connection) -> list[Path]:
    known = connection.execute("select to_regclass('schema_migration') is not null").fetchone()
    names = connection.execute("select name from schema_migration").fetchall() if known and known[0] else []
    applied = {name for (name,) in names}
    return [path for path in sorted(sql_folder().glob("[0-9]*.sql")) if path.stem not in applied]


def _check_encoding(connection: Connection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"cannot use the database: its encoding is {encoding}; create one with encoding UTF8"
        )

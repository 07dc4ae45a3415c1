"""Opening the database: the URL of the settings or the embedded server, with the schema up to date."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from laion_etl.database.embedded import running_server
from laion_etl.database.queries import sql_folder
from laion_etl.errors import DatabaseError
from laion_etl.settings import Settings

_MIGRATION_LOCK = 4_190_210_084  # any number, the same in every process


@contextmanager
def open_database(settings: Settings) -> Iterator[Connection]:
    """A migrated connection in autocommit mode; the embedded server runs while the block does.

    Raises DatabaseError when Postgres can't be reached or refuses a statement.
    """
    with (
        database_url(settings) as url,
        _database_errors(url),
        psycopg.connect(url, autocommit=True, connect_timeout=10) as connection,
    ):
        migrate(connection)
        yield connection


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """The URL of the settings, or of the embedded server, which runs while the block does."""
    if settings.core.database_url:
        yield settings.core.database_url
        return
    with running_server(Path(settings.core.data_dir)) as server:
        yield server.url("laion")


def migrate(connection: Connection) -> list[str]:
    """Applies the numbered files of sql/ that are new to this database; returns their names.

    Safe when many processes start at once: an advisory lock lets one migrate while the others wait. Where
    nothing is new, which is nearly always, no lock is taken.
    """
    if not _new_migrations(connection):
        return []
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
        connection.execute(
            "create table if not exists schema_migration ("
            "name text primary key, applied_at timestamptz not null default now())"
        )
        new = _new_migrations(connection)
        for path in new:
            connection.execute(path.read_bytes())
            connection.execute("insert into schema_migration (name) values (%s)", [path.stem])
    return [path.stem for path in new]


def _new_migrations(connection: Connection) -> list[Path]:
    known = connection.execute("select to_regclass('schema_migration') is not null").fetchone()
    names = connection.execute("select name from schema_migration").fetchall() if known and known[0] else []
    applied = {name for (name,) in names}
    return [path for path in sorted(sql_folder().glob("[0-9]*.sql")) if path.stem not in applied]


@contextmanager
def _database_errors(url: str) -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise DatabaseError(
            f"no connection to Postgres at {_public_name(url)}: {_first_line(error)}; "
            "is it running, and is LAION_ETL_DATABASE_URL right?"
        ) from error
    except psycopg.Error as error:
        raise DatabaseError(f"Postgres at {_public_name(url)} refused: {_first_line(error)}") from error


def _public_name(url: str) -> str:
    """Host, port and database of a URL, without user and password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "LAION_ETL_DATABASE_URL (not a valid postgresql:// URL)"
    host, port = parts.get("host") or "localhost", parts.get("port") or 5432
    return f"{host}:{port}/{parts.get('dbname') or ''}"


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

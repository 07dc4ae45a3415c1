from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from laion_etl.core.errors import DatabaseError
from laion_etl.database.connection import Database, migrate, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.settings import CoreSettings, Settings


def test_migrations_run_once_when_many_start_together(postgres: EmbeddedServer) -> None:
    url = postgres.url(f"test_{uuid4().hex}")

    def connect_and_migrate(_: int) -> list[str]:
        with psycopg.connect(url, autocommit=True) as connection:
            return migrate(connection, 16)

    with ThreadPoolExecutor(8) as pool:
        applied = [name for names in pool.map(connect_and_migrate, range(8)) for name in names]
    assert applied == sorted(set(applied))
    assert applied[0] == "001_schema"


def test_an_unreachable_server_is_named_without_its_password() -> None:
    settings = Settings(core=CoreSettings(database_url="postgresql://me:secret@127.0.0.1:1/laion"))
    with (
        pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/laion.*LAION_ETL_DATABASE_URL") as caught,
        open_database(settings),
    ):
        pass
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_malformed_url_says_so() -> None:
    settings = Settings(core=CoreSettings(database_url="postgresql://[not a url"))
    with pytest.raises(DatabaseError, match="not a valid postgresql:// URL"), open_database(settings):
        pass


def test_a_refused_statement_is_a_database_error(settings: Settings) -> None:
    with (
        pytest.raises(DatabaseError, match=r'cannot use Postgres at .*"nowhere"'),
        open_database(settings) as database,
    ):
        database.connection.execute("select 1 from nowhere")


def test_after_an_interrupted_statement_the_next_one_gets_its_answer(database: Database) -> None:
    """SIGTERM may come between a statement and its answer; the worker then returns its batch."""

    def interrupted(connection: psycopg.Connection) -> None:
        connection.pgconn.send_query(b"select 1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.run(interrupted)
    assert database.run(lambda connection: connection.execute("select 2").fetchone()) == (2,)


def test_every_table_is_commented(settings: Settings) -> None:
    with open_database(settings) as database:
        rows = database.connection.execute(
            "select relname, obj_description(oid) from pg_class "
            "where relname in ('crawl', 'partition', 'pair', 'batch') and relkind in ('r', 'p')"
        ).fetchall()
    assert len(rows) == 4
    assert all(comment for _, comment in rows)

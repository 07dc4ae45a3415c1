import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from laion_etl.core.errors import DatabaseError, DatabaseRefusedError
from laion_etl.database import migrations
from laion_etl.database.connection import Database, migrate, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.queries import sql_folder
from laion_etl.database.server_url import url_parts
from laion_etl.settings import CoreSettings, Settings


def test_migrations_run_once_when_many_start_together(postgres: EmbeddedServer) -> None:
    url = postgres.url(f"test_{uuid4().hex}")

    def connect_and_migrate(_: int) -> list[str]:
        with psycopg.connect(url, autocommit=True) as connection:
            return migrate(connection, 16)

    with ThreadPoolExecutor(8) as pool:
        applied = [name for names in pool.map(connect_and_migrate, range(8)) for name in names]
    assert sorted(applied) == sorted(path.stem for path in sql_folder().glob("[0-9]*.sql"))


def test_a_migration_that_waits_for_a_table_gives_up_and_begins_anew(
    postgres: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a statement waits for a lock, all later ones on the table wait behind it."""
    (tmp_path / "001_first.sql").write_text("create table used (n int)")
    (tmp_path / "002_second.sql").write_text("alter table used add column more int")
    monkeypatch.setattr(migrations, "sql_folder", lambda: tmp_path)
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT", "10ms")
    url = postgres.url(f"test_{uuid4().hex}")
    attempts: list[list[str] | None] = []

    def while_read(attempt: Callable[[], list[str] | None], *_: object) -> list[str]:
        """The first file is committed and its table read when the second one is applied."""
        if attempts == [["001_first"]]:
            with psycopg.connect(url) as reader:
                reader.execute("select from used")
                attempts.append(attempt())
        attempts.append(attempt())
        return attempts[-1] or []

    monkeypatch.setattr(migrations, "poll", while_read)
    with psycopg.connect(url, autocommit=True) as connection:
        assert migrate(connection, 16) == ["001_first", "002_second"]
    assert attempts == [["001_first"], None, ["002_second"]]


def test_an_unreachable_server_is_named_without_its_password() -> None:
    settings = Settings(core=CoreSettings(database_url="postgresql://me:s3cr3t@127.0.0.1:1/laion"))
    with (
        pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/laion.*LAION_ETL_DATABASE_URL") as caught,
        open_database(settings),
    ):
        pass
    assert "s3cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_malformed_url_says_so() -> None:
    settings = Settings(core=CoreSettings(database_url="postgresql://[not a url"))
    with pytest.raises(DatabaseError, match="not a valid postgresql:// URL"), open_database(settings):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cr3t%zz@127.0.0.1:1/laion",
        "postgresql://me:s3cr3t/more@127.0.0.1:1/laion",
        "postgresql://me:123/s3cr3t@127.0.0.1:1/laion",
        "postgresql://me:more@s3cr3t@127.0.0.1:1/laion",
        "postgresql://me:mo?re@s3cr3t@127.0.0.1:1/laion",
        "postgresql://me:mo?re@s3cr3t/more@127.0.0.1:1/laion",
        "postgresql://me:s3cr3t\udcff@127.0.0.1:1/laion",
    ],
)
def test_a_password_that_libpq_takes_for_something_else_is_in_no_error(url: str) -> None:
    settings = Settings(core=CoreSettings(database_url=url))
    with pytest.raises(DatabaseRefusedError, match="as %XX") as caught, open_database(settings):
        pass
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    assert "s3cr3t" not in Database(url, settings.database).public_name


@pytest.mark.parametrize(
    "url",
    [
        "host=127.0.0.1 port=' 1 ' dbname=laion password=a://b@c@d/e@f",
        "postgresql://me:p?w@127.0.0.1:1/laion",
        "postgresql://me:@127.0.0.1:1/laion?application_name=a/b@c",
        "postgres://me@/laion?host=127.0.0.1&port=1",
    ],
)
def test_what_libpq_reads_as_it_is_meant_is_not_refused(url: str) -> None:
    parts = url_parts(url)
    assert (parts["host"], parts["port"].strip(), parts["dbname"]) == ("127.0.0.1", "1", "laion")


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

"""Migrations, comments, roles and views, against a real server."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import make_conninfo

from laion_etl.core.errors import DatabaseError
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import database_errors, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.migrations import migrate
from laion_etl.database.queries import query
from laion_etl.database.queue import BatchQueue
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.download.host_facts import FactKind, HostFact
from laion_etl.download.shared_hosts import SharedHosts
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.report.crawl_status import crawl_status
from laion_etl.settings import CoreSettings, DownloadSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs

SQL = Path(__file__).parents[2] / "sql"
COUNTS = ("batch_thousand", "batch_change", "batch_count")
PLAN = ("plan_round", "plan_window")
HOSTS = ("host_fact", "live_downloader")
SERVERS = ("this_server", "database_server", "range_home")
TABLES = (
    "crawl",
    "partition",
    "partition_range",
    "page",
    "pair",
    "batch",
    *COUNTS[:2],
    "queue_contact",
    "dedupe_rule",
    "key_ranges",
    "schema_migration",
    *PLAN,
    *HOSTS,
    *SERVERS,
)
VIEWS = (
    "pair_text", "load_progress", "queue_progress", "queue_depth", "lease", "failed_batch", "failure",
    COUNTS[2],
)  # fmt: skip
# All that a role may do, in addition to every user. Of partition and batch only some columns, see below.
RIGHTS = {
    "laion_reader": {(table, "SELECT") for table in (*TABLES, *VIEWS)},
    "laion_loader": {
        ("schema_migration", "SELECT"),
        *((table, right) for table in ("crawl", "dedupe_rule") for right in ("SELECT", "INSERT")),
        *((table, "SELECT") for table in ("key_ranges", *SERVERS)),
        *((table, r) for table in ("partition", "partition_range") for r in ("SELECT", "INSERT", "UPDATE")),
        *((table, right) for table in ("pair", "page") for right in ("SELECT", "INSERT", "DELETE")),
    },
    "laion_planner": {
        *((table, "SELECT") for table in (*TABLES, "batch_count") if table not in ("queue_contact", *HOSTS)),
        ("batch", "INSERT"),
        *((table, right) for table in PLAN for right in ("INSERT", "UPDATE")),
    },
    "laion_worker": {
        *(
            (table, "SELECT")
            for table in ("schema_migration", "crawl", "batch", "queue_depth", *COUNTS, *SERVERS)
        ),
        *(("queue_contact", right) for right in ("SELECT", "INSERT", "UPDATE")),
        ("host_fact", "SELECT"),  # it adds facts only by note_hosts()
        *(("live_downloader", right) for right in ("SELECT", "INSERT", "UPDATE", "DELETE")),
    },
}
COLUMN_RIGHTS = {
    "laion_planner": {("partition", column) for column in ("planned", "planning", "stats")},
    "laion_worker": {
        ("batch", column)
        for column in [
            "state",
            "attempts",
            "outages",
            "token",
            "lease_owner",
            "lease_expires",
            "claimed_at",
            "stats",
            "error",
            "updated_at",
            "download_attempts",
            "score_stats",
            "raw_deleted",
            "race_owner",
            "race_token",
            "race_expires",
            "race_began",
        ]
    },
}


def test_every_table_view_and_column_is_commented(connection: Connection) -> None:
    objects = connection.execute(
        "select relname, obj_description(oid) from pg_class "
        "where relkind in ('r', 'p', 'v') and not relispartition and relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert {name for name, _ in objects} == {*TABLES, *VIEWS}
    assert [name for name, comment in objects if not comment] == []
    columns = connection.execute(
        "select relname, attname, col_description(attrelid, attnum) "
        "from pg_attribute join pg_class on attrelid = pg_class.oid "
        "where relname = any (%s) and attnum > 0 and not attisdropped",
        [[*TABLES]],
    ).fetchall()
    assert [(table, column) for table, column, comment in columns if not comment] == []


def test_a_database_of_the_first_version_is_converted(
    postgres: EmbeddedServer, store: Store, tmp_path: Path
) -> None:
    url = postgres.url(f"test_{uuid4().hex}")
    pairs = numbered_pairs(0, 50)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "create table schema_migration (name text primary key, applied_at timestamptz default now())"
        )
        connection.execute((SQL / "001_schema.sql").read_bytes())
        connection.execute("insert into schema_migration (name) values ('001_schema')")
        connection.execute("insert into crawl (crawl) values ('C')")
        for partition in range(2):
            stats = StageStats("load", "C", f"part-{partition:05d}", "f", 25, 25)
            connection.execute(
                "insert into partition (crawl_no, partition, fingerprint, stats, planned) "
                "values (1, %s, 'f', %s, %s)",
                [partition, psycopg.types.json.Jsonb(stats.to_plain()), partition == 0],
            )
        connection.execute(
            "insert into batch (batch, crawl_no, pairs, file) "
            """values (0, 1, 25, '{"name": "batches/C/000000000.parquet", "bytes": 1, "sha256": "0"}')"""
        )
        for number, (image, alt) in enumerate(pairs):
            connection.execute(
                "insert into pair values (md5(%s || %s)::uuid, 1, %s, %s, %s, 'en', '?', %s)",
                [image, alt, number // 25, image, alt, f"https://pages.example/{number // 10}"],
            )
        before = connection.execute(
            "select pair_id, partition, url, alt, language, license, page_url from pair order by 1"
        ).fetchall()
        assert migrate(connection, 8) == sorted(path.stem for path in SQL.glob("0*.sql"))[1:]
        after = connection.execute(
            "select pair_id, partition, url, caption, language, license, page_url from pair_text order by 1"
        ).fetchall()
        assert after == before
        assert connection.execute("select count(*) from page").fetchone() == (6,)
        leaves = connection.execute("select count(*) from pg_inherits where inhparent = 'pair'::regclass")
        assert leaves.fetchone() == (8,)
    settings = Settings(core=CoreSettings(data_dir=str(tmp_path), database_url=url))
    with open_database(settings) as database:
        write_pairs(store, "NEW", 0, [*pairs, ("https://e.org/new.jpg", "a new one")])
        stats = load_partition("NEW", 0, settings, store, database)
        assert (stats.kept, stats.dropped) == (1, {"duplicate_of_earlier_crawl": 50})
        assert plan_batches("C", settings, store, database).kept == 50


def test_leaves_share_the_keys_evenly(connection: Connection) -> None:
    connection.execute(
        "insert into pair select 1, 0, md5(n::text)::uuid, 'u', 'a', '' from generate_series(1, 16000) as n"
    )
    counts = connection.execute("select tableoid, count(*) from pair group by 1").fetchall()
    assert len(counts) == 16
    assert all(850 < count < 1150 for _, count in counts)


@pytest.mark.parametrize("role", RIGHTS)
def test_a_role_may_do_what_it_needs_and_no_more(role: str, connection: Connection) -> None:
    rights = {
        (name, right)
        for name in (*TABLES, *VIEWS)
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
        if has(connection, "has_table_privilege(%s, %s, %s)", role, name, right)
    }
    assert rights == RIGHTS[role]
    columns = connection.execute(
        "select relname, attname from pg_attribute join pg_class on attrelid = pg_class.oid "
        "where relname = any (%s) and attnum > 0 and not attisdropped "
        "and has_column_privilege(%s, attrelid, attnum, 'UPDATE') "
        "and not has_table_privilege(%s, attrelid, 'UPDATE')",
        [[*TABLES], role, role],
    )
    assert set(columns.fetchall()) == COLUMN_RIGHTS.get(role, set())
    assert not has(connection, "has_schema_privilege(%s, 'public', 'CREATE')", role)


def has(connection: Connection, function: str, *arguments: str) -> bool:
    row = connection.execute(f"select {function}", arguments).fetchone()  # type: ignore[arg-type]
    return bool(row and row[0])


class Logins:
    """Databases opened by users with one role each."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._names: dict[str, str] = {}

    def settings(self, role: str) -> Settings:
        name = f"user_{uuid4().hex}"
        self._connection.execute(f"create role {name} login; grant {role} to {name}")  # type: ignore[arg-type]
        self._names[role] = name
        url = make_conninfo(self._settings.core.database_url, user=name)
        return Settings(core=CoreSettings(data_dir=self._settings.core.data_dir, database_url=url))

    def drop(self) -> None:
        for name in self._names.values():
            self._connection.execute(f"drop role {name}")  # type: ignore[arg-type]


@pytest.fixture
def logins(settings: Settings, connection: Connection) -> Iterator[Logins]:
    logins = Logins(settings, connection)
    yield logins
    logins.drop()


def test_each_stage_works_with_its_role_alone(store: Store, logins: Logins) -> None:
    done = StageStats("download", "C", "0", "f", 20, 20)
    with open_database(as_loader := logins.settings("laion_loader")) as database:
        for partition in (1, 0, 2):  # takes pairs over
            write_pairs(store, "C", partition, numbered_pairs(partition * 5, partition * 5 + 10))
            load_partition("C", partition, as_loader, store, database)
        write_pairs(store, "C", 0, numbered_pairs(0, 7))  # corrected: gives pairs back
        load_partition("C", 0, as_loader, store, database)
        with pytest.raises(DatabaseError, match=r"needs another role, see docs/how-to/postgres\.md"):
            plan_batches("C", as_loader, store, database)
    with open_database(as_planner := logins.settings("laion_planner")) as database:
        assert plan_batches("C", as_planner, store, database).kept == 20
        with pytest.raises(DatabaseError, match="permission denied"):
            forget_crawl("C", as_planner, store, database)
    with open_database(logins.settings("laion_worker")) as database:
        queue = BatchQueue(database, crawl_number(database.connection, "C"), lease_s=60, max_attempts=2)
        claim = queue.claim()
        assert claim is not None
        assert queue.heartbeat(claim)
        assert queue.complete(claim, done)
        hosts = SharedHosts(database, DownloadSettings())
        hosts.write({("http", "a.example", 80): HostFact(FactKind.RULES, b"-")})
        assert len(hosts.read([("http", "a.example", 80)])) == hosts.workers == 1
        hosts.leave()
        for forbidden in ("select from pair", "delete from batch", "update batch set pairs = 0"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.connection.execute(forbidden)  # type: ignore[call-overload]
    with open_database(logins.settings("laion_reader")) as database:
        status = crawl_status("C", crawl_funnel(store, "C"), database)
        assert (status.load.partitions, status.queue.done) == (3, 1)


def test_roles_may_be_made_later_by_another_user(postgres: EmbeddedServer, connection: Connection) -> None:
    """A user who may not create roles owns a schema without them."""
    name = f"owner_{uuid4().hex}"
    connection.execute(f"create role {name} login; grant create, usage on schema public to {name}")  # type: ignore[arg-type]
    database_name = f"test_{uuid4().hex}"
    url = postgres.url(database_name)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"alter database {database_name} owner to {name}")  # type: ignore[arg-type]
    try:
        with psycopg.connect(make_conninfo(url, user=name), autocommit=True) as owner:
            migrate(owner, 2)
            assert owner.execute("select count(*) from pair").fetchone() == (0,)
        with psycopg.connect(url, autocommit=True) as admin:
            for _ in range(2):
                admin.execute((SQL / "004_roles.sql").read_bytes())
                admin.execute((SQL / "009_plan_windows.sql").read_bytes())
            assert has(admin, "has_table_privilege('laion_worker', 'batch', 'SELECT')")
            assert has(admin, "has_table_privilege('laion_planner', 'plan_window', 'INSERT')")
    finally:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"reassign owned by {name} to postgres; drop owned by {name}")  # type: ignore[arg-type]
        connection.execute(f"drop owned by {name}; drop role {name}")  # type: ignore[arg-type]


def test_a_schema_that_is_not_there_and_may_not_be_made(
    postgres: EmbeddedServer, connection: Connection
) -> None:
    name = f"powerless_{uuid4().hex}"
    url = make_conninfo(postgres.url(f"test_{uuid4().hex}"), user=name)
    connection.execute(f"create role {name} login")  # type: ignore[arg-type]
    settings = Settings(core=CoreSettings(database_url=url))
    with pytest.raises(DatabaseError, match="laion-etl db migrate"), open_database(settings):
        pass
    connection.execute(f"drop role {name}")  # type: ignore[arg-type]
    with pytest.raises(DatabaseError, match=f'role "{name}" does not exist'), database_errors(url):
        psycopg.connect(url)


def test_batches_of_crawls_under_way_keep_their_state_and_are_counted(postgres: EmbeddedServer) -> None:
    """As version 0.2 had them before score workers took batches from the queue."""
    url = postgres.url(f"test_{uuid4().hex}")
    stats = {"kept": 3, "dropped": {"timeout": 7}, "outputs": [{"bytes": 50}]}
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.transaction():
            connection.execute(query("connect.create_schema_migration"))
            connection.execute(query("connect.numbers"), {"leaves": "8", "key_ranges": "8"})
            for path in sorted(SQL.glob("0*.sql")):
                if path.stem < "012":
                    connection.execute(path.read_bytes())
                    connection.execute("insert into schema_migration (name) values (%s)", [path.stem])
        connection.execute("insert into crawl (crawl) values ('C')")
        for number, (state, recorded) in enumerate(
            [("ready", None), ("leased", None), ("done", stats), ("failed", None), ("leased", stats)]
        ):
            connection.execute(
                "insert into batch (batch, crawl_no, pairs, file, state, attempts, stats, error, "
                "lease_owner, claimed_at, updated_at) values (%s, 1, 10, '{}', %s, 2, %s, 'why', 'w', "
                "now() - interval '5 s', now())",
                [number, state, psycopg.types.json.Jsonb(recorded) if recorded else None],
            )
        assert migrate(connection, 8)[0] == "012_fleet"
        rows = connection.execute(
            "select state::text, attempts, download_attempts, stats is not null, download_ms, "
            "downloaded_at is null from batch order by batch"
        ).fetchall()
        assert rows == [
            ("ready", 2, 0, False, None, True),
            ("downloading", 2, 0, False, None, True),
            ("downloaded", 0, 2, True, 5_000, False),
            ("parked", 2, 0, False, None, True),
            ("downloading", 2, 0, False, None, True),
        ]
        counted = connection.execute(
            "select batches, done, failed, images, bytes, held_ms, scored from batch_count"
        ).fetchall()
        assert counted == [(5, 1, 1, 3, 50, 5_000, 0)]
        depth = connection.execute("select to_download, downloading, to_score, scoring from queue_depth")
        assert depth.fetchall() == [(1, 2, 1, 0)]

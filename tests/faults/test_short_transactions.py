"""Programs that work for long, wait for each other or are killed leave the database as if they had not."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from laion_etl.core.errors import DatabaseError
from laion_etl.core.stage_stats import StageStats
from laion_etl.database import conflicts, corrections, forget, key_ranges, polling, range_load
from laion_etl.database import connection as connections
from laion_etl.database.connection import Database, open_database
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.database.loaded import loaded_crawl
from laion_etl.database.locks import PLANNERS, HeldLocks, run_locked
from laion_etl.database.queries import query
from laion_etl.database.range_locks import take_ranges
from laion_etl.database.seen_keys import export_seen_keys, import_seen_keys
from laion_etl.io.storage import Guard, LocalStore
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import LoadSettings, PlanSettings, Settings
from tests.database.pairs import Pair, numbered_pairs, write_pairs
from tests.database.templates import copied

LIMIT_S = 240  # for a hang


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(params=["pair", "url"])
def by(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with one dedupe rule or the other; one connection, so that transactions have an order."""
    return replace(
        settings, load=LoadSettings(dedupe=request.param, connections=1), plan=PlanSettings(batch_size=7)
    )


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a large table has many of them."""
    monkeypatch.setattr(conflicts, "KEYS_PER_CHUNK", 9)
    monkeypatch.setattr(range_load, "PAIRS_PER_TRANSACTION", 9)
    monkeypatch.setattr(corrections, "PAIRS_PER_TRANSACTION", 9)
    monkeypatch.setattr(key_ranges, "_ROWS_PER_RANGE", 10)
    monkeypatch.setattr(forget, "_ROWS", 3)


def killed_after_each_transaction(
    action: Callable[[], object], runner: type[Database | HeldLocks] = Database
) -> int:
    """Runs an action until it succeeds, killed after its 1st, 2nd, ... transaction; returns how often."""
    run = runner.run
    for kills in range(1_000):
        left = [kills]

        def counted(*args: Any, left: list[int] = left, **keys: Any) -> Any:
            result = run(*args, **keys)
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "run", counted)
            try:
                action()
            except KilledError:
                continue
            return kills
    raise AssertionError("it never ends")


def contents(database: Database) -> list[Any]:
    """What partitions, pairs, pages and batches say, without numbers and times."""
    queries = (
        "select crawl, partition, url, caption, page_url from pair_text order by 1, 2, 3, 4",
        "select crawl, partition, fingerprint, planned, stats from partition join crawl using (crawl_no) "
        "order by 1, 2",
        "select distinct partition, url from page join partition using (partition_no) "
        "where (partition_no, page_no) in (select partition_no, page_no from pair) order by 1, 2",
        "select batch, pairs, file, state::text from batch order by 1",
    )
    return [database.connection.execute(text).fetchall() for text in queries]  # type: ignore[call-overload]


# Partition 1 is loaded first and loses to 0; those of 2 are new.
VERSIONS: list[tuple[int, list[Pair]]] = [
    (1, numbered_pairs(20, 60)),
    (0, numbered_pairs(0, 40)),
    (2, numbered_pairs(60, 80)),
]


def build(settings: Settings, store: LocalStore, database: Database, kill: bool) -> list[int]:
    """Loads, corrects and plans a crawl; returns how often each step was killed."""
    kills = []

    def step(action: Callable[[], object]) -> None:
        kills.append(killed_after_each_transaction(action) if kill else int(action() is None))

    for number, pairs in VERSIONS:
        write_pairs(store, "C", number, pairs)
        step(lambda number=number: load_partition("C", number, settings, store, database))
    write_pairs(store, "C", 0, numbered_pairs(5, 30))
    step(lambda: load_partition("C", 0, settings, store, database))
    step(lambda: plan_batches("C", settings, store, database))
    return kills


def test_killed_after_any_transaction_the_result_is_the_same(
    by: Settings, store: LocalStore, database: Database, tmp_path: Path, postgres: Any, migrated_template: str
) -> None:
    kills = build(by, store, database, kill=True)
    assert all(count > 5 for count in kills[:3])  # or it would prove nothing
    calm_store = LocalStore(tmp_path / "calm")
    url = copied(postgres, migrated_template, f"test_{uuid4().hex}")
    calm = replace(by, core=replace(by.core, database_url=url))
    with open_database(calm) as undisturbed:
        build(calm, calm_store, undisturbed, kill=False)
        assert contents(database) == contents(undisturbed)
    for name in calm_store.list("batches") + calm_store.list("load"):
        assert store.read(name) == calm_store.read(name)


def test_how_many_pairs_are_read_at_once_changes_no_byte(
    by: Settings, store: LocalStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(by, store, database, kill=False)
    batches = {name: store.read(name) for name in store.list("batches")}
    forget_crawl("C", by, store, database)
    monkeypatch.setattr(key_ranges, "_ROWS_PER_RANGE", 1_000_000)
    build(by, store, database, kill=False)
    assert {name: store.read(name) for name in store.list("batches")} == batches


def test_a_killed_load_goes_on_and_reads_only_its_own_pairs(
    by: Settings,
    store: LocalStore,
    database: Database,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pairs(store, "C", 1, numbered_pairs(0, 40))
    load_partition("C", 1, by, store, database)
    write_pairs(store, "D", 0, numbered_pairs(30, 90))  # loses pairs to the other crawl, and is not planned
    load_partition("D", 0, by, store, database)
    write_pairs(store, "C", 0, numbered_pairs(35, 140))
    killed = threading.Event()
    run = Database.run

    def kill_in_the_middle(database: Database, *args: Any) -> Any:
        result = run(database, *args)
        if connection.execute("select count(*) > 110 from pair").fetchone() == (True,):
            killed.set()
            raise KilledError
        return result

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Database, "run", kill_in_the_middle)
        load_partition("C", 0, by, store, database)
    assert killed.is_set()
    before = connection.execute("select ctid, tableoid, pair_id from pair where partition_no = 3").fetchall()
    assert before
    opened = []
    open_file = LocalStore.open
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "open", lambda self, name: opened.append(name) or open_file(self, name))
        assert load_partition("C", 0, by, store, database).kept == 55
    assert {name for name in opened if name.endswith(".parquet")} == {"pairs/C/part-00000.parquet"}
    after = connection.execute("select ctid, tableoid, pair_id from pair where partition_no = 3").fetchall()
    assert set(before) <= set(after), "what was written was not written again"


def test_a_correction_with_the_same_pairs_reads_no_other_partition(
    by: Settings, store: LocalStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file was made again, with one pair more."""
    write_pairs(store, "C", 0, numbered_pairs(0, 40))
    load_partition("C", 0, by, store, database)
    write_pairs(store, "C", 1, numbered_pairs(30, 60))
    load_partition("C", 1, by, store, database)
    write_pairs(store, "C", 0, numbered_pairs(0, 41))
    opened = []
    open_file = LocalStore.open
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "open", lambda self, name: opened.append(name) or open_file(self, name))
        assert load_partition("C", 0, by, store, database).kept == 41
    assert "pairs/C/part-00001.parquet" not in opened


def test_a_forget_killed_after_any_transaction_goes_on(
    by: Settings, store: LocalStore, database: Database, connection: Connection
) -> None:
    write_pairs(store, "D", 0, numbered_pairs(100, 120))
    load_partition("D", 0, by, store, database)
    plan_batches("D", by, store, database)
    left = contents(database)
    build(by, store, database, kill=False)
    kills = killed_after_each_transaction(lambda: forget_crawl("C", by, store, database), HeldLocks)
    assert kills > 5
    assert contents(database) == left
    assert connection.execute("select count(*) from pair").fetchone() == (20,)
    assert connection.execute("select count(*) from page").fetchone() == (1,)
    assert store.list("load/C") == []


def test_nothing_uses_a_crawl_that_is_half_forgotten(
    by: Settings, store: LocalStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(by, store, database, kill=False)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(forget, "_delete_pairs", lambda *_, **__: (_ for _ in ()).throw(KilledError))
        forget_crawl("C", by, store, database)
    assert loaded_crawl("C", store, database).partitions == frozenset()
    for use in (
        lambda: load_partition("C", 2, by, store, database),
        lambda: plan_batches("C", by, store, database),
    ):
        with pytest.raises(DatabaseError, match=r"cannot use C: it is being forgotten.*db forget --crawl C"):
            use()
    forget_crawl("C", by, store, database)
    build(by, store, database, kill=False)
    assert loaded_crawl("C", store, database).partitions == {0, 1, 2}


def test_an_import_killed_after_any_transaction_goes_on(
    store: LocalStore, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from laion_etl.database import seen_keys

    write_pairs(store, "C", 0, numbered_pairs(0, 50))
    load_partition("C", 0, settings, store, database)
    output, _ = export_seen_keys("all", settings, store, database)
    forget_crawl("C", settings, store, database)
    write_pairs(store, "C", 0, numbered_pairs(45, 60))
    load_partition("C", 0, settings, store, database)
    monkeypatch.setattr(seen_keys, "_KEYS_PER_GROUP", 8)
    done: list[StageStats] = []
    uri = str(tmp_path / "store" / output.name)
    assert killed_after_each_transaction(lambda: done.append(import_seen_keys(uri, settings, database))) > 5
    assert (done[0].kept, done[0].dropped) == (45, {"duplicate_of_earlier_crawl": 5})
    assert database.connection.execute("select count(*) from pair").fetchone() == (60,)


class Sleeper:
    """Stands for module time where programs wait: they sleep until they are woken."""

    def __init__(self) -> None:
        self.asleep = threading.Event()
        self.wake = threading.Event()

    def sleep(self, _: float) -> None:
        self.asleep.set()
        assert self.wake.wait(LIMIT_S)

    @property
    def module(self) -> SimpleNamespace:
        return SimpleNamespace(monotonic=time.monotonic, sleep=self.sleep)


def snapshots(connection: Connection) -> list[Any]:
    """Other clients of this database that hold back the removal of old rows."""
    return connection.execute(
        "select application_name, state, query from pg_stat_activity where datname = current_database() "
        "and pid <> pg_backend_pid() and backend_type = 'client backend' "
        "and (backend_xmin is not null or backend_xid is not null)"
    ).fetchall()


@contextmanager
def in_thread(settings: Settings, action: Callable[[Database], object]) -> Iterator[None]:
    """Runs an action beside the block and waits for its end."""

    def work() -> None:
        with open_database(settings) as database:
            action(database)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result(LIMIT_S)


def test_a_loader_that_waits_holds_no_snapshot_and_says_what_for(
    by: Settings,
    store: LocalStore,
    database: Database,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_pairs(store, "C", 7, numbered_pairs(0, 40))
    sleeper = Sleeper()
    monkeypatch.setattr(polling, "time", sleeper.module)
    monkeypatch.setattr(polling, "_LOG_AFTER_S", 0)

    def load(other: Database) -> None:
        load_partition("C", 7, by, store, other)

    with ExitStack() as stack:

        def hold(own: Connection) -> None:
            assert len(take_ranges(own, range(64), 64, "import of keys from somewhere")) == 64
            own.execute(query("locks.drop_snapshot"))
            stack.enter_context(in_thread(by, load))
            assert sleeper.asleep.wait(LIMIT_S)
            assert snapshots(connection) == []

        try:
            database.run(hold)
        finally:
            sleeper.wake.set()
    assert "load of partition 7 of C waits for laion_etl: import of keys from somewhere" in caplog.text
    assert connection.execute("select count(*) from pair").fetchone() == (40,)


class PausedStore(LocalStore):
    """Stops a planner when it has read pairs and writes its first batch file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reached = threading.Event()
        self.proceed = threading.Event()

    def create(self, name: str, guard: Guard | None = None) -> Any:
        if name.startswith("batches/") and name.endswith(".parquet"):
            self.reached.set()
            assert self.proceed.wait(LIMIT_S)
        return super().create(name, guard)


def pairs_of_batches(connection: Connection) -> list[int]:
    """The pairs of the batches of each round."""
    rows = connection.execute("select pairs from batch order by batch").fetchall()
    return [sum(pairs for (pairs,) in some) for some in (rows[:8], rows[8:])]  # of 50 pairs, and the others


def test_a_planner_at_work_holds_no_snapshot_and_its_pairs_are_final(
    by: Settings, store: LocalStore, database: Database, connection: Connection, tmp_path: Path
) -> None:
    write_pairs(store, "C", 1, numbered_pairs(0, 50))
    load_partition("C", 1, by, store, database)
    write_pairs(store, "C", 0, numbered_pairs(40, 60))  # a lower partition, which would get the pairs of both
    paused = PausedStore(tmp_path / "store")
    with in_thread(by, lambda other: plan_batches("C", by, paused, other)):
        try:
            assert paused.reached.wait(LIMIT_S)
            assert snapshots(connection) == []
            assert load_partition("C", 0, by, store, database).kept == 10
            write_pairs(store, "C", 1, numbered_pairs(0, 49))
            with pytest.raises(DatabaseError, match="cannot load partition 1 of C again"):
                load_partition("C", 1, by, store, database)
        finally:
            paused.proceed.set()
    # What was loaded meanwhile is planned after that, in batches of its own.
    assert pairs_of_batches(connection) == [50, 10]
    stats = plan_batches("C", by, store, database)
    assert (stats.input, stats.kept) == (60, 60)


def test_what_a_killed_planner_began_is_final_though_no_planner_is_at_work(
    by: Settings, store: LocalStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(store, "C", 1, numbered_pairs(0, 50))
    load_partition("C", 1, by, store, database)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr("laion_etl.plan.stage.record_window", lambda *_: (_ for _ in ()).throw(KilledError))
        plan_batches("C", by, store, database)
    assert database.connection.execute("select planning from partition").fetchall() == [(True,)]
    write_pairs(store, "C", 0, numbered_pairs(40, 60))
    assert load_partition("C", 0, by, store, database).kept == 10
    write_pairs(store, "C", 1, numbered_pairs(0, 30))
    with pytest.raises(DatabaseError, match="cannot load partition 1 of C again"):
        load_partition("C", 1, by, store, database)
    assert plan_batches("C", by, store, database).kept == 60
    assert pairs_of_batches(database.connection) == [50, 10]


def test_work_under_a_lost_lock_is_rolled_back_and_done_again(settings: Settings, database: Database) -> None:
    attempts = []

    def work(held: HeldLocks) -> None:
        attempts.append(held)

        def insert(connection: Connection) -> None:
            connection.execute("insert into crawl (crawl) values (%s)", [f"C{len(attempts)}"])
            if len(attempts) == 1:
                holders = "select pg_terminate_backend(pid, 60000) from pg_locks where locktype = 'advisory' "
                connection.execute(holders + "and classid = 2 and pid <> pg_backend_pid()")

        held.run(insert)

    run_locked(database, [PLANNERS], "a test", work)
    assert len(attempts) == 2
    assert database.connection.execute("select crawl from crawl").fetchall() == [("C2",)]


def test_hours_of_work_or_waiting_use_up_no_retry(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now_s[0], sleep=lambda _: None)
    attempts = []

    def action() -> str:
        attempts.append(now_s[0])
        database.rows("load.rule")
        now_s[0] += 7_200
        if len(attempts) < 4:
            raise psycopg.OperationalError("the connection was lost")
        return "done"

    monkeypatch.setattr(connections, "time", clock)
    assert database.with_retry(action) == "done"
    attempts.clear()
    monkeypatch.setattr(Database, "rows", lambda *_: [])  # nothing succeeds any more
    with pytest.raises(DatabaseError, match="the connection was lost"):
        database.with_retry(action)
    assert len(attempts) == 2

"""Outages of store and database: a download worker waits, spends no attempt and parks nothing."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psycopg
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import (
    DatabaseError,
    DatabaseOutageError,
    DatabaseRefusedError,
    InputError,
    MissingFileError,
    OutageError,
    StorageError,
    StoreOutageError,
    StoreRefusedError,
)
from laion_etl.core.outages import Outages
from laion_etl.core.schemas import batch_file_name
from laion_etl.database.connection import Database
from laion_etl.database.load import load_partition
from laion_etl.database.requeue import requeue
from laion_etl.download import stage as download_stage
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.storage import LocalStore, Store, open_store
from laion_etl.io.storage.errors import storage_errors
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import DatabaseSettings, DownloadSettings, PlanSettings, Settings
from tests.database.pairs import batch_no, numbered_pairs, write_pairs
from tests.flaky_s3 import Fault, FlakyS3, flaky_s3

NOWHERE = DownloadSettings(connect_to=("img.example=127.0.0.1:1",), timeout_s=2, decoders=1)


class FakeTime:
    """A clock that only sleeping moves; `at` is called when a time is reached."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.at: dict[float, Callable[[], None]] = {}

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for due in [due for due in self.at if due <= self.now_s]:
            self.at.pop(due)()


def planned(store: Store, settings: Settings, database: Database, batches: int = 3) -> None:
    """Batches of two links, which lead nowhere."""
    write_pairs(store, "C", 0, numbered_pairs(0, 2 * batches))
    load_partition("C", 0, settings, store, database)
    plan_batches("C", replace(settings, plan=PlanSettings(batch_size=2)), store, database)


def worker_of(store: Store, settings: Settings, database: Database, time: FakeTime) -> Worker:
    settings = replace(settings, download=NOWHERE)
    worker = Worker("C", settings, store, open_queue("C", settings, database))
    worker.outages = Outages(NOWHERE.outage_s, sleep=time.sleep, clock=time.clock)
    return worker


def states(database: Database) -> list[tuple[str, int, int]]:
    """State, attempts and number of the batches."""
    found = (
        "select state::text, attempts + download_attempts, count(*) from batch group by 1, 2 order by 1, 2"
    )
    return database.connection.execute(found).fetchall()


@pytest.fixture
def flaky(s3_endpoint: str) -> Iterator[FlakyS3]:
    with flaky_s3(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def flaky_store(flaky: FlakyS3) -> Store:
    bucket = f"flaky-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return open_store(f"s3://{bucket}/laion")


@pytest.mark.parametrize("fault", [Fault.EXPIRED_KEY, Fault.SLOW_DOWN, Fault.RESET])
def test_a_store_that_is_away_ends_the_worker_after_minutes_and_parks_nothing(
    fault: Fault, flaky: FlakyS3, flaky_store: Store, settings: Settings, database: Database
) -> None:
    planned(flaky_store, settings, database)
    flaky.share, flaky.faults = 1, [fault]
    time = FakeTime()
    with pytest.raises(StoreOutageError, match=r"cannot (read|look up)") as ended:
        worker_of(flaky_store, settings, database, time).run()
    assert ended.value.exit_code == 75
    assert states(database) == [("ready", 0, 3)]
    assert time.now_s == pytest.approx(NOWHERE.outage_s, abs=1)
    assert sum(flaky.spoiled.values()) < 1_000  # it backs off
    flaky.share = 0
    assert len(worker_of(flaky_store, settings, database, FakeTime()).run()) == 3
    assert states(database) == [("downloaded", 1, 3)]


def test_a_store_that_refuses_ends_the_worker_at_once_and_parks_nothing(
    flaky: FlakyS3, flaky_store: Store, settings: Settings, database: Database
) -> None:
    planned(flaky_store, settings, database)
    flaky.share, flaky.faults = 1, [Fault.ACCESS_DENIED]
    time = FakeTime()
    with pytest.raises(StoreRefusedError, match="access refused; check the AWS credentials") as ended:
        worker_of(flaky_store, settings, database, time).run()
    assert ended.value.exit_code == 2
    assert time.now_s == 0
    assert states(database) == [("ready", 0, 3)]


def test_a_store_that_is_back_within_minutes_costs_nothing(
    flaky: FlakyS3, flaky_store: Store, settings: Settings, database: Database
) -> None:
    planned(flaky_store, settings, database)
    flaky.share, flaky.faults = 1, [Fault.EXPIRED_KEY]
    time = FakeTime()

    def back() -> None:
        flaky.share = 0

    time.at[200] = back
    assert len(worker_of(flaky_store, settings, database, time).run()) == 3
    assert 200 <= time.now_s < 270
    assert states(database) == [("downloaded", 1, 3)]


def test_a_store_that_fails_while_the_shard_is_written_costs_no_download(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(store, settings, database, batches=1)
    time, fetched, full = FakeTime(), [], [True]
    time.at[100] = full.clear
    fetch, create = download_stage.download_pairs, LocalStore.create

    def counted(*arguments: Any) -> Any:
        fetched.append(1)
        return fetch(*arguments)

    def limited(self: LocalStore, name: str, *arguments: Any) -> Any:
        if full and name.endswith(".parquet"):
            raise StoreOutageError("cannot write: the disk is full")
        return create(self, name, *arguments)

    monkeypatch.setattr(download_stage, "download_pairs", counted)
    monkeypatch.setattr(LocalStore, "create", limited)
    assert len(worker_of(store, settings, database, time).run()) == 1
    assert fetched == [1]
    assert states(database) == [("downloaded", 1, 1)]


def test_a_database_that_is_away_for_a_while_costs_nothing(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(store, settings, database, batches=1)
    time = FakeTime()
    worker = worker_of(store, settings, database, time)
    run, away = worker.queue._database.run, [True]
    time.at[100] = away.clear

    def unreachable(*arguments: Any, **named: Any) -> Any:
        if away:
            raise DatabaseOutageError("cannot connect to Postgres")
        return run(*arguments, **named)

    monkeypatch.setattr(worker.queue._database, "run", unreachable)
    assert len(worker.run()) == 1
    assert states(database) == [("downloaded", 1, 1)]


def test_names_that_cannot_be_resolved_are_no_failure_of_the_batch(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(store, settings, database)

    def unresolved(*_: object) -> Any:
        raise OutageError("cannot resolve the hosts")

    monkeypatch.setattr(download_stage, "download_pairs", unresolved)
    with pytest.raises(OutageError, match="cannot resolve"):
        worker_of(store, settings, database, FakeTime()).run()
    assert states(database) == [("ready", 0, 3)]


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "other columns"])
def test_only_the_batch_whose_own_file_is_damaged_is_parked(
    damage: str, store: Store, settings: Settings, database: Database
) -> None:
    planned(store, settings, database)
    name = batch_file_name("C", batch_no(1))
    if damage == "absent":
        store.delete(name)
    else:
        cut = store.read(name)[: 500 if damage == "cut" else 0]
        store.write(name, store.read("pairs/C/part-00000.parquet") if damage == "other columns" else cut)
    time = FakeTime()
    with pytest.raises(
        InputError, match=rf"cannot download 1 batch\(es\) of C, first {batch_no(1)}: cannot read .*; run "
    ):
        worker_of(store, settings, database, time).run()
    assert time.now_s == 0
    assert states(database) == [("downloaded", 1, 2), ("parked", 3, 1)]


def test_a_missing_plan_is_not_blamed_on_its_batches(
    store: Store, settings: Settings, database: Database
) -> None:
    """A wrong LAION_ETL_STORE, or a folder that is not mounted, looks like this."""
    planned(store, settings, database)
    elsewhere = LocalStore(Path(store.uri()) / "elsewhere")
    with pytest.raises(MissingFileError, match=r"batches/C/_stats\.json: it does not exist"):
        worker_of(elsewhere, settings, database, FakeTime()).run()
    assert states(database) == [("ready", 0, 3)]


def test_patience_grows_with_jitter_and_is_full_again_after_a_unit() -> None:
    time, pauses = FakeTime(), []

    def fail() -> None:
        pauses.append(time.now_s)
        raise OutageError("down")

    outages = Outages(600, sleep=time.sleep, clock=time.clock)
    for _ in range(2):
        pauses.clear()
        began = time.now_s
        with pytest.raises(OutageError):
            outages.outlast(fail)
        assert time.now_s - began == pytest.approx(600, abs=1)
        between = [later - earlier for earlier, later in pairwise(pauses)]
        assert 1 <= between[0] <= 2.5
        assert max(between) <= 60.5
        assert len(set(between[6:-1])) > 1  # all are at the limit but for the jitter
        with pytest.raises(OutageError):
            outages.outlast(fail)
        outages.over()


def test_the_command_ends_with_the_exit_code_of_an_outage(settings: Settings, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "LAION_ETL_STORE": str(tmp_path / "store"),
        "LAION_ETL_DATABASE_URL": "postgresql://laion@127.0.0.1:1/laion",
    }
    command = [sys.executable, "-m", "laion_etl", "stage", "download", "--crawl", "C"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 75
    assert done.stderr.startswith("error: cannot connect to Postgres at 127.0.0.1:1")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"dbname": "not_there"}, DatabaseRefusedError),
        ({"user": "no_such_user"}, DatabaseRefusedError),
        ({"statement": "set role pg_monitor; create role other"}, DatabaseRefusedError),
        ({"host": "127.0.0.1", "port": "1"}, DatabaseOutageError),
        (
            {"statement": "set transaction read only; create table of_a_primary ()"},
            DatabaseOutageError,
        ),
        ({"statement": "select pg_terminate_backend(pg_backend_pid())"}, DatabaseOutageError),
        ({"statement": "set local statement_timeout = 10; select pg_sleep(60)"}, DatabaseError),
        ({"statement": "select 1/0"}, DatabaseError),
    ],
    ids=lambda value: str(value)[:60],
)
def test_which_errors_of_postgres_are_outages(
    settings: Settings, changes: dict[str, str], kind: type[DatabaseError]
) -> None:
    statement = changes.get("statement", "select 1")
    others = {name: value for name, value in changes.items() if name != "statement"}
    url = psycopg.conninfo.make_conninfo(settings.core.database_url, **others)
    database = Database(url, DatabaseSettings(retry_for_s=0))
    with pytest.raises(DatabaseError, match=r"cannot .*; ") as raised:
        database.run(lambda connection: connection.execute(statement))
    assert type(raised.value) is kind


def answer(code: str, status: int) -> ClientError:
    head: Any = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": head}, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer("SlowDown", 503), StoreOutageError),
        (answer("XMinioServerNotInitialized", 503), StoreOutageError),
        (answer("400", 400), StoreOutageError),  # HEAD with an expired key
        (EndpointConnectionError(endpoint_url="http://s3.example"), StoreOutageError),
        (OSError(errno.EIO, "Input/output error"), StoreOutageError),
        (OSError(errno.ENOSPC, "No space left on device"), StoreOutageError),
        (answer("AccessDenied", 403), StoreRefusedError),
        (answer("NoSuchBucket", 404), StoreRefusedError),
        (answer("InvalidAccessKeyId", 403), StoreRefusedError),
        (NoCredentialsError(), StoreRefusedError),
        (OSError(errno.EACCES, "Permission denied"), StoreRefusedError),
        (OSError(errno.EROFS, "Read-only file system"), StoreRefusedError),
        (answer("InvalidObjectState", 403), StorageError),
        (answer("SomethingNew", 400), StorageError),
        (OSError(errno.EISDIR, "Is a directory"), StorageError),
        (answer("NoSuchKey", 404), MissingFileError),
    ],
    ids=lambda value: str(value)[:60],
)
def test_which_errors_of_a_store_are_outages(error: Exception, kind: type[StorageError]) -> None:
    with (
        pytest.raises(StorageError, match="cannot read s3://b/x: ") as raised,
        storage_errors("read", "s3://b/x"),
    ):
        raise error
    assert type(raised.value) is kind


def test_a_missing_file_and_a_missing_bucket(any_store: Store, s3_endpoint: str) -> None:
    with pytest.raises(MissingFileError):
        any_store.read("x")
    with pytest.raises(StoreRefusedError, match="no such bucket; create it or check LAION_ETL_STORE"):
        open_store("s3://no-such-bucket-2/x").check()


def park(database: Database, batch: int, error: str) -> None:
    database.connection.execute(
        "update batch set state = 'parked', attempts = 3, error = %s where batch = %s", [error, batch]
    )


@pytest.fixture
def parked(store: Store, settings: Settings, database: Database) -> Database:
    """Three batches that an outage parked, and one with a damaged file."""
    planned(store, settings, database, batches=5)
    for batch in range(3):
        park(database, batch_no(batch), f"cannot read s3://b/batches/{batch}.parquet: Access refused")
    park(database, batch_no(3), "cannot read s3://b/batches/3.parquet: it is damaged")
    return database


REFUSED, DAMAGED = (
    f"cannot read s#://b/batches/#.parquet: {why}" for why in ("access refused", "it is damaged")
)


def test_requeue_brings_parked_batches_back_with_all_attempts(parked: Database) -> None:
    assert requeue("C", parked, dry_run=True) == {REFUSED: 3, DAMAGED: 1}
    assert states(parked) == [("parked", 3, 4), ("ready", 0, 1)]
    assert requeue("C", parked) == {REFUSED: 3, DAMAGED: 1}
    assert states(parked) == [("ready", 0, 5)]
    assert requeue("C", parked) == {}


@pytest.mark.parametrize("cause", ["access REFUSED", REFUSED])
def test_requeue_takes_those_of_one_cause(parked: Database, cause: str) -> None:
    assert requeue("C", parked, cause) == {REFUSED: 3}
    assert states(parked) == [("parked", 3, 1), ("ready", 0, 4)]


def test_requeue_takes_one_batch_and_says_when_it_is_not_parked(parked: Database) -> None:
    assert requeue("C", parked, batch=batch_no(1)) == {REFUSED: 1}
    with pytest.raises(InputError, match=rf"cannot requeue batch {batch_no(1)} of C: it is not parked"):
        requeue("C", parked, batch=batch_no(1))
    with pytest.raises(InputError, match="it is not parked by this cause"):
        requeue("C", parked, "refused", batch=batch_no(3))
    assert states(parked) == [("parked", 3, 3), ("ready", 0, 2)]


def test_requeue_works_page_by_page(parked: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laion_etl.database.requeue._PAGE", 2)
    assert requeue("C", parked) == {REFUSED: 3, DAMAGED: 1}


@pytest.mark.parametrize("words", [["db", "requeue"], ["requeue"]])
def test_the_command_requeue_counts_by_cause(
    words: list[str], parked: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAION_ETL_DATABASE_URL", settings.core.database_url)
    shown = CliRunner().invoke(app, [*words, "--crawl", "C", "--dry-run"])
    assert shown.stdout.splitlines() == [
        "4 parked batches of C would be ready again",
        f"        3 x {REFUSED}",
        f"        1 x {DAMAGED}",
    ]
    done = CliRunner().invoke(app, [*words, "--crawl", "C", "--cause", "refused", "--json"])
    expected = f'{{"crawl": "C", "batches": 3, "causes": {{"{REFUSED}": 3}}, "dry_run": false}}'
    assert done.stdout.splitlines() == [expected]
    assert states(parked) == [("parked", 3, 1), ("ready", 0, 4)]

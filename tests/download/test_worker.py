"""What a worker does when its lease is lost while it downloads."""

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError, SettingsError
from laion_etl.core.stage_stats import UNFINISHED, StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue, Claim
from laion_etl.download.earlier_result import Earlier
from laion_etl.download.shared_hosts import SharedHosts
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import DownloadSettings, Settings
from tests.database.pairs import batch_no, numbered_pairs, write_pairs

SECOND = StageStats("download", "C", "000000000", "the second worker's", 3, 2, {"dead": 1})


@pytest.fixture
def queue(store: Store, settings: Settings, database: Database) -> BatchQueue:
    """One batch of three links, which lead nowhere."""
    write_pairs(store, "C", 0, numbered_pairs(0, 3))
    load_partition("C", 0, settings, store, database)
    plan_batches("C", settings, store, database)
    return BatchQueue(database, crawl_number(database.connection, "C"), lease_s=60, max_attempts=3)


def overtaken(
    settings: Settings, store: Store, queue: BatchQueue, finish: Callable[[BatchQueue, Claim], object]
) -> Worker:
    """A worker that falls silent on its last link, when another one gets its batch."""

    def fall_silent(_: int, done: int, total: int) -> None:
        if done == total:
            queue._database.connection.execute("update batch set lease_expires = now() - interval '1 s'")
            claim = queue.claim_one(batch_no(0))
            assert claim is not None
            finish(queue, claim)

    nowhere = DownloadSettings(connect_to=("img.example=127.0.0.1:1",), timeout_s=2, decoders=1)
    return Worker("C", replace(settings, download=nowhere), store, queue, fall_silent)


def test_a_worker_that_lost_its_batch_writes_nothing(
    tmp_path: Path, store: Store, settings: Settings, queue: BatchQueue, caplog: pytest.LogCaptureFixture
) -> None:
    worker = overtaken(settings, store, queue, lambda queue, claim: queue.complete(claim, SECOND))
    with caplog.at_level(logging.WARNING):
        assert worker.run() == []
    assert f"another worker has batch {batch_no(0)}: the lease expired" in caplog.text
    assert LocalStore(tmp_path / "store").list("shards/") == []
    assert queue.counts().downloaded == 1
    rows = queue._database.connection.execute(
        "select stats ->> 'fingerprint', download_attempts from batch"
    ).fetchall()
    assert rows == [(SECOND.fingerprint, 2)]


def test_a_download_that_waits_for_a_silent_host_ends_once_its_batch_is_lost(
    store: Store, settings: Settings, queue: BatchQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def overtake(*_: object) -> None:
        with open_database(settings) as database:
            database.connection.execute("update batch set lease_expires = now() - interval '1 s'")
            other = open_queue("C", settings, database)
            claim = other.claim_one(batch_no(0))
            assert claim is not None
            assert other.complete(claim, SECOND)
        asked.set()

    beat = Worker._beat

    def overtaken_and_beat(*arguments: Any) -> None:
        overtake()
        beat(*arguments)

    monkeypatch.setattr(Worker, "_beat", overtaken_and_beat)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        limits = DownloadSettings(
            connect_to=(f"img.example=127.0.0.1:{port}",),
            first_byte_timeout_s=3_600,
            timeout_s=3_600,
            lease_s=1,
            decoders=1,
        )
        assert Worker("C", replace(settings, download=limits), store, queue).run() == []
    assert asked.is_set()
    assert store.list("shards/") == []


def test_asked_for_one_batch_it_says_that_it_was_taken_over(
    store: Store, settings: Settings, queue: BatchQueue
) -> None:
    worker = overtaken(settings, store, queue, lambda queue, claim: queue.complete(claim, SECOND))
    with pytest.raises(
        InputError,
        match=f"cannot finish batch {batch_no(0)} of C: another worker has it, because the lease expired",
    ):
        worker.run_one(batch_no(0))


def test_with_its_lease_it_writes(store: Store, settings: Settings, queue: BatchQueue) -> None:
    worker = overtaken(settings, store, queue, lambda *_: None)
    hosts = SharedHosts(queue._database, worker.settings.download)
    unhindered = replace(worker, on_progress=None, hosts=hosts)
    (stats,) = unhindered.run()
    (left,) = queue._database.connection.execute("select count(*) from live_downloader").fetchall()
    assert (hosts.workers, left) == (1, (0,))
    assert (stats.input, stats.kept) == (3, 0)
    assert sorted(store.list("shards/C/")) == [
        f"shards/C/{batch_no(0)}{end}" for end in (".parquet", ".tar", "_stats.json")
    ]


def test_images_deleted_after_scoring_are_fetched_again_on_request_only(
    store: Store, settings: Settings, queue: BatchQueue
) -> None:
    """Also when the database has forgotten the batch, or was restored from an older backup."""
    worker = replace(overtaken(settings, store, queue, lambda *_: None), on_progress=None)
    (stats,) = worker.run()
    stem, scored = f"shards/C/{batch_no(0)}", f"scored/C/{batch_no(0)}_stats.json"
    store.write_stats(scored, StageStats("score", "C", stats.unit, "f", 0, 0))
    store.delete(f"{stem}.tar")
    forgotten = "update batch set state = 'ready', stats = null"

    queue._database.connection.execute(forgotten)
    assert worker.run() == [stats]
    assert not store.exists(f"{stem}.tar")

    assert worker.run_one(batch_no(0)).input == 3
    assert store.exists(f"{stem}.tar")

    store.delete(f"{stem}.tar")
    store.write_stats(scored, StageStats("score", "C", stats.unit, UNFINISHED, 0, 0))
    queue._database.connection.execute(forgotten)
    worker.run()
    assert store.exists(f"{stem}.tar")


def test_a_shard_with_samples_is_replaced_by_an_empty_one_on_request_only(
    store: Store, settings: Settings, queue: BatchQueue, caplog: pytest.LogCaptureFixture
) -> None:
    worker = replace(overtaken(settings, store, queue, lambda *_: None), on_progress=None)
    stats_name = f"shards/C/{batch_no(0)}_stats.json"
    earlier = StageStats("download", "C", str(batch_no(0)), "other settings", 3, 2, {"dns_failed": 1})
    store.write_stats(stats_name, earlier)
    store.write(f"shards/C/{batch_no(0)}.tar", b"two samples")
    with pytest.raises(
        InputError,
        match=r"it has 2 samples, and no link could be fetched now, .* connect_failed; .*--allow-empty",
    ):
        worker.run_one(batch_no(0))
    assert "has a shard with 2 samples" in caplog.text
    assert store.read(f"shards/C/{batch_no(0)}.tar") == b"two samples"
    assert store.read_stats(stats_name) == earlier
    rows = queue._database.connection.execute("select state::text, attempts, stats from batch").fetchall()
    assert rows == [("ready", 0, None)], "as it was"

    assert worker.run_one(batch_no(0), allow_empty=True).kept == 0
    assert store.read_stats(stats_name).kept == 0
    caplog.clear()
    assert worker.run_one(batch_no(0)).kept == 0
    assert caplog.text == "", "its shard is whole"


@pytest.mark.parametrize(
    ("dropped", "stays"),
    [
        ({"opted_out_robots_txt": 2, "opted_out_tdm": 1, "blocked_hash": 1}, False),
        ({}, False),  # all were removed
        ({"opted_out_robots_txt": 2, "timeout": 1}, True),
        ({"robots_unreachable": 3}, True),
    ],
)
def test_images_that_owners_have_withdrawn_do_not_stay(dropped: dict[str, int], stays: bool) -> None:
    earlier = Earlier(StageStats("download", "C", "1", "f", 2, 2), may_be_emptied=False)
    assert earlier.stays(0, dropped) is stays


def test_allow_empty_is_for_a_single_batch() -> None:
    ended = CliRunner().invoke(app, ["stage", "download", "--crawl", "C", "--allow-empty"])
    assert isinstance(ended.exception, SettingsError)
    assert (
        str(ended.exception)
        == "cannot use --allow-empty: it needs --batch; name the batch, or leave --allow-empty out"
    )


@pytest.mark.parametrize("one", [False, True])
def test_interrupted_in_a_claim_it_gives_the_batch_back_at_no_cost(
    store: Store, settings: Settings, queue: BatchQueue, monkeypatch: pytest.MonkeyPatch, one: bool
) -> None:
    """SIGTERM comes when the database has recorded the claim and the worker does not know it yet."""
    name = "claim_one" if one else "claim"
    claim = getattr(queue, name)

    def interrupted(*arguments: int) -> None:
        assert claim(*arguments) is not None
        queue._held.clear()
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, name, interrupted)
    worker = Worker("C", settings, store, queue)
    with pytest.raises(KeyboardInterrupt):
        worker.run_one(batch_no(0)) if one else worker.run()
    rows = queue._database.connection.execute("select state::text, attempts from batch").fetchall()
    assert rows == [("ready", 0)]

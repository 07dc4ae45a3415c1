"""A download worker that is suspended while it writes, and wakes up after another took over its batch; and
two that race each other for a batch.

Two workers run in threads; each stops at one chosen moment and goes on when it is let. What they download
differs, so that files of one beside files of the other are noticed.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from laion_etl.core.funnel import DownloadStatus, Outcomes
from laion_etl.core.schemas import shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import Stop
from laion_etl.database.connection import Database, open_database
from laion_etl.database.load import load_partition
from laion_etl.download import stage as download_stage
from laion_etl.download.batch_downloader import Hooks
from laion_etl.download.hashes import Digests
from laion_etl.download.images import StoredImage
from laion_etl.download.shards import ShardWriter
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.score.shard_reader import shard_samples
from laion_etl.settings import Settings
from tests.database.pairs import batch_no, numbered_pairs, write_pairs
from tests.pausing_store import MOMENTS, pausing

STATS = f"{shard_stem('C', batch_no(0))}_stats.json"
LIMIT_S = 240  # for a hang


@pytest.fixture
def planned(any_store: Store, settings: Settings) -> Iterator[Database]:
    """One batch of four links."""
    with open_database(settings) as database:
        write_pairs(any_store, "C", 0, numbered_pairs(0, 4))
        load_partition("C", 0, settings, any_store, database)
        plan_batches("C", settings, any_store, database)
        yield database


@pytest.fixture(autouse=True)
def downloads_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each download finds other images, and more of them, than the one before."""
    number = count(1)

    def download(pairs: list[Any], _: object, shard: ShardWriter, hooks: Hooks, *__: object) -> Any:
        this, outcomes = next(number), Outcomes[DownloadStatus]()
        if (hang := HANGING.get(this)) is not None:
            hang(hooks)
        for index in range(len(pairs)):
            if index < this:
                data = f"image {index} of download {this}".encode()
                shard.add_image(
                    index, StoredImage(data, "jpg", 1, 1, 1, 1, None, None, None), Digests("", "")
                )
                outcomes.keep()
            else:
                shard.add_failure(index, DownloadStatus.HTTP_ERROR, f"in download {this}")
                outcomes.drop(DownloadStatus.HTTP_ERROR)
        return SimpleNamespace(outcomes=outcomes)

    monkeypatch.setattr(download_stage, "download_pairs", download)
    monkeypatch.setattr(download_stage, "_network", lambda *_: {})


HANGING: dict[int, Callable[[Hooks], None]] = {}  # what the n-th download waits for


class SuspendedWorker:
    """A worker in a thread, which stops once, at a moment."""

    def __init__(self, moment: str | None, settings: Settings, store: Store) -> None:
        self._moment = moment
        self._settings = settings
        self._store = pausing(store, self._reached)
        self._stopped_or_ended = threading.Event()
        self._woken = threading.Event()
        self._stop = Stop(grace_s=LIMIT_S)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.done: list[StageStats] = []
        self.ended_well = False

    def start(self) -> None:
        self._thread.start()

    def run_to_its_moment(self) -> None:
        self.start()
        assert self._stopped_or_ended.wait(LIMIT_S)

    def wake(self) -> None:
        """Until it ends; it claims no other batch."""
        self.let_go_on()
        self.wait()

    def let_go_on(self) -> None:
        self._stop.request()
        self._woken.set()

    def wait(self) -> None:
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        assert self.ended_well

    def _reached(self, moment: str) -> None:
        if moment == self._moment:
            self._moment = None
            self._stopped_or_ended.set()
            assert self._woken.wait(LIMIT_S)

    def _run(self) -> None:
        try:
            with open_database(self._settings) as database:
                queue = open_queue("C", self._settings, database)
                self.done = Worker("C", self._settings, self._store, queue, stop=self._stop).run()
                self.ended_well = True
        finally:
            self._stopped_or_ended.set()


def check(store: Store, database: Database) -> StageStats:
    """Postgres, stats and files must be of one download, and the score stage must accept them."""
    ((state, recorded),) = database.connection.execute("select state::text, stats from batch").fetchall()
    stats = store.read_stats(STATS)
    assert (state, StageStats.from_plain(recorded)) == ("downloaded", stats)
    samples = list(shard_samples(stats, store))
    assert len(samples) == stats.kept
    found = {sample.image[1].partition(b" of ")[2] for sample in samples if sample.image}
    assert found == {b"download %d" % stats.kept}
    assert sorted(store.list("shards")) == sorted([*(output.name for output in stats.outputs), STATS])
    return stats


@pytest.mark.parametrize("moment", MOMENTS)
def test_files_of_a_worker_that_wakes_up_late_are_not_the_result(
    moment: str, any_store: Store, settings: Settings, planned: Database
) -> None:
    late = SuspendedWorker(moment, settings, any_store)
    late.run_to_its_moment()
    planned.connection.execute("update batch set lease_expires = now() - interval '1 s'")
    queue = open_queue("C", settings, planned)
    (stats,) = Worker("C", settings, any_store, queue).run()
    late.wake()
    assert late.done == []
    assert check(any_store, planned) == stats
    # Stats that are written are a finished download; before that the second worker has to make its own.
    assert stats.kept == (1 if moment == MOMENTS[-1] else 2)


@pytest.mark.parametrize("second", [MOMENTS[2], MOMENTS[5], MOMENTS[7]])
@pytest.mark.parametrize("first", MOMENTS)
def test_a_worker_that_wakes_up_while_the_next_one_writes(
    first: str, second: str, store: Store, settings: Settings
) -> None:
    with open_database(settings) as database:
        write_pairs(store, "C", 0, numbered_pairs(0, 4))
        load_partition("C", 0, settings, store, database)
        plan_batches("C", settings, store, database)
        late = SuspendedWorker(first, settings, store)
        late.run_to_its_moment()
        database.connection.execute("update batch set lease_expires = now() - interval '1 s'")
        owner = SuspendedWorker(second, settings, store)
        owner.run_to_its_moment()
        late.wake()
        owner.wake()
        assert late.done == []
        assert [check(store, database)] == owner.done


def test_a_shard_of_which_a_killed_worker_replaced_a_part_is_downloaded_again(
    store: Store, settings: Settings
) -> None:
    """The stats of a former owner are there, but the tar is not the one they describe."""
    with open_database(settings) as database:
        write_pairs(store, "C", 0, numbered_pairs(0, 4))
        load_partition("C", 0, settings, store, database)
        plan_batches("C", settings, store, database)
        queue = open_queue("C", settings, database)
        worker = Worker("C", settings, store, queue)
        worker.run()
        store.write(f"{shard_stem('C', batch_no(0))}.tar", b"of a worker that was killed")
        assert worker.run_one(batch_no(0)).kept == 2
        check(store, database)
        assert worker.run_one(batch_no(0)).kept == 2  # nothing to do


@pytest.fixture
def raced(planned: Database) -> Database:
    """Batches of the crawl usually take a moment."""
    planned.connection.execute(
        "insert into batch (batch, crawl_no, pairs, file, state, stats, claimed_at) "
        "select 1, crawl_no, 1, '{}', 'scored', '{\"outputs\": []}', now() from crawl"
    )
    return planned


def begin_race(database: Database) -> None:
    """The batch has been held for an hour."""
    database.connection.execute("update batch set claimed_at = now() - interval '1 hour' where batch > 1")


def racing(
    moment: str, store: Store, settings: Settings, database: Database
) -> tuple[SuspendedWorker, SuspendedWorker]:
    """A worker that is suspended before it writes, and one that races it and is suspended at a moment."""
    slow = SuspendedWorker(MOMENTS[0], settings, store)
    slow.run_to_its_moment()
    begin_race(database)
    fast = SuspendedWorker(moment, settings, store)
    fast.run_to_its_moment()
    return slow, fast


def check_race(store: Store, database: Database) -> StageStats:
    attempts = database.connection.execute(
        "select attempts + download_attempts, error from batch where batch > 1"
    )
    assert attempts.fetchall() == [(1, None)]
    database.connection.execute("delete from batch where batch = 1")
    return check(store, database)


def test_a_worker_that_hangs_on_a_slow_host_stops_when_another_one_has_finished_the_batch(
    any_store: Store, settings: Settings, raced: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, over = threading.Event(), threading.Event()

    def hang(hooks: Hooks) -> None:
        hangs.set()
        while hooks.check is not None and not over.wait(0.02):
            hooks.check()

    monkeypatch.setitem(HANGING, 1, hang)
    # It looks for its lease every 1.5 s, and keeps it on a machine that lets it wait for four seconds.
    short = replace(settings, download=replace(settings.download, lease_s=6))
    slow = SuspendedWorker(None, short, any_store)
    slow.start()
    assert hangs.wait(LIMIT_S)
    begin_race(raced)
    try:
        (stats,) = Worker("C", settings, any_store, open_queue("C", settings, raced)).run()
        slow.wait()
    finally:
        over.set()
    assert slow.done == []
    assert check_race(any_store, raced) == stats
    assert stats.kept == 2


@pytest.mark.parametrize("first_to_go_on", ["slow", "fast", "both"])
def test_two_workers_that_finish_a_batch_at_the_same_moment(
    first_to_go_on: str, any_store: Store, settings: Settings, raced: Database
) -> None:
    """Both have downloaded it, and neither has asked whether it may write."""
    slow, fast = racing(MOMENTS[0], any_store, settings, raced)
    for worker in [slow, fast] if first_to_go_on != "fast" else [fast, slow]:
        worker.let_go_on()
        if first_to_go_on != "both":
            worker.wait()
    slow.wait()
    fast.wait()
    (stats,) = [*slow.done, *fast.done]
    assert check_race(any_store, raced) == stats
    if first_to_go_on != "both":
        assert stats.kept == (1 if first_to_go_on == "slow" else 2)


@pytest.mark.parametrize("moment", [MOMENTS[1], MOMENTS[4], MOMENTS[8]])
def test_a_worker_that_is_overtaken_before_it_writes(
    moment: str, any_store: Store, settings: Settings, raced: Database
) -> None:
    """It wakes up, and ends, while the other one writes."""
    slow, fast = racing(moment, any_store, settings, raced)
    slow.wake()
    fast.wake()
    assert slow.done == []
    assert [check_race(any_store, raced)] == fast.done

"""Score workers on a real queue: what they claim, wait for, give back, and never write."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from psycopg.types.json import Jsonb

from laion_etl.airflow.restarts import RESUMABLE
from laion_etl.core.errors import OutageError, SettingsError, StoreOutageError, StoreRefusedError
from laion_etl.core.ids import batch_name
from laion_etl.core.outages import Outages
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import Stop
from laion_etl.database.connection import Database, open_database
from laion_etl.database.polling import poll
from laion_etl.database.queries import query
from laion_etl.database.queue import BatchQueue, Claim, QueueCounts, QueueStage, queue_of
from laion_etl.database.requeue import requeue
from laion_etl.database.score_queue import ScoreQueue, score_queue_of
from laion_etl.dataset.missing_batches import Fault
from laion_etl.dataset.score_progress import read_score_progress
from laion_etl.dataset.scored import find_scored
from laion_etl.io.storage import Guard, LocalStore, NewFile, Store
from laion_etl.minicrawl.scenes import Scene
from laion_etl.score.claims import NothingDownloadedError
from laion_etl.score.group import score_queue
from laion_etl.score.queue_record import write_queue_record
from laion_etl.score.raw_shards import delete_raw_left
from laion_etl.score.stage import score_shards
from laion_etl.score.worker import ScoreWorker
from laion_etl.settings import Settings
from tests.pausing_store import MOMENTS, pausing
from tests.score.conftest import CRAWL, TINY, TOOLS, fitting, scored_files, write_shard

LIMIT_S = 300  # for a hang
STAR = Scene("red", "star", "beach", "two")
HEART = Scene("blue", "heart", "bricks", "single")


@dataclass
class World:
    """A crawl of which some batches are downloaded."""

    settings: Settings
    store: Store
    database: Database

    def queue(self) -> ScoreQueue:
        return score_queue_of(CRAWL, self.settings.download, self.database)

    def downloads(self) -> BatchQueue:
        return queue_of(CRAWL, self.settings.download, self.database, QueueStage.DOWNLOAD)

    def download(self, batch: int) -> None:
        claim = self.downloads().claim_one(batch)
        assert claim is not None
        self.finish(claim)

    def finish(self, claim: Claim) -> None:
        stats = write_shard(self.store, [fitting(STAR), fitting(HEART, seed=claim.batch)], claim.batch)
        assert self.downloads().complete(claim, stats)

    def worker(self, database: Database | None = None, **changes: Any) -> ScoreWorker:
        made = {"store": self.store, "tools": TOOLS} | changes
        return ScoreWorker(CRAWL, self.settings, database=database or self.database, **made)

    def states(self) -> list[tuple[int, str, int]]:
        rows = self.database.connection.execute(
            "select batch, state::text, attempts from batch order by batch"
        )
        return [tuple(row) for row in rows.fetchall()]

    def expire(self) -> None:
        self.database.connection.execute("update batch set lease_expires = now() - interval '1 s'")


@pytest.fixture
def world(settings: Settings, store: Store, database: Database) -> World:
    return three_batches(settings, store, database)


def three_batches(settings: Settings, store: Store, database: Database) -> World:
    """Three batches; the first two are downloaded."""
    database.connection.execute("insert into crawl (crawl) values (%s)", [CRAWL])
    for batch in (1, 2, 3):
        database.connection.execute(
            "insert into batch (batch, crawl_no, pairs, file) values (%s, 1, 4, %s)",
            [batch, Jsonb({"name": f"batches/{CRAWL}/{batch}.parquet", "bytes": 1, "sha256": "0"})],
        )
    # A worker that is stopped in a test still sends heartbeats, but not within the test.
    download = replace(settings.download, lease_s=36_000)
    made = World(replace(settings, clip=TINY, download=download), store, database)
    TOOLS.scorer(made.settings)  # loading it is not what threads are waited for
    made.download(1)
    made.download(2)
    return made


def park(world: World, batch: int, error: str = "cannot read its file") -> None:
    for _ in range(world.settings.download.max_attempts):
        claim = world.downloads().claim_one(batch)
        assert claim is not None
        world.downloads().fail(claim, error)


@contextmanager
def running(world: World, **changes: Any) -> Iterator[list[StageStats]]:
    """A worker in a thread; when the block and then the worker end, the list has what it has done."""
    done: list[StageStats] = []

    def run() -> None:
        with open_database(world.settings) as database:
            done.extend(world.worker(database, **changes).run())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield done
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_it_scores_while_batches_are_downloaded_and_ends_when_all_are_scored(
    world: World, tmp_path: Any
) -> None:
    last = world.downloads().claim()
    assert last is not None
    first_is_scored = threading.Event()
    with running(world, on_done=lambda _: first_is_scored.set()) as done:
        assert first_is_scored.wait(LIMIT_S)
        world.finish(last)
    assert [int(stats.unit) for stats in done] == [1, 2, 3]
    assert world.queue().counts() == QueueCounts(scored=3)
    ((began_before_the_end,),) = world.database.connection.execute(
        "select min(scored_at) < max(downloaded_at) from batch"
    ).fetchall()
    assert began_before_the_end
    alone = LocalStore(tmp_path / "alone")
    for batch in (1, 2, 3):
        write_shard(alone, [fitting(STAR), fitting(HEART, seed=batch)], batch)
    score_shards(CRAWL, [1, 2, 3], world.settings, alone, tools=TOOLS)
    assert scored_files(world.store) == scored_files(alone)


def test_without_download_workers_it_ends_and_can_go_on(world: World) -> None:
    with pytest.raises(
        NothingDownloadedError, match=r"no download worker has been at work for 0 s; start `laion-etl stage"
    ) as ended:
        world.worker(wait_s=0.0).run()
    assert ended.value.exit_code not in {0, *RESUMABLE}  # a new start does not bring download workers
    assert world.states() == [(1, "scored", 1), (2, "scored", 1), (3, "ready", 0)]


def test_parked_batches_are_not_waited_for_and_are_named_in_the_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(world, 3, "cannot read its file")
    world.worker().run()
    monkeypatch.setattr("laion_etl.database.score_queue._READ_AT_ONCE", 1)
    assert [int(batch) for batch, _ in world.queue().scored()] == [1, 2]
    missing = write_queue_record(CRAWL, world.queue(), world.store)
    assert [(one.batch, one.cause, one.error) for one in missing] == [
        (3, Fault.NOT_DOWNLOADED, "cannot read its file")
    ]
    record = read_score_progress(CRAWL, world.store)
    assert (record.units, record.input, record.missing, record.missing_count) == (2, 4, tuple(missing), 1)
    before = {name: world.store.read(name) for name in world.store.list("score")}
    write_queue_record(CRAWL, world.queue(), world.store)
    assert {name: world.store.read(name) for name in world.store.list("score")} == before


def test_a_damaged_shard_is_parked_with_its_cause_and_a_requeue_scores_it(world: World) -> None:
    park(world, 3)
    tar = f"shards/{CRAWL}/{batch_name(1)}.tar"
    good = world.store.read(tar)
    world.store.write(tar, good[:100])
    world.worker().run()
    attempts = world.settings.download.max_attempts
    assert world.states()[:2] == [(1, "parked", attempts), (2, "scored", 1)]
    (batch, error), *_ = world.queue().failed()
    assert (batch, error.partition(":")[0]) == (1, "damaged")
    counts = world.database.rows("status.downloads", {"crawl": CRAWL})[0]
    assert (counts[2], counts[8]) == (2, 1)  # it is downloaded, and only one is scored
    world.store.write(tar, good)
    requeue(CRAWL, world.database, batch=1)
    world.worker().run()
    assert [batch for batch, state, _ in world.states() if state == "scored"] == [1, 2]


def test_what_the_store_has_scored_already_is_only_recorded(world: World) -> None:
    """As after an upgrade: the queue of an earlier version does not know what is scored."""
    park(world, 3)
    score_shards(CRAWL, [1, 2], world.settings, world.store, tools=TOOLS)
    before = {name: world.store.uri(name) for name in world.store.list("scored")}
    broken = replace(TOOLS, preparers=lambda *_: pytest.fail("samples are decoded again"))
    for batch in (1, 2):  # made by an earlier version
        name = f"scored/{CRAWL}/{batch_name(batch)}_stats.json"
        stats = world.store.read_stats(name)
        details = {key: value for key, value in stats.details.items() if key != "scored_by"}
        world.store.write(name, replace(stats, details=details).to_json())
    done = world.worker(tools=broken).run()
    assert [int(stats.unit) for stats in done] == [1, 2]
    assert world.worker(tools=broken).run() == []
    assert {name: world.store.uri(name) for name in world.store.list("scored")} == before


def other_rules(world: World) -> World:
    return replace(world, settings=replace(world.settings, clip=replace(TINY, threshold_en=0.9)))


def test_two_kinds_of_workers_do_not_undo_each_other_s_work(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    last = world.downloads().claim()
    assert last is not None
    with pytest.raises(NothingDownloadedError):
        world.expire()
        world.worker(wait_s=0.0).run()
    before = world.queue().scored()
    world.finish(last)
    worker = other_rules(world).worker()
    worker.warn_of_others()
    (third,) = worker.run()
    assert "have scored 2 batches of CC-MAIN-TEST, which stay as they are" in caplog.text
    assert int(third.unit) == 3
    assert world.queue().scored() == [*before, (3, third.fingerprint)]


def test_other_settings_score_all_again_where_that_is_asked_for(world: World) -> None:
    park(world, 3)
    world.worker().run()
    before = world.queue().scored()
    worker = other_rules(world).worker()
    assert worker.score_again() == 2
    worker.run()
    assert worker.score_again() == 0
    after, totals = world.queue().scored(), world.queue().totals()
    assert [batch for batch, _ in after] == [1, 2]
    assert {made_by for _, made_by in before}.isdisjoint(made_by for _, made_by in after)
    assert totals.samples == 4
    assert sum(batch.kept for batch in find_scored(CRAWL, world.store).batches) == totals.kept


def test_the_queue_is_scored_again_only_where_that_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(world, 3)
    world.worker().run()
    monkeypatch.setattr("laion_etl.score.group.ScoreWorker", partial(ScoreWorker, tools=TOOLS))
    of = (CRAWL, other_rules(world).settings, world.store, world.database, Stop(0.0))
    assert score_queue(*of).scored == []
    assert [int(stats.unit) for stats in score_queue(*of, again=True).scored] == [1, 2]
    assert score_queue(*of, again=True).total == 3


def without_raw_shards(world: World) -> World:
    core = replace(world.settings.core, keep_raw_shards=False)
    return replace(world, settings=replace(world.settings, core=core))


def tars(world: World) -> list[str]:
    return [name for name in world.store.list("shards") if name.endswith(".tar")]


def test_raw_shards_go_once_they_are_scored_and_then_other_settings_are_refused(world: World) -> None:
    park(world, 3)
    world.worker().run()  # they are kept
    assert tars(world)
    gone = without_raw_shards(world)
    gone.worker().run()
    assert not tars(world)
    assert world.queue().totals().raw_deleted == 2
    before = scored_files(world.store)
    assert gone.worker().run() == []
    with pytest.raises(SettingsError, match=r"cannot score 2 batches again .* their images were deleted"):
        other_rules(gone).worker().score_again()
    assert other_rules(gone).worker().run() == []
    missing: list[Any] = []
    score_shards(CRAWL, [1], other_rules(gone).settings, world.store, tools=TOOLS, on_missing=missing.append)
    assert [(one.batch, one.cause) for one in missing] == [(1, Fault.IMAGES_DELETED)]
    assert scored_files(world.store) == before


class OutageOnce(LocalStore):
    """A store that cannot be written once."""

    failed = False

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        if name.startswith("scored/") and not self.failed:
            self.failed = True
            raise StoreOutageError("cannot write: the store is full; free space")
        with super().create(name, guard) as file:
            yield file


def test_an_outage_costs_no_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    park(world, 3)
    monkeypatch.setattr("laion_etl.core.outages._FIRST_PAUSE_S", 0.01)
    assert isinstance(world.store, LocalStore)
    store = OutageOnce(world.store.root)
    world.worker(store=store).run()
    assert store.failed
    assert world.states()[:2] == [(1, "scored", 1), (2, "scored", 1)]


def test_patience_begins_anew_with_each_result(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    park(world, 3)
    monkeypatch.setattr("laion_etl.core.outages._FIRST_PAUSE_S", 0.01)
    hours = [0.0]
    monkeypatch.setattr("laion_etl.score.worker.time", SimpleNamespace(monotonic=lambda: 3_600 * hours[0]))
    assert isinstance(world.store, LocalStore)

    class OutageAfterHours(LocalStore):
        """A store that cannot be written once, after hours of work."""

        @contextmanager
        def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
            if name.endswith(f"{batch_name(1)}.tar"):
                hours[0] += 10
            if name.endswith(f"{batch_name(2)}.tar") and hours[0] == 10:
                hours[0] += 0.1
                raise StoreOutageError("cannot write: the store is full; free space")
            with super().create(name, guard) as file:
                yield file

    world.worker(store=OutageAfterHours(world.store.root)).run()
    assert hours == [10.1]
    assert world.queue().counts() == QueueCounts(scored=2, parked=1)


def test_a_claim_that_an_outage_holds_up_takes_no_batch_from_the_work_that_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits for the database when the store fails too, and so the work begins anew."""
    park(world, 3)
    monkeypatch.setattr("laion_etl.core.outages._FIRST_PAUSE_S", 0.01)
    claim, pause = BatchQueue.claim, Outages.pause
    held_up, released, at_work_again, go_on = (threading.Event() for _ in range(4))
    threads: list[threading.Thread] = []
    claims: list[int] = []

    def claim_or_fail(queue: BatchQueue) -> Claim | None:
        claims.append(1)
        if len(claims) == 2:
            raise OutageError("cannot reach Postgres; wait")
        return claim(queue)

    def pause_here(outages: Outages, error: OutageError, lost_s: float = 0.0) -> None:
        if not threads and "Postgres" in str(error):
            threads.append(threading.current_thread())
            held_up.set()
            assert released.wait(LIMIT_S)
        pause(outages, error, lost_s)

    class Failing(OutageOnce):
        @contextmanager
        def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
            assert held_up.wait(LIMIT_S)
            with super().create(name, guard) as file:
                yield file

        def read_stats(self, name: str) -> StageStats:
            if self.failed and name.startswith("shards/") and not at_work_again.is_set():
                at_work_again.set()
                assert go_on.wait(LIMIT_S)
            return super().read_stats(name)

    monkeypatch.setattr(BatchQueue, "claim", claim_or_fail)
    monkeypatch.setattr(Outages, "pause", pause_here)
    assert isinstance(world.store, LocalStore)
    with running(world, store=Failing(world.store.root)) as done:
        assert at_work_again.wait(LIMIT_S)
        released.set()
        threads[0].join(LIMIT_S)
        assert world.states()[:2] == [(1, "scoring", 1), (2, "downloaded", 0)]
        go_on.set()
    assert [int(stats.unit) for stats in done] == [1, 2]


def test_a_worker_that_claims_its_own_lost_batch_again_scores_it_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(world, 3)
    monkeypatch.setattr("laion_etl.score.claims._LONGEST_POLL_S", 0.05)
    world.database.connection.execute("delete from batch where batch = 2")
    claim = BatchQueue.claim
    reached, again = threading.Event(), threading.Event()
    claims: list[Claim] = []

    def noted(queue: BatchQueue) -> Claim | None:
        found = claim(queue)
        if found is not None:
            claims.append(found)
        if len(claims) == 2:
            again.set()
        return found

    def stop_here(at: str) -> None:
        if at == MOMENTS[0] and not reached.is_set():
            reached.set()
            assert again.wait(LIMIT_S)

    monkeypatch.setattr(BatchQueue, "claim", noted)
    with running(world, store=pausing(world.store, stop_here)) as done:
        assert reached.wait(LIMIT_S)
        world.expire()
    assert [int(stats.unit) for stats in done] == [1]
    assert [(one.batch, one.token - claims[0].token) for one in claims] == [(1, 0), (1, 1)]
    assert world.queue().counts() == QueueCounts(scored=1, parked=1)


def test_a_result_counts_although_its_raw_shard_cannot_be_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(world, 3)
    monkeypatch.setattr("laion_etl.core.outages._FIRST_PAUSE_S", 0.01)

    class DeletingFails(LocalStore):
        def delete(self, name: str) -> None:
            raise StoreRefusedError(f"cannot delete {name}: no permission; change it")

    assert isinstance(world.store, LocalStore)
    reported: list[StageStats] = []
    with pytest.raises(StoreRefusedError):
        without_raw_shards(world).worker(store=DeletingFails(world.store.root), on_done=reported.append).run()
    assert [int(stats.unit) for stats in reported] == [batch for batch, _ in world.queue().scored()] == [1]


def test_raw_shards_that_are_left_are_deleted_page_by_page_until_a_shutdown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    park(world, 3)
    world.worker().run()
    monkeypatch.setattr("laion_etl.score.raw_shards._PAGE", 1)
    looks = iter([False, False, True])
    delete_raw_left(CRAWL, world.queue(), world.store, lambda: next(looks, True))
    assert len(tars(world)) == 1
    assert world.queue().totals().raw_deleted == 1
    delete_raw_left(CRAWL, world.queue(), world.store, lambda: False)
    assert world.queue().totals().raw_deleted == 2


def test_a_batch_cannot_be_downloaded_again_while_its_raw_shard_is_deleted(world: World) -> None:
    """Otherwise it would find the tar, record that it is there, and lose it a moment later."""
    world.download(3)
    world.worker().run()
    found: list[bool] = []

    def claim_by_hand() -> None:
        with open_database(world.settings) as database:
            assert queue_of(CRAWL, world.settings.download, database, QueueStage.DOWNLOAD).claim_one(1)
        found.append(world.store.exists(f"shards/{CRAWL}/{batch_name(1)}.tar"))

    by_hand = threading.Thread(target=claim_by_hand, daemon=True)

    def is_waiting(database: Database) -> bool:
        return bool(database.connection.execute("select from pg_locks where not granted").fetchall())

    class Slow(LocalStore):
        def delete(self, name: str) -> None:
            if not by_hand.ident and name.endswith(f"{batch_name(1)}.tar"):
                by_hand.start()
                with open_database(world.settings) as database:
                    while not is_waiting(database):
                        assert by_hand.is_alive()
            super().delete(name)

    assert isinstance(world.store, LocalStore)
    delete_raw_left(CRAWL, world.queue(), Slow(world.store.root), lambda: False)
    by_hand.join(LIMIT_S)
    assert found == [False]
    assert [state for _, state, _ in world.states()] == ["downloading", "scored", "scored"]


def test_asked_to_end_it_finishes_what_it_has_and_gives_the_rest_back(world: World) -> None:
    stop = Stop(grace_s=LIMIT_S)
    done = world.worker(stop=stop, on_done=lambda _: stop.request()).run()
    assert done
    left = {state for _, state, _ in world.states()}
    assert left <= {"scored", "downloaded", "ready"}
    assert all(attempts == 0 for _, state, attempts in world.states() if state != "scored")


def test_out_of_time_it_gives_everything_back(world: World) -> None:
    stop = Stop(grace_s=0.0)
    stop.request()
    worker = world.worker(stop=stop)
    assert worker.run() == []

    def ask_in_the_middle(*_: Any) -> Any:
        stop.request()
        return TOOLS.preparers(*_)

    stop = Stop(grace_s=-1.0)
    worker = world.worker(stop=stop, tools=replace(TOOLS, preparers=ask_in_the_middle))
    assert worker.run() == []
    assert world.states() == [(1, "downloaded", 0), (2, "downloaded", 0), (3, "ready", 0)]
    assert world.store.list("scored") == []


def test_a_batch_that_takes_another_worker_long_is_scored_by_the_one_that_is_idle(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The slow one has lost the race: that it finds the images deleted is not a fault of the batch."""
    park(world, 3)
    reached, woken = threading.Event(), threading.Event()

    class Slow(LocalStore):
        def open(self, name: str) -> BinaryIO:
            if name == f"shards/{CRAWL}/{batch_name(2)}.tar":
                reached.set()
                assert woken.wait(LIMIT_S)
            return super().open(name)

    assert isinstance(world.store, LocalStore)
    world.worker().run()
    expected = scored_files(world.store)
    for name in world.store.list("scored"):
        if batch_name(2) in name:
            world.store.delete(name)
    world.database.connection.execute(
        "update batch set state = 'downloaded', score_stats = null, attempts = 0 where batch = 2"
    )
    world = without_raw_shards(world)
    with running(world, store=Slow(world.store.root)) as slow:
        assert reached.wait(LIMIT_S)
        world.database.connection.execute(
            "update batch set claimed_at = now() - interval '1 hour', race_began = null where batch = 2"
        )
        done = world.worker().run()
        woken.set()
    assert [int(stats.unit) for stats in done] == [2]
    assert slow == []
    assert scored_files(world.store) == expected
    assert world.states() == [(1, "scored", 1), (2, "scored", 1), (3, "parked", 3)]
    assert world.queue().totals().raw_deleted == 2
    assert "is skipped" not in caplog.text


@pytest.mark.parametrize("rescored", [False, True])
def test_a_second_worker_that_has_only_begun_does_not_take_the_batch(rescored: bool, world: World) -> None:
    """Not even where scores by other rules are there, which both are about to replace."""
    park(world, 3)
    world.worker().run()
    world = other_rules(world)
    for name in world.store.list("scored"):
        if batch_name(2) in name and not rescored:
            world.store.delete(name)
    world.database.connection.execute(
        "update batch set state = 'downloaded', score_stats = null, attempts = 0 where batch = 2"
    )
    assert isinstance(world.store, LocalStore)
    root = world.store.root

    class Pausing(LocalStore):
        """Its worker has begun with the batch, and computed nothing."""

        def __init__(self) -> None:
            super().__init__(root)
            self.reached, self.woken = threading.Event(), threading.Event()

        @contextmanager
        def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
            if name.endswith(f"{batch_name(2)}.tar"):
                self.reached.set()
                assert self.woken.wait(LIMIT_S)
            with super().create(name, guard) as file:
                yield file

    stores = Pausing(), Pausing()
    owned = "select token from batch where batch = 2"
    with ExitStack() as workers:
        first = workers.enter_context(running(world, store=stores[0]))
        for store in stores:
            workers.callback(store.woken.set)
        assert stores[0].reached.wait(LIMIT_S)
        world.database.connection.execute(
            "update batch set claimed_at = now() - interval '1 hour', race_began = null where batch = 2"
        )
        before = world.database.connection.execute(owned).fetchall()
        second = workers.enter_context(running(world, store=stores[1]))
        assert stores[1].reached.wait(LIMIT_S)
        assert world.database.connection.execute(owned).fetchall() == before
        stores[0].woken.set()
        poll(lambda: world.queue().counts().scored == 2 or None, lambda: "the first one", "the test")
        stores[1].woken.set()
    assert ([int(stats.unit) for stats in first], second) == ([2], [])
    assert world.store.read_stats(f"scored/{CRAWL}/{batch_name(2)}_stats.json") == first[0]
    assert world.states() == [(1, "scored", 1), (2, "scored", 1), (3, "parked", 3)]


@pytest.mark.parametrize("rescored", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_that_wakes_up_late_leaves_and_replaces_nothing(
    moment: str, rescored: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is suspended while it writes; another worker takes over its batch and finishes it first."""
    park(world, 3)
    world.database.connection.execute("delete from batch where batch = 2")
    if rescored:
        world.worker().run()
        world = other_rules(world)
        world.worker().score_again()
    reached, woken = threading.Event(), threading.Event()

    def stop_here(at: str) -> None:
        if at == moment and not reached.is_set():
            reached.set()
            assert woken.wait(LIMIT_S)

    claim = BatchQueue.claim
    owners: list[object] = []

    def claim_unless_stopped(queue: BatchQueue) -> Claim | None:
        """All threads of a process that is stopped are: the first one to claim here claims nothing more."""
        owner = queue._keys["owner"]
        owners.append(owner)
        if len(owners) > 1 and owner == owners[0]:
            assert woken.wait(LIMIT_S)
        return claim(queue)

    monkeypatch.setattr(BatchQueue, "claim", claim_unless_stopped)
    with running(world, store=pausing(world.store, stop_here)) as late:
        assert reached.wait(LIMIT_S)
        world.expire()
        (stats,) = world.worker().run()
        expected = scored_files(world.store)
        woken.set()
    assert late == []
    assert scored_files(world.store) == expected
    ((recorded,),) = world.database.connection.execute(
        "select score_stats from batch where batch = 1"
    ).fetchall()
    assert json.loads(json.dumps(recorded)) == json.loads(stats.to_json())
    assert [(batch, state) for batch, state, _ in world.states()] == [(1, "scored"), (3, "parked")]


def test_claims_and_results_of_a_thousand_batches_stay_cheap(world: World) -> None:
    """The queries of each claim do not read batches that are done."""
    connection = world.database.connection
    connection.execute(
        "insert into batch (batch, crawl_no, pairs, file, state) select n, 1, 1, '{}', 'scored' "
        "from generate_series(1000, 3000) as n"
    )
    connection.execute("analyze batch")
    left = connection.execute("explain (analyze) select * from queue_depth").fetchall()
    assert not [line for (line,) in left if "Seq Scan on batch " in line and "rows=2" in line]
    assert connection.execute("select to_download, to_score, scoring from queue_depth").fetchall() == [
        (1, 2, 0)
    ]


@pytest.mark.parametrize("name", ["queue.scored", "queue.scored_otherwise"])
def test_what_a_worker_asks_for_at_its_beginning_and_end_reads_no_rows(name: str, world: World) -> None:
    """The rows of 300,000 batches have long stats."""
    keys = {"crawl_no": 1, "scored_by": "x", "after": -1, "rows": 10}
    connection = world.database.connection
    connection.execute("set enable_seqscan to off")
    connection.execute("set enable_bitmapscan to off")
    plan = connection.execute("explain " + query(name), keys).fetchall()
    assert [line for (line,) in plan if "Index Only Scan" in line], plan

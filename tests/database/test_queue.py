import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import Any

import pytest
from psycopg import Connection

from laion_etl.core.errors import DatabaseOutageError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.interrupts import uninterrupted
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue, Claim, QueueCounts, QueueStage
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import PlanSettings, Settings
from tests.database.interrupted import interrupted_at
from tests.database.lost_answers import answers_lost
from tests.database.pairs import batch_no, batch_nos, numbered_pairs, write_pairs

DAY_S = 86_400
DONE = StageStats("download", "C", "0", "f", 0, 0)


@pytest.fixture
def queue(store: Store, database: Database, settings: Settings) -> Iterator[BatchQueue]:
    """Four batches of ten pairs; a lease of a minute, two attempts."""
    write_pairs(store, "C", 0, numbered_pairs(0, 40))
    load_partition("C", 0, settings, store, database)
    plan_batches("C", replace(settings, plan=PlanSettings(batch_size=10)), store, database)
    yield BatchQueue(database, crawl_number(database.connection, "C"), lease_s=60, max_attempts=2)


def expire_leases(connection: Connection) -> None:
    connection.execute("update batch set lease_expires = now() - interval '1 s' where state = 'downloading'")


def claimed(queue: BatchQueue) -> Claim:
    claim = queue.claim()
    assert claim is not None
    return claim


def test_batches_are_claimed_in_order_and_only_once(queue: BatchQueue) -> None:
    assert [claimed(queue).batch for _ in range(4)] == batch_nos(4)
    assert queue.claim() is None
    assert queue.counts() == QueueCounts(downloading=4)


def test_many_workers_never_share_a_batch(queue: BatchQueue, settings: Settings) -> None:
    def work(_: int) -> list[int]:
        done = []
        with open_database(settings) as database:
            mine = BatchQueue(database, crawl_number(database.connection, "C"), 60, 2)
            while claim := mine.claim():
                done.append(claim.batch)
                assert mine.complete(claim, DONE)
        return done

    with ThreadPoolExecutor(8) as pool:
        batches = [batch for done in pool.map(work, range(8)) for batch in done]
    assert sorted(batches) == batch_nos(4)
    assert queue.counts() == QueueCounts(downloaded=4)


def test_an_expired_lease_is_claimable_and_its_late_owner_is_refused(
    queue: BatchQueue, connection: Connection
) -> None:
    late = claimed(queue)
    expire_leases(connection)
    second = claimed(queue)
    assert second.batch == late.batch
    assert second.token > late.token
    assert not queue.heartbeat(late)
    assert not queue.complete(late, DONE)
    assert not queue.fail(late, "too late")
    assert queue.complete(second, DONE)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_worker_whose_clock_is_wrong_neither_loses_nor_takes_a_batch(
    queue: BatchQueue, connection: Connection, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Leases are by the clock of the database."""
    held = claimed(queue)
    shift_clock(monkeypatch, days * DAY_S)
    others = [claimed(queue).batch for _ in range(3)]
    assert others == batch_nos(4)[1:]
    assert queue.claim() is None
    assert queue.race() is None
    expiry_s = queue.next_expiry_s()
    assert expiry_s is not None
    assert 0 < expiry_s <= 60
    assert queue.heartbeat(held)
    queue.hold(held)
    assert queue.complete(held, DONE)
    late = queue.claim_one(others[0])
    assert late is None
    expire_leases(connection)
    assert claimed(queue).batch == others[0]


def shift_clock(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    """From now on the clock of this process is wrong, as after a jump; the monotonic one goes on."""
    right, right_ns = time.time, time.time_ns

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Shifted":
            return cls.fromtimestamp(right() + by_s, tz)

    monkeypatch.setattr(time, "time", lambda: right() + by_s)
    monkeypatch.setattr(time, "time_ns", lambda: right_ns() + int(by_s * 1e9))
    monkeypatch.setattr("datetime.datetime", Shifted)


def test_a_heartbeat_keeps_the_lease(queue: BatchQueue, connection: Connection) -> None:
    claim = claimed(queue)
    connection.execute("update batch set lease_expires = now() + interval '1 s' where state = 'downloading'")
    assert queue.heartbeat(claim)
    expiry_s = queue.next_expiry_s()
    assert expiry_s is not None
    assert 50 < expiry_s <= 60


def test_a_failing_batch_is_tried_again_and_then_parked_with_its_error(queue: BatchQueue) -> None:
    assert queue.fail(claimed(queue), "first")
    assert queue.counts().ready == 4
    assert queue.fail(claimed(queue), "disk full")
    assert queue.failed() == [(batch_no(0), "disk full")]
    assert claimed(queue).batch == batch_no(1)


def test_a_batch_whose_workers_all_go_silent_is_parked(queue: BatchQueue, connection: Connection) -> None:
    for _ in range(2):
        claim = queue.claim_one(batch_no(0))
        assert claim is not None
        expire_leases(connection)
    assert claimed(queue).batch == batch_no(1)
    assert queue.failed() == [(batch_no(0), "its worker stopped sending heartbeats on every attempt")]


def test_a_clean_stop_costs_no_attempt(queue: BatchQueue) -> None:
    for _ in range(5):
        claim = queue.claim_one(batch_no(0))
        assert claim is not None
        assert queue.release(claim)
    assert queue.counts() == QueueCounts(ready=4)


def test_a_certain_batch_can_be_claimed_unless_held(queue: BatchQueue) -> None:
    first = queue.claim_one(batch_no(2))
    assert first is not None
    assert queue.claim_one(batch_no(2)) is None
    assert queue.complete(first, DONE)
    again = queue.claim_one(batch_no(2))
    assert again is not None
    assert queue.claim_one(99) is None


def asked_for(queue: BatchQueue) -> Claim:
    claim = queue.claim_one(batch_no(0))
    assert claim is not None
    return claim


def scored(queue: BatchQueue, scoring: BatchQueue) -> None:
    queue.complete(asked_for(queue), DONE)
    scoring.complete(claimed(scoring), DONE)


def parked_in_scoring(queue: BatchQueue, scoring: BatchQueue) -> None:
    queue.complete(asked_for(queue), DONE)
    for _ in range(2):
        scoring.fail(claimed(scoring), "no memory")


@pytest.mark.parametrize(
    ("before", "state"),
    [
        (lambda queue, _: queue.fail(asked_for(queue), "disk full"), "ready"),
        (lambda queue, _: [queue.fail(asked_for(queue), "disk full") for _ in range(2)], "parked"),
        (lambda queue, _: queue.complete(asked_for(queue), DONE), "downloaded"),
        (scored, "scored"),
        (parked_in_scoring, "parked"),
    ],
    ids=("ready", "parked", "downloaded", "scored", "parked in scoring"),
)
def test_a_batch_that_is_put_back_is_what_it_was(
    queue: BatchQueue, connection: Connection, before: Callable[[BatchQueue, BatchQueue], object], state: str
) -> None:
    scoring = BatchQueue(queue._database, crawl_number(connection, "C"), 60, 2, QueueStage.SCORE)
    before(queue, scoring)
    was = everything(connection)
    assert was[0][0]["state"] == state
    assert queue.put_back(asked_for(queue))
    assert everything(connection) == was


def test_a_batch_whose_worker_was_lost_is_put_back_for_another_one(
    queue: BatchQueue, connection: Connection
) -> None:
    asked_for(queue)
    expire_leases(connection)
    assert queue.put_back(asked_for(queue))
    assert queue.counts() == QueueCounts(ready=4)
    assert attempts(connection) == [1, 0, 0, 0]


def test_a_batch_is_put_back_also_if_the_answer_to_its_claim_was_lost(
    queue: BatchQueue, connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queue.complete(asked_for(queue), DONE)
    was = everything(connection)
    with answers_lost(database, monkeypatch), pytest.raises(DatabaseOutageError):
        asked_for(queue)
    assert queue.put_back(asked_for(queue))
    assert everything(connection) == was


def everything(connection: Connection) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What is known of the first batch but for its claims, and the counts of all."""
    one = connection.execute(
        "select to_jsonb(one) - array['token', 'lease_expires', 'claimed_at'] from batch as one"
        " where batch = %s",
        [batch_no(0)],
    ).fetchone()
    counts = connection.execute("select * from batch_count").fetchone()
    assert one is not None
    assert counts is not None
    return one, counts


def test_a_claim_whose_answer_an_outage_lost_is_found_by_the_next(
    queue: BatchQueue, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answers_lost(database, monkeypatch), pytest.raises(DatabaseOutageError):
        queue.claim()
    assert claimed(queue).batch == batch_no(0)
    assert queue.counts() == QueueCounts(ready=3, downloading=1)
    assert claimed(queue).batch == batch_no(1)


def test_a_repeated_claim_does_not_return_a_batch_whose_result_is_being_recorded(
    queue: BatchQueue, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = claimed(queue)
    run = database.run
    with open_database(settings) as another:
        other = queue.through(another)
        found: list[Claim | None] = []

        def recorded_meanwhile(*work: object) -> object:
            found.append(other.claim())
            return run(*work)  # type: ignore[arg-type]

        with answers_lost(another, monkeypatch), pytest.raises(DatabaseOutageError):
            other.claim()
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(database, "run", recorded_meanwhile)
            assert queue.complete(first, DONE)
    assert [one.batch for one in found if one is not None] == [batch_no(1)]


def outage(connection: Connection) -> None:
    """No worker has reached the queue for ten minutes, and all leases ended meanwhile."""
    connection.execute("update queue_contact set seen_at = now() - interval '10 min'")
    connection.execute(
        "update batch set lease_expires = now() - interval '8 min' where state = 'downloading'"
    )


def end_of_silence(queue: BatchQueue, connection: Connection) -> None:
    """A worker reaches the queue, and the time that the others have to come back passes."""
    queue.heartbeat(Claim(0, 0, Output("", 0, "")))
    connection.execute("update queue_contact set silent_to = silent_to - interval '31 s'")


def attempts(connection: Connection) -> list[int]:
    rows = connection.execute("select attempts + download_attempts from batch order by batch").fetchall()
    return [count for (count,) in rows]


def test_workers_keep_their_batches_through_an_outage_of_the_database(
    queue: BatchQueue, connection: Connection
) -> None:
    claims = [claimed(queue) for _ in range(3)]
    outage(connection)
    assert claimed(queue).batch == batch_no(3)  # not one of a worker that has had no time to come back
    assert queue.claim() is None
    assert queue.claim_one(claims[0].batch) is None
    wait_s = queue.next_expiry_s()
    assert wait_s is not None
    assert 25 < wait_s <= 30
    assert all(queue.heartbeat(claim) for claim in claims)
    end_of_silence(queue, connection)
    assert queue.claim() is None
    assert all(queue.complete(claim, DONE) for claim in claims)
    assert attempts(connection) == [1, 1, 1, 1]


def test_batches_whose_workers_an_outage_ended_are_claimed_at_no_cost(
    queue: BatchQueue, connection: Connection
) -> None:
    for claim in (queue.claim, lambda: queue.claim_one(batch_no(0)), queue.claim):  # of two attempts
        taken = claim()
        assert taken is not None
        assert taken.batch == batch_no(0)
        outage(connection)
        end_of_silence(queue, connection)
    assert claimed(queue).batch == batch_no(0)
    assert queue.failed() == []
    assert attempts(connection) == [1, 0, 0, 0]


def test_a_batch_that_ends_the_only_worker_each_time_is_parked(
    queue: BatchQueue, connection: Connection
) -> None:
    """For the database, a crawl whose only worker died is the same as an outage."""
    connection.execute("delete from batch where batch > %s", [batch_no(0)])
    claims = 0
    while queue.claim() is not None and claims < 20:
        claims += 1
        outage(connection)
        end_of_silence(queue, connection)
    assert claims == 12
    assert [batch for batch, _ in queue.failed()] == [batch_no(0)]


def test_an_earlier_outage_does_not_excuse_a_batch_whose_worker_is_lost(
    queue: BatchQueue, connection: Connection
) -> None:
    outage(connection)
    claim = claimed(queue)
    connection.execute("update queue_contact set silent_to = now() - interval '31 s'")
    expire_leases(connection)
    assert claimed(queue).batch == claim.batch
    assert attempts(connection) == [2, 0, 0, 0]


def test_interrupted_anywhere_in_a_claim_the_worker_returns_what_it_holds(queue: BatchQueue) -> None:
    """A signal may come at any line; psycopg itself recovers from it only where it waits."""
    line = 1
    while interrupted_at(line, queue.claim):
        queue.release_all()
        line += 1
    assert line > 100
    queue.release_all()
    rows = queue._database.connection.execute("select distinct state::text, attempts from batch").fetchall()
    assert rows == [("ready", 0)]


def test_a_second_interrupt_does_not_keep_a_batch_from_being_returned(queue: BatchQueue) -> None:
    """People press Ctrl-C more than once."""
    line = 1
    interrupted = True
    while interrupted:
        claimed(queue)
        interrupted = interrupted_at(line, queue.release_at_the_end)
        held = "select count(*) from batch where lease_owner is not null"
        assert queue._database.connection.execute(held).fetchone() == (0,)
        line += 1
    assert line > 100


def test_more_interrupts_wait_for_the_end_of_the_block() -> None:
    noted, done = [], []

    def work() -> None:
        with uninterrupted(lambda: noted.append(1)):
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            done.append(1)
            raise DatabaseOutageError("no answer")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (noted, done) == ([1], [1])
    assert isinstance(raised.value.__cause__, DatabaseOutageError)


def test_interrupts_end_what_takes_too_long(queue: BatchQueue) -> None:
    reached = False
    handlers = []

    def hang() -> None:
        nonlocal reached
        with uninterrupted(longest_s=0):
            signal.raise_signal(signal.SIGINT)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:  # more of them find it so, at any line
                handlers.append(signal.getsignal(signal.SIGINT))
            reached = True

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            hang()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not reached
    assert handlers == [signal.default_int_handler]


def test_interrupted_anywhere_in_a_copy_the_connection_can_be_used_again(database: Database) -> None:
    def copy(connection: Connection) -> None:
        connection.execute("create temporary table if not exists copied (number int)")
        with connection.cursor().copy("copy copied from stdin") as rows:
            rows.write_row([1])

    line = 1
    while interrupted_at(line, lambda: database.run(copy)):
        assert database.run(lambda connection: connection.execute("select 1").fetchone()) == (1,)
        line += 1
    assert line > 100

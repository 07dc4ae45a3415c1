"""Races for the last batches: two workers are at work on one, and the first that writes has it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier

import pytest
from psycopg import Connection

from laion_etl.core.errors import DatabaseOutageError
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.stopping import LeaseLost
from laion_etl.database.connection import Database
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue, Claim, QueueCounts
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import PlanSettings, Settings
from tests.database.lost_answers import answers_lost
from tests.database.pairs import batch_no, numbered_pairs, write_pairs

DONE = StageStats("download", "C", "0", "f", 0, 0)
LONG_AGO = (
    "update batch set claimed_at = now() - interval '10 min', race_began = null where state = 'downloading'"
)


@dataclass(frozen=True)
class Race:
    """Two batches: one took a few milliseconds, and the other one is held by a worker. Two attempts."""

    connection: Connection
    slow: BatchQueue
    fast: BatchQueue
    held: Claim

    def begin(self) -> Claim:
        """The other worker has waited for ten minutes."""
        self.connection.execute(LONG_AGO)
        claim = self.fast.race()
        assert claim is not None
        assert claim.batch == self.held.batch
        return claim

    def expire(self) -> None:
        self.connection.execute("update batch set lease_expires = now() - interval '1 s'")

    def expire_race(self) -> None:
        self.connection.execute("update batch set race_expires = now() - interval '1 s'")

    def row(self) -> tuple[str, int]:
        """State of the batch, and attempts in all."""
        rows = self.connection.execute(
            "select state::text, attempts + download_attempts from batch where batch = %s", [self.held.batch]
        )
        ((state, attempts),) = rows.fetchall()
        return state, attempts


@pytest.fixture
def race(store: Store, database: Database, settings: Settings) -> Iterator[Race]:
    write_pairs(store, "C", 0, numbered_pairs(0, 20))
    load_partition("C", 0, settings, store, database)
    plan_batches("C", replace(settings, plan=PlanSettings(batch_size=10)), store, database)
    with database.another() as other:
        slow, fast = (BatchQueue(one, crawl_number(one.connection, "C"), 60, 2) for one in (database, other))
        first, held = slow.claim(), slow.claim()
        assert first is not None
        assert held is not None
        assert slow.complete(first, DONE)
        yield Race(database.connection, slow, fast, held)


def test_only_a_batch_that_takes_much_longer_than_usual_is_raced_and_by_one_worker(race: Race) -> None:
    assert race.fast.claim() is None
    assert race.fast.race() is None
    race.connection.execute("update batch set download_ms = 400_000 where state = 'downloaded'")
    race.connection.execute(LONG_AGO)
    assert race.fast.race() is None  # for the latest batch took nearly seven minutes
    race.connection.execute("update batch set download_ms = 200_000 where state = 'downloaded'")
    assert race.slow.race() is None  # its own
    assert race.begin().batch == batch_no(1)
    assert race.fast.race() is None


def test_before_any_batch_is_done_it_is_not_known_what_is_usual(race: Race) -> None:
    race.connection.execute("delete from batch where state = 'downloaded'")
    race.connection.execute(LONG_AGO)
    assert race.fast.race() is None


@pytest.mark.parametrize("second_wins", [False, True])
def test_the_first_one_that_writes_has_the_batch_and_the_other_one_counts_nothing(
    race: Race, second_wins: bool
) -> None:
    claim = race.begin()
    workers = [(race.slow, race.held), (race.fast, claim)]
    (loser, lost), (winner, won) = workers if second_wins else reversed(workers)
    assert all(queue.heartbeat(one) for queue, one in workers)
    winner.hold(won)
    assert not loser.heartbeat(lost)
    with pytest.raises(LeaseLost):
        loser.hold(lost)
    assert not loser.complete(lost, replace(DONE, fingerprint="loser's"))
    assert not loser.fail(lost, "loser's")
    assert not loser.release(lost)
    winner.hold(won)  # before its next file
    assert winner.complete(won, DONE)
    assert race.row() == ("downloaded", 1)
    recorded = race.connection.execute("select stats ->> 'fingerprint', error from batch order by batch")
    assert recorded.fetchall() == [("f", None)] * 2
    times = race.connection.execute("select max(download_ms) >= 600_000 from batch").fetchall()
    assert times == [(not second_wins,)], "how long the winner was at work on it"


def test_of_two_that_write_at_the_same_moment_one_has_the_batch(race: Race) -> None:
    together = Barrier(2)

    def hold(queue: BatchQueue, claim: Claim) -> bool:
        together.wait()
        try:
            queue.hold(claim)
        except LeaseLost:
            return False
        return queue.complete(claim, DONE)

    claim = race.begin()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(hold, (race.slow, race.fast), (race.held, claim)))
    assert sorted(done) == [False, True]
    assert race.row() == ("downloaded", 1)


def test_a_worker_that_writes_is_not_raced_again(race: Race) -> None:
    claim = race.begin()
    race.slow.hold(race.held)
    assert not race.fast.heartbeat(claim)
    assert race.fast.race() is None
    assert race.begin().token > claim.token, "it has been writing for ten minutes"


def test_a_result_of_a_former_owner_needs_no_file_to_be_written(race: Race) -> None:
    """Its files are whole; it was killed before it recorded them."""
    claim = race.begin()
    assert race.fast.complete(claim, DONE)
    assert not race.slow.complete(race.held, DONE)
    assert race.row() == ("downloaded", 1)


def test_when_the_first_one_is_killed_the_second_one_has_the_batch(race: Race) -> None:
    race.connection.execute("update batch set attempts = 2")  # the last one
    claim = race.begin()
    race.expire()
    assert race.slow.claim() is None
    assert race.slow.claim_one(race.held.batch) is None
    assert race.slow.failed() == []
    assert race.fast.heartbeat(claim)
    assert not race.slow.heartbeat(race.held)
    expiry_s = race.slow.next_expiry_s()
    assert expiry_s is not None
    assert expiry_s > 0
    race.expire_race()  # which no longer matters
    assert race.slow.claim() is None
    assert race.fast.complete(claim, DONE)
    assert race.row() == ("downloaded", 2)


def test_when_the_second_one_is_killed_nothing_happens(race: Race) -> None:
    claim = race.begin()
    race.expire_race()
    assert race.slow.claim() is None
    assert race.slow.heartbeat(race.held)
    third = race.begin()
    assert third.token > claim.token
    assert not race.fast.heartbeat(claim)
    race.slow.hold(race.held)
    assert race.slow.complete(race.held, DONE)
    assert race.row() == ("downloaded", 1)


def test_when_both_are_killed_the_batch_is_claimed_like_any_other(race: Race) -> None:
    claim = race.begin()
    race.expire()
    race.expire_race()
    again = race.slow.claim()
    assert again is not None
    assert again.token > claim.token > race.held.token
    for queue, late in ((race.slow, race.held), (race.fast, claim)):
        assert not queue.heartbeat(late)
        assert not queue.complete(late, DONE)
    assert race.row() == ("downloading", 2)
    assert race.slow.complete(again, DONE)


def test_a_worker_that_is_asked_to_end_leaves_the_batch_to_the_other_one(race: Race) -> None:
    claim = race.begin()
    race.slow.release_all()
    assert race.row() == ("downloading", 1)
    race.fast.hold(claim)
    assert race.fast.complete(claim, DONE)
    assert race.row() == ("downloaded", 1)


@pytest.mark.parametrize("leave", [BatchQueue.release, lambda queue, _: queue.release_all()])
def test_the_second_one_may_leave(race: Race, leave: Callable[[BatchQueue, Claim], object]) -> None:
    leave(race.fast, race.begin())
    assert race.row() == ("downloading", 1)
    assert race.slow.heartbeat(race.held)
    race.slow.release(race.held)
    assert race.row() == ("ready", 0)


def test_a_batch_file_that_the_second_one_cannot_read_is_not_a_failure(race: Race) -> None:
    claim = race.begin()
    assert not race.fast.fail(claim, "cannot read its file")
    assert race.row() == ("downloading", 1)
    assert race.slow.complete(race.held, DONE)
    assert race.slow.counts() == QueueCounts(downloaded=2)


def test_when_the_first_one_fails_the_second_one_goes_on(race: Race) -> None:
    claim = race.begin()
    assert not race.slow.fail(race.held, "cannot read its file")
    assert race.row() == ("downloading", 1)
    assert not race.slow.fail(race.held, "cannot read its file"), "asked again after a lost answer"
    assert race.fast.heartbeat(claim)
    assert race.fast.fail(claim, "nor can the other one")
    assert race.connection.execute("select error from batch where error is not null").fetchall() == [
        ("nor can the other one",)
    ]
    assert race.row() == ("ready", 1)


def test_a_failure_counts_when_the_second_one_is_lost(race: Race) -> None:
    race.begin()
    race.expire_race()
    assert race.slow.fail(race.held, "cannot read its file")
    assert race.row() == ("ready", 1)


def test_a_race_whose_answer_was_lost_is_found_by_the_next_claim(
    race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    race.connection.execute(LONG_AGO)
    with answers_lost(race.fast._database, monkeypatch), pytest.raises(DatabaseOutageError):
        race.fast.race()
    claim = race.fast.claim()
    assert claim is not None
    race.fast.hold(claim)
    assert race.fast.claim() is None
    assert race.fast.complete(claim, DONE)

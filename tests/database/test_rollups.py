"""Counters of thousands of batches are those of the batches, whatever has happened to them."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.causes import cause_of
from laion_etl.core.ids import batch_name
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.forget import forget_crawl
from laion_etl.database.queue import BatchQueue, Claim, QueueCounts, QueueStage
from laion_etl.database.reconcile import Differences, Kind, mend_batches
from laion_etl.database.requeue import requeue
from laion_etl.database.rollups import roll_up
from laion_etl.io.storage import LocalStore
from laion_etl.settings import Settings
from tests.database.pairs import batch_no

# The same numbers from the batches themselves.
FULL_COUNT = """
select crawl_no, batch / 1000, count(*), sum(pairs), count(*) filter (where done),
       coalesce(sum(pairs) filter (where done), 0), count(*) filter (where failed),
       coalesce(sum(pairs) filter (where failed), 0),
       coalesce(sum((stats ->> 'kept')::int) filter (where done), 0),
       coalesce(sum((select sum((output ->> 'bytes')::bigint)
                     from jsonb_array_elements(stats -> 'outputs') as output))
                filter (where done), 0),
       coalesce(sum(download_ms) filter (where done), 0), count(*) filter (where is_scored),
       count(*) filter (where score_failed),
       coalesce(sum((score_stats ->> 'input')::int) filter (where is_scored), 0),
       coalesce(sum((score_stats ->> 'kept')::int) filter (where is_scored), 0),
       coalesce(sum(score_ms) filter (where is_scored), 0), count(*) filter (where is_scored and raw_deleted)
from one group by 1, 2 order by 1, 2
"""
COUNTS = "select * from batch_count order by crawl_no, thousand"
REASONS = """
select crawl_no, reason, sum(number::bigint)
from (select crawl_no, dropped, score_dropped from batch_thousand
      union all select crawl_no, dropped, score_dropped from batch_change) as counts,
     jsonb_each_text(case when %(scores)s then score_dropped else dropped end) as each (reason, number)
group by 1, 2 having sum(number::bigint) <> 0 order by 1, 2
"""
ALL_REASONS = """
select crawl_no, reason, sum(number::bigint)
from one, jsonb_each_text(case when %(scores)s then score_stats else stats end -> 'dropped')
     as each (reason, number)
where case when %(scores)s then is_scored else done end
group by 1, 2 having sum(number::bigint) <> 0 order by 1, 2
"""
# What the state of each batch adds to the counters.
STATES = """
create temporary view one as
select batch.*,
       state in ('downloaded', 'scoring', 'scored') or state = 'parked' and stats is not null as done,
       state = 'parked' and stats is null as failed, state = 'parked' and stats is not null as score_failed,
       state = 'scored' as is_scored
from batch
"""


def rows(connection: Connection, statement: str, **keys: Any) -> list[tuple[Any, ...]]:
    return connection.execute(statement, keys or None).fetchall()  # type: ignore[call-overload, no-any-return]


def check(connection: Connection) -> None:
    connection.execute(STATES)
    try:
        assert rows(connection, COUNTS) == rows(connection, FULL_COUNT)
        for scores in (False, True):
            assert rows(connection, REASONS, scores=scores) == rows(connection, ALL_REASONS, scores=scores)
    finally:
        connection.execute("drop view one")


def add_batches(connection: Connection, crawl: str, first: int, count: int) -> int:
    connection.execute("insert into crawl (crawl) values (%s) on conflict do nothing", [crawl])
    row = connection.execute("select crawl_no from crawl where crawl = %s", [crawl]).fetchone()
    assert row is not None
    with (
        connection.cursor() as cursor,
        cursor.copy("copy batch (batch, crawl_no, pairs, file) from stdin") as copy,
    ):
        for number in range(first, first + count):
            copy.write_row((batch_no(number, crawl), row[0], 10, Jsonb(asdict(Output(str(number), 1, "0")))))
    return int(row[0])


def result(batch: int, kept: int) -> StageStats:
    dropped = {"timeout": 10 - kept} if kept % 2 else {"http_error": 8 - kept, "animated": 2}
    files = tuple(Output(f"{batch}{ending}", 100 + kept, "0") for ending in (".tar", ".parquet"))
    return StageStats("download", "C", batch_name(batch), "f", 10, kept, dropped, files)


@dataclass
class History:
    """Workers, an operator and a planner who do what a seed says."""

    database: Database
    settings: Settings
    store: LocalStore
    chance: random.Random
    held: list[tuple[BatchQueue, Claim]] = field(default_factory=list)
    planned: int = 0

    def queue(self, stage: QueueStage = QueueStage.DOWNLOAD) -> BatchQueue:
        found = rows(self.database.connection, "select crawl_no from crawl where crawl = 'C'")
        return BatchQueue(self.database, found[0][0], lease_s=60, max_attempts=2, stage=stage)

    def plan(self) -> None:
        add_batches(self.database.connection, "C", 990 + self.planned, 12)
        self.planned += 12

    def claim(self) -> None:
        queue = self.queue()
        if (claim := queue.claim()) is not None:
            self.held.append((queue, claim))

    def claim_to_score(self) -> None:
        queue = self.queue(QueueStage.SCORE)
        if (claim := queue.claim()) is not None:
            self.held.append((queue, claim))

    def claim_any(self) -> None:
        queue = self.queue()
        number = batch_no(990 + self.chance.randrange(self.planned))
        if (claim := queue.claim_one(number)) is not None:
            self.held.append((queue, claim))

    def complete(self) -> None:
        for queue, claim in self._some():
            queue.complete(claim, result(claim.batch, self.chance.randrange(9)))

    def fail(self) -> None:
        for queue, claim in self._some():
            queue.fail(claim, f"cannot read batch {claim.batch}: {self.chance.choice(('denied', 'damaged'))}")

    def release(self) -> None:
        for queue, claim in self._some():
            queue.release(claim)

    def expire(self) -> None:
        self.database.connection.execute(
            "update batch set lease_expires = now() - interval '1 s' "
            "where state in ('downloading', 'scoring')"
        )

    def requeue(self) -> None:
        requeue("C", self.database, cause=self.chance.choice(("", "denied")))

    def reconcile(self) -> None:
        numbers = [
            number for (number,) in rows(self.database.connection, "select batch from batch order by 1")
        ]
        chosen = self.chance.sample(numbers, min(4, len(numbers)))
        finished = {number: result(number, 3) for number in chosen[:2]}
        mend_batches(Differences("C", {Kind.MISSING_SHARD: chosen[2:]}, finished), self.database)

    def correct(self) -> None:
        """A removal request, or a statement by hand."""
        self.database.connection.execute(
            "update batch set stats = jsonb_set(stats, '{kept}', '1') "
            "where state in ('downloaded', 'scored') and mod(batch, 3) = 0"
        )
        self.database.connection.execute(
            "update batch set raw_deleted = true where state = 'scored' and mod(batch, 2) = 0"
        )

    def roll_up(self) -> None:
        roll_up(self.database)

    def forget(self) -> None:
        forget_crawl("C", self.settings, self.store, self.database)
        self.held.clear()
        self.plan()

    def _some(self) -> Iterator[tuple[BatchQueue, Claim]]:
        self.chance.shuffle(self.held)
        for _ in range(min(len(self.held), 1 + self.chance.randrange(3))):
            yield self.held.pop()


STEPS = (
    *(4 * ["claim", "complete"]), *(3 * ["claim_to_score", "complete"]), "claim", "claim_any", "fail", "fail",
    "release", "expire", "requeue", "reconcile", "correct", "roll_up", "plan", "forget",
)  # fmt: skip


@hypothesis_settings(
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(STEPS), min_size=10, max_size=40))
def test_after_any_history(
    database: Database, settings: Settings, store: LocalStore, seed: int, steps: list[str]
) -> None:
    history = History(database, settings, store, random.Random(seed))
    connection = database.connection
    connection.execute("truncate crawl cascade")
    add_batches(connection, "OTHER", 0, 3)
    history.plan()
    for step in steps:
        getattr(history, step)()
        check(connection)
    counted = history.queue().counts()
    states = dict(rows(connection, "select state::text, count(*) from batch join crawl using (crawl_no) "
                                   "where crawl = 'C' group by 1"))  # fmt: skip
    assert counted == QueueCounts(**states)
    roll_up(database)
    assert rows(connection, "select count(*) from batch_change") == [(0,)]
    check(connection)


def test_a_change_counts_once_while_others_roll_up_and_read(settings: Settings, database: Database) -> None:
    """A completion that is not committed yet is neither moved nor read."""
    crawl_no = add_batches(database.connection, "C", 0, 64)
    queue = BatchQueue(database, crawl_no, lease_s=60, max_attempts=2)
    with open_database(settings) as other:
        for _ in range(64):
            claim = queue.claim()
            assert claim is not None
            with database.connection.transaction():
                assert queue.complete(claim, result(claim.batch, 4))
                roll_up(other)
                check(other.connection)
            check(other.connection)
    assert queue.counts() == QueueCounts(downloaded=64)


def test_while_one_rolls_up_another_does_not_wait(settings: Settings, database: Database) -> None:
    add_batches(database.connection, "C", 0, 5)
    with open_database(settings) as other, other.connection.transaction():
        assert rows(other.connection, "select roll_up_batches()") == [(1,)]
        assert rows(database.connection, "select roll_up_batches()") == [(0,)]
        check(database.connection)
    check(database.connection)


def test_workers_roll_up_now_and_then(database: Database) -> None:
    queue = BatchQueue(database, add_batches(database.connection, "C", 0, 100), lease_s=60, max_attempts=2)
    while claim := queue.claim():
        queue.complete(claim, result(claim.batch, 5))
    ((left,),) = rows(database.connection, "select count(*) from batch_change")
    assert left < 32
    check(database.connection)


def test_batches_of_earlier_versions_are_counted(database: Database) -> None:
    """They have stats, and neither counters of their own nor of thousands."""
    connection = database.connection
    queue = BatchQueue(database, add_batches(connection, "C", 995, 10), lease_s=60, max_attempts=1)
    for kept in range(5):
        claim = queue.claim()
        assert claim is not None
        queue.complete(claim, result(claim.batch, kept))
    claim = queue.claim()
    assert claim is not None
    queue.fail(claim, "cannot read it")
    expected = rows(connection, COUNTS)
    connection.execute("alter table batch disable trigger all")
    connection.execute("update batch set images = null, bytes = null")
    connection.execute("alter table batch enable trigger all")
    connection.execute("select recount_batches()")
    assert rows(connection, COUNTS) == expected
    check(connection)
    to_score = BatchQueue(queue._database, 1, 60, 1, QueueStage.SCORE).claim()
    assert to_score is not None
    check(connection)
    reopened = queue.claim_one(batch_no(996))
    assert reopened is not None
    check(connection)


def test_deleting_all_rows_at_once_leaves_no_counters(database: Database) -> None:
    add_batches(database.connection, "C", 0, 5)
    database.connection.execute("truncate batch")
    check(database.connection)


@pytest.mark.parametrize(
    "error",
    [
        "cannot read s3://bucket/batches/C/202438000001.parquet: AccessDenied; check the credentials",
        "no host 10.0.0.8:5432 and 1,234 others\n in  time",
        "batch 3f2504e0-4f89-11d3-9a0c-0305e82c3301 has 9f86d081884c7d659a2feaa0c55ad015, not 0xab12",
        "its worker stopped sending heartbeats on every attempt",
    ],
)
def test_the_cause_of_a_parked_batch_is_that_of_alerts(error: str, database: Database) -> None:
    queue = BatchQueue(database, add_batches(database.connection, "C", 0, 1), lease_s=60, max_attempts=1)
    claim = queue.claim()
    assert claim is not None
    queue.fail(claim, error)
    assert rows(database.connection, "select cause, batches from failure") == [(cause_of(error), 1)]
    requeue("C", database)
    assert rows(database.connection, "select cause from batch") == [(None,)]

"""Store and database are compared, and what one of them lost is mended from the other."""

import json
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import shard_stem
from laion_etl.core.stage_stats import UNFINISHED, StageStats
from laion_etl.database import reconcile
from laion_etl.database.connection import Database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue, QueueCounts
from laion_etl.database.reconcile import Differences, Kind, find_differences, mend_batches
from laion_etl.database.stored_crawl import read_stored
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import PlanSettings, Settings
from tests.database.pairs import batch_no, batch_nos, numbered_pairs, write_pairs


@dataclass(frozen=True)
class World:
    """Two partitions, cut into four batches of ten pairs; two of the batches are downloaded."""

    store: Store
    database: Database
    settings: Settings
    queue: BatchQueue

    def found(self) -> Differences:
        return find_differences("C", read_stored("C", self.store), self.store, self.database)

    def differences(self) -> dict[Kind, list[int]]:
        return self.found().numbers

    def mend(self) -> None:
        """What is said to be left is what a comparison finds."""
        left = mend_batches(self.found(), self.database)
        assert left.numbers == self.differences()

    def download(self, batch: int) -> StageStats:
        """The files of a shard, as a worker leaves them before it records the result."""
        files = tuple(
            self.store.write(shard_stem("C", batch) + ending, b"") for ending in (".tar", ".parquet")
        )
        stats = StageStats("download", "C", batch_name(batch), "f", 10, 7, {"timeout": 3}, files)
        return self.store.write_stats(f"{shard_stem('C', batch)}_stats.json", stats)


@pytest.fixture
def world(store: Store, database: Database, settings: Settings) -> World:
    small = replace(settings, plan=PlanSettings(batch_size=10))
    for partition in (0, 1):
        write_pairs(store, "C", partition, numbered_pairs(20 * partition, 20 * partition + 20))
        load_partition("C", partition, small, store, database)
    plan_batches("C", small, store, database)
    queue = BatchQueue(database, crawl_number(database.connection, "C"), lease_s=60, max_attempts=2)
    made = World(store, database, small, queue)
    for _ in range(2):
        claim = queue.claim()
        assert claim is not None
        assert queue.complete(claim, made.download(claim.batch))
    return made


def test_nothing_differs_of_a_crawl_at_work(world: World) -> None:
    claim = world.queue.claim()
    assert claim is not None
    world.download(claim.batch)  # its worker is about to record this
    assert world.differences() == {}
    assert world.queue.complete(claim, world.download(claim.batch))
    assert world.differences() == {}


def test_batches_that_the_database_forgot_are_done_again(world: World) -> None:
    late = world.queue.claim()
    assert late is not None
    stats = world.download(late.batch)
    world.database.connection.execute(
        "update batch set lease_expires = now() - interval '1 s' where state = 'downloading'"
    )
    world.database.connection.execute(
        "update batch set state = 'ready', stats = null where batch = %s", [batch_no(0)]
    )
    assert world.differences() == {Kind.FINISHED: [batch_no(0), late.batch]}
    world.mend()
    assert world.differences() == {}
    assert world.queue.counts() == QueueCounts(ready=1, downloaded=3)
    assert not world.queue.complete(late, replace(stats, fingerprint="another"))
    kept = world.database.connection.execute("select sum((stats ->> 'kept')::int) from batch").fetchone()
    assert kept == (21,)


def test_a_batch_without_its_shard_is_downloaded_again(world: World) -> None:
    world.store.delete(f"{shard_stem('C', batch_no(0))}.tar")
    world.store.delete(f"{shard_stem('C', batch_no(1))}.tar")
    scored = StageStats("score", "C", batch_name(batch_no(1)), "f", 7, 7)
    world.store.write_stats(f"scored/C/{batch_name(batch_no(1))}_stats.json", scored)  # needs it no more
    assert world.differences() == {Kind.MISSING_SHARD: [batch_no(0)]}
    world.mend()
    assert world.differences() == {}
    assert world.queue.counts() == QueueCounts(ready=3, downloaded=1)


def test_what_was_done_before_a_restore_does_not_count_after_it(world: World) -> None:
    """How long workers held a batch until the comparison, and outages that a batch had before."""
    connection = world.database.connection
    held = "select coalesce(sum(held_ms), 0) < 60_000 from batch_count"
    claim = world.queue.claim()
    assert claim is not None
    world.download(claim.batch)
    connection.execute(
        "update batch set claimed_at = now() - interval '3 days', lease_expires = now() - interval '1 s' "
        "where state = 'downloading'"
    )
    world.store.delete(f"{shard_stem('C', batch_no(0))}.tar")
    connection.execute("update batch set outages = 10 where batch = %s", [batch_no(0)])
    world.mend()
    assert world.queue.counts() == QueueCounts(ready=2, downloaded=2)
    assert connection.execute(held).fetchone() == (True,)
    outages = connection.execute("select outages from batch where batch = %s", [batch_no(0)])
    assert outages.fetchone() == (0,)


def test_a_scored_batch_needs_no_images_to_be_finished(world: World) -> None:
    """With LAION_ETL_KEEP_RAW_SHARDS=false they are deleted; then the database is restored from a backup."""
    scored, marked, damaged = (batch_no(number) for number in (0, 2, 3))
    for batch, found in ((scored, "f"), (marked, UNFINISHED), (damaged, "f")):
        world.download(batch)
        world.store.delete(f"{shard_stem('C', batch)}.tar")
        stats = StageStats("score", "C", batch_name(batch), found, 7, 7)
        world.store.write_stats(f"scored/C/{batch_name(batch)}_stats.json", stats)
    world.store.write(f"{shard_stem('C', damaged)}.parquet", b"cut off")
    world.database.connection.execute(
        "update batch set state = 'ready', stats = null where batch = %s", [scored]
    )
    assert world.differences() == {Kind.FINISHED: [scored]}
    world.mend()
    assert world.queue.counts() == QueueCounts(ready=2, downloaded=2)


def test_scores_that_were_about_to_be_replaced_are_not_scores(world: World) -> None:
    """The worker was killed, and the database is from before it had claimed the batch again."""
    whole, with_images, without = (batch_no(number) for number in (0, 1, 2))
    claim = world.queue.claim_one(without)
    assert claim is not None
    assert world.queue.complete(claim, world.download(without))
    for batch, found in ((whole, "f"), (with_images, UNFINISHED), (without, UNFINISHED)):
        stats = StageStats("score", "C", batch_name(batch), found, 0, 0)
        world.store.write_stats(f"scored/C/{batch_name(batch)}_stats.json", stats)
    world.store.delete(f"{shard_stem('C', without)}.tar")
    world.database.connection.execute(
        "update batch set state = 'scored', score_stats = '{}' where stats is not null"
    )
    assert world.differences() == {Kind.MISSING_SHARD: [without], Kind.MISSING_SCORES: [with_images]}
    world.mend()
    assert world.queue.counts() == QueueCounts(ready=2, downloaded=1, scored=1)


def test_a_shard_with_outcomes_of_other_pairs_is_not_taken_for_the_batch(world: World) -> None:
    stats = world.download(batch_no(3))
    short = replace(stats, input=9, kept=6)
    world.store.write_stats(f"{shard_stem('C', batch_no(3))}_stats.json", short)
    assert world.differences() == {}


def test_a_shard_with_a_file_of_another_worker_is_not_finished(world: World) -> None:
    """Which had begun to replace the files of a former owner when it was killed."""
    batch = batch_no(2)
    world.download(batch)
    assert world.differences() == {Kind.FINISHED: [batch]}
    world.store.write(f"{shard_stem('C', batch)}.tar", b"of another worker")
    assert world.differences() == {}


def test_damaged_stats_hide_no_other_difference(world: World) -> None:
    world.download(batch_no(2))
    world.download(batch_no(3))
    world.store.write(f"{shard_stem('C', batch_no(3))}_stats.json", b'{"stage": ')
    world.store.write("pairs/C/part-00000.json", b"cut off")
    assert world.differences() == {Kind.MISSING_PAIRS: [0], Kind.FINISHED: [batch_no(2)]}


def test_a_shard_with_the_stats_of_another_batch_is_not_finished(world: World) -> None:
    stats = world.download(batch_no(2))
    world.download(batch_no(3))
    world.store.write_stats(f"{shard_stem('C', batch_no(3))}_stats.json", stats)
    assert world.differences() == {Kind.FINISHED: [batch_no(2)]}


def test_what_cannot_be_mended_is_named(world: World) -> None:
    world.store.delete("pairs/C/part-00000.parquet")
    write_pairs(world.store, "C", 1, numbered_pairs(20, 30))
    world.store.delete(f"batches/C/{batch_name(batch_no(3))}.parquet")
    expected = {
        Kind.CHANGED_PARTITION: [1],
        Kind.MISSING_PAIRS: [0],
        Kind.MISSING_BATCH_FILE: [batch_no(3)],
    }
    assert world.differences() == expected
    world.mend()
    assert world.differences() == expected


@pytest.fixture
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("LAION_ETL_STORE", world.store.uri())
    monkeypatch.setenv("LAION_ETL_DATABASE_URL", world.settings.core.database_url)
    monkeypatch.setenv("LAION_ETL_PLAN_BATCH_SIZE", "10")
    return monkeypatch


def test_an_empty_database_is_filled_from_the_store(
    world: World, environment: pytest.MonkeyPatch, postgres: EmbeddedServer
) -> None:
    """The backup is older than the crawl."""
    environment.setenv("LAION_ETL_DATABASE_URL", postgres.url(f"restored_{uuid4().hex}"))
    command = ["db", "reconcile", "--crawl", "C", "--json"]
    seen = CliRunner().invoke(app, command)
    assert seen.exit_code == 1, seen.output
    found = json.loads(seen.stdout)["differences"]
    assert [(one["kind"], one["numbers"]) for one in found] == [
        ("partition_not_in_database", [0, 1]),
        ("batch_not_in_database", batch_nos(4)),
    ]
    mended = CliRunner().invoke(app, [*command, "--fix"])
    assert mended.exit_code == 0, mended.output
    assert json.loads(mended.stdout)["left"] == []
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, json.loads(again.stdout)["differences"]) == (0, [])
    status = CliRunner().invoke(app, ["status", "--crawl", "C", "--json"])
    queue = json.loads(status.stdout)["queue"]
    assert (queue["batches"], queue["done"], queue["ready"]) == (4, 2, 2)


def test_a_crawl_that_is_nowhere_is_an_error(world: World, environment: pytest.MonkeyPatch) -> None:
    """A misspelled one would be said to agree."""
    seen = CliRunner().invoke(app, ["db", "reconcile", "--crawl", "D", "--json"])
    assert isinstance(seen.exception, InputError)
    assert "neither the store nor the database has anything of it" in str(seen.exception)
    assert not seen.stdout


def test_a_list_of_batches_that_the_store_lost_is_written_again(
    world: World, environment: pytest.MonkeyPatch
) -> None:
    name = "batches/C/_stats.json"
    plan = world.store.read(name)
    world.store.delete(name)
    assert world.differences() == {Kind.UNRECORDED_BATCH: batch_nos(4)}
    mended = CliRunner().invoke(app, ["db", "reconcile", "--crawl", "C", "--fix"])
    assert mended.exit_code == 0, mended.output
    assert world.store.read(name) == plan


def test_batches_are_mended_in_short_transactions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on after an interruption, and a batch that a worker has claimed meanwhile is left to it."""
    monkeypatch.setattr(reconcile, "_PAGE", 1)
    for batch in (2, 3):
        world.download(batch_no(batch))
    world.store.delete(f"{shard_stem('C', batch_no(0))}.tar")
    found = world.found()
    run, transactions = world.database.run, []

    def interrupted(*arguments: Any) -> Any:
        if len(transactions) == 1:
            raise KeyboardInterrupt
        transactions.append(run(*arguments))
        return transactions[-1]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(world.database, "run", interrupted)
        mend_batches(found, world.database)
    assert world.queue.counts() == QueueCounts(ready=1, downloaded=3)
    assert world.queue.claim_one(batch_no(3)) is not None
    left = mend_batches(world.found(), world.database)
    assert left.numbers == {}
    assert mend_batches(found, world.database).numbers == {
        Kind.FINISHED: [batch_no(2), batch_no(3)],
        Kind.MISSING_SHARD: [batch_no(0)],
    }
    assert world.queue.counts() == QueueCounts(ready=1, downloading=1, downloaded=2)

"""Progress from counters and records is what the stats files of all units add up to."""

from dataclasses import replace

import pytest

from laion_etl.core.errors import StorageError
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import parse_stats_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.database.connection import Database
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue
from laion_etl.dataset.funnel_report import CrawlFunnel, crawl_funnel
from laion_etl.dataset.missing_batches import Fault, MissingBatch, group_file
from laion_etl.dataset.number_runs import runs_of
from laion_etl.dataset.score_progress import (
    GroupRecord,
    ScoreProgress,
    groups_file,
    read_score_progress,
)
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches, plan_range, prepare_plan
from laion_etl.publish.stage import publish_dataset
from laion_etl.report.crawl_progress import ProgressReader, progress_funnel
from laion_etl.settings import PlanSettings, Settings
from tests.database.pairs import batch_nos, numbered_pairs, write_pairs
from tests.publish.world import CRAWL, build_world, write_world


def read(crawl: str, store: Store, database: Database) -> CrawlFunnel:
    reader = ProgressReader(crawl)
    known = reader.database(database)
    return progress_funnel(crawl, known, reader.store(store, known))


def parsed(store: Store, crawl: str, partition: int) -> None:
    """Make stats of parse complete: links that were dropped, and counts of records."""
    name = parse_stats_name(crawl, partition)
    stats = store.read_stats(name)
    records = {"input": 90, "kept": 40, "dropped": {"not_a_page": 45, "damaged": 5}}
    dropped = {"no_alt": 20 + partition, "tracker": 3}
    more = replace(
        stats, input=stats.kept + sum(dropped.values()), dropped=dropped, details={"records": records}
    )
    store.write_stats(name, more)


def work(store: Store, settings: Settings, database: Database) -> list[int]:
    """Three partitions are parsed, two loaded; of ten batches six are downloaded, one is parked."""
    small = replace(settings, plan=PlanSettings(batch_size=10))
    for partition in range(3):
        write_pairs(store, "C", partition, numbered_pairs(partition * 45, partition * 45 + 50))
        parsed(store, "C", partition)
    for partition in range(2):
        load_partition("C", partition, small, store, database)
    plan_batches("C", small, store, database)
    queue = BatchQueue(database, crawl_number(database.connection, "C"), lease_s=600, max_attempts=1)
    for kept in range(6):
        claim = queue.claim()
        assert claim is not None
        statement = "select pairs from batch where batch = %s"
        ((pairs,),) = database.connection.execute(statement, [claim.batch]).fetchall()
        files = (Output("x.tar", 7, "0"),)
        counts = (pairs, kept, {"timeout": pairs - kept})
        stats = StageStats("download", "C", batch_name(claim.batch), "f", *counts, files)
        store.write_stats(f"{shard_stem('C', claim.batch)}_stats.json", stats)
        queue.complete(claim, stats)
    claim = queue.claim()
    assert claim is not None
    queue.fail(claim, "cannot read it")
    return batch_nos(10)


def scored(store: Store, batch: int) -> StageStats:
    shard = store.read_stats(f"{shard_stem('C', batch)}_stats.json")
    lost = min(1, shard.kept)
    stats = StageStats(
        "score",
        "C",
        batch_name(batch),
        f"f{batch}",
        shard.kept,
        shard.kept - lost,
        {"low_similarity": lost} if lost else {},
    )
    return store.write_stats(f"{scored_stem('C', batch)}_stats.json", stats)


def test_every_number_is_that_of_the_files(store: Store, settings: Settings, database: Database) -> None:
    batches = work(store, settings, database)
    assert read("C", store, database) == crawl_funnel(store, "C")
    for index in range(2):
        record = GroupRecord("C", f"{index}/2", 5, store)
        record.begin()
        for batch in batches[index:4:2]:
            record.add(scored(store, batch))
        record.miss(MissingBatch(batches[6 + index], Fault.NOT_DOWNLOADED, "there are no stats"))
        record.finish()
    funnel = read("C", store, database)
    assert funnel == crawl_funnel(store, "C")
    assert [row.units for row in funnel.rows] == [3, 2, 1, 6, 4, 0]
    assert funnel.row("parse").dropped == {"no_alt": 63, "tracker": 9}
    assert funnel.row("load").dropped == {"duplicate_in_crawl": 5}
    assert funnel.records.input == 270
    load_partition("C", 2, settings, store, database)  # takes nothing over: the others are planned
    assert read("C", store, database) == crawl_funnel(store, "C")


def test_scores_of_a_plan_that_was_forgotten_do_not_count(
    store: Store, settings: Settings, database: Database
) -> None:
    batches = work(store, settings, database)
    record = GroupRecord("C", "0/1", 5, store)
    record.begin()
    for batch in batches[:4]:
        record.add(scored(store, batch))
    record.finish()
    forget_crawl("C", settings, store, database)
    load_partition("C", 0, settings, store, database)
    plan_batches("C", replace(settings, plan=PlanSettings(batch_size=10)), store, database)

    score = read("C", store, database).row("score")
    assert (score.units, score.input, score.kept, score.dropped) == (0, 0, 0, {})


def test_windows_of_a_plan_that_are_done_count(store: Store, settings: Settings, database: Database) -> None:
    small = replace(settings, plan=PlanSettings(batch_size=10, window_pairs=20))
    write_pairs(store, "C", 0, numbered_pairs(0, 100))
    load_partition("C", 0, small, store, database)
    ranges = prepare_plan("C", small, store, database).ranges
    assert not read("C", store, database).row("plan").started
    plan_range("C", 1, len(ranges), small, store, database)
    funnel = read("C", store, database)
    plan = funnel.row("plan")
    assert 0 < plan.kept < 100
    assert (plan.units, plan.input) == (1, plan.kept)
    assert funnel.problems == (f"{100 - plan.kept} kept by load have not been through plan yet",)


def test_a_published_crawl_has_its_last_stage(store: Store, settings: Settings, database: Database) -> None:
    write_world(build_world(batches=3, samples=20), store)
    published = publish_dataset(
        CRAWL, replace(settings, core=replace(settings.core, store=store.uri())), store
    )
    row = read(CRAWL, store, database).row("publish")
    assert (row.units, row.input, row.kept, row.dropped) == (
        1,
        published.input,
        published.kept,
        published.dropped,
    )


def test_damaged_files_count_nothing_and_are_named(
    store: Store, settings: Settings, database: Database
) -> None:
    work(store, settings, database)
    store.write(parse_stats_name("C", 2), b"{")
    store.write(groups_file("C"), b'{"format": 1, "groups": 1}')
    store.write(group_file("C", "0/1"), b"cut off")
    funnel = read("C", store, database)
    assert (funnel.row("parse").units, funnel.row("score").units) == (2, 0)
    named = [problem for problem in funnel.problems if problem.startswith("cannot read")]
    assert [
        name for problem in named for name in ("part-00002.json", "group-0-of-1.json") if name in problem
    ] == [
        "part-00002.json",
        "group-0-of-1.json",
    ]
    store.write(groups_file("C"), b"[]")
    assert any("groups.json" in problem for problem in read("C", store, database).problems)


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        ([], []),
        ([5], [(5, 1, 1)]),
        (range(3, 3 + 64 * 50, 64), [(3, 64, 50)]),
        ([1, 2, 3, 7, 9, 11], [(1, 1, 3), (7, 2, 3)]),
        ([1, 5, 6, 7], [(1, 4, 2), (6, 1, 2)]),
    ],
)
def test_runs_of_equally_spaced_numbers(numbers: list[int], runs: list[tuple[int, int, int]]) -> None:
    assert runs_of(numbers) == runs
    progress = ScoreProgress(units=len(numbers), runs=tuple(runs))
    assert [progress.at(place) for place in range(len(numbers))] == list(numbers)
    for first, last in ((0, 10**6), (2, 7), (4, 4), (5, 6), (100, 40), (7, 200)):
        expected = {number for number in numbers if first <= number <= last}
        assert progress.between(first, last) == expected
        assert progress.count_between(first, last) == len(expected)


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def stats_of(batch: int) -> StageStats:
    return StageStats("score", "C", batch_name(batch), "f", 10, 8, {"low_similarity": 2})


def test_a_group_at_work_is_seen_and_written_now_and_then(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    record = GroupRecord("C", "1/4", 500, any_store, clock)
    record.begin()
    writes: list[str] = []
    create = type(any_store).create
    monkeypatch.setattr(type(any_store), "create", lambda *args: writes.append(args[1]) or create(*args))  # type: ignore[func-returns-value]
    for batch in range(1, 401, 4):
        clock.now += 1.0
        record.add(stats_of(batch))
    assert len(writes) == 10  # in a hundred seconds
    seen = read_score_progress("C", any_store)
    assert (seen.units, seen.input, seen.kept, seen.runs) == (100, 1_000, 800, ((1, 4, 100),))
    record.add(stats_of(401))
    record.finish()
    assert read_score_progress("C", any_store).units == 101


def test_progress_that_cannot_be_written_does_not_end_the_group(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    record = GroupRecord("C", "0/1", 2, store, clock)
    record.begin()

    def full(*_: object) -> None:
        raise StorageError("cannot write: the disk is full")

    with monkeypatch.context() as during:
        during.setattr(type(store), "create", full)
        clock.now = 60.0
        record.add(stats_of(1))
        with pytest.raises(StorageError):
            record.finish()
    record.finish()
    assert read_score_progress("C", store).units == 1


def test_the_groups_of_the_latest_run_count(store: Store) -> None:
    """They score again, or recognise, what groups of another division have recorded."""
    for index in range(2):
        record = GroupRecord("C", f"{index}/2", 2, store)
        record.begin()
        for batch in (index, index + 2):
            record.add(stats_of(batch))
        record.finish()
    assert read_score_progress("C", store).units == 4
    record = GroupRecord("C", "0/1", 4, store)
    record.begin()
    for batch in range(3):
        record.add(stats_of(batch))
    record.finish()
    assert read_score_progress("C", store).units == 3


def test_a_missing_batch_that_is_scored_by_number_counts(store: Store) -> None:
    record = GroupRecord("C", "0/1", 3, store)
    record.begin()
    record.add(stats_of(0))
    for batch in (1, 2):
        record.miss(MissingBatch(batch, Fault.DAMAGED, "cut off"))
    record.finish()
    store.write_stats(f"{scored_stem('C', 2)}_stats.json", stats_of(2))
    seen = read_score_progress("C", store)
    assert (seen.units, seen.kept, seen.missing_count, [one.batch for one in seen.missing]) == (2, 16, 1, [1])
    assert seen.between(0, 9) == {0, 2}

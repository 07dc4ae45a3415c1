"""What a version may leave out, how it reports that, and when a run makes no version at all."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from laion_etl.core.errors import IncompleteError, InputError
from laion_etl.core.schemas import plan_stats_name, scored_stem, shard_stem
from laion_etl.database.loaded import LoadedCrawl
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.dataset.missing_batches import Fault, MissingBatch
from laion_etl.io.storage import Store
from laion_etl.publish.completeness import Expected
from laion_etl.publish.stage import publish_dataset, publish_variants, render_report
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, World, build_world, changed, write_missing, write_world

FOLDER = f"dataset/laion/{CRAWL}"


@pytest.fixture
def plain() -> Settings:
    return Settings()


def files_of(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.list("dataset")}


def expected(partitions: Iterable[int], max_missing_share: float, loaded: Iterable[int]) -> Expected:
    """Partitions of a run, and those that Postgres has; the plan is the world's."""
    return Expected(list(partitions), max_missing_share, LoadedCrawl(frozenset(loaded), "test"))


def test_what_is_missing_beyond_what_is_allowed_is_not_published(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    left = store.read(f"load/{CRAWL}/part-00000.json")
    store.write(f"load/{CRAWL}/part-00003.json", left)  # of a load that was forgotten
    with pytest.raises(IncompleteError, match=r"2 of 4 partitions are missing \(1,3: not loaded.* most 25"):
        publish_dataset(CRAWL, plain, store, expected=expected(range(4), 0.25, [0, 2]))
    assert not store.exists(f"{FOLDER}/_stats.json")
    done = publish_dataset(CRAWL, plain, store, expected=expected(range(4), 0.75, [0]))
    assert done.details["missing_partitions"] == [1, 2, 3]
    manifest = json.loads(store.read(f"{FOLDER}/manifest.json"))
    assert manifest["partitions"] == {"expected": 4, "missing": [1, 2, 3]}
    note = "Missing partitions: 3 of 4 (1, 2, 3)."
    assert note in store.read(f"{FOLDER}/README.md").decode()
    assert note in render_report(CRAWL, plain, store).decode()


def test_a_share_that_is_not_a_number_allows_nothing(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    with pytest.raises(IncompleteError, match="1 of 2 partitions are missing"):
        publish_dataset(CRAWL, plain, store, expected=expected(range(2), float("nan"), [0]))
    assert not store.exists(f"{FOLDER}/_stats.json")


def test_missing_batches_count_too(store: Store, plain: Settings) -> None:
    write_world(build_world(batches=3), store, planned_batches=range(4))
    with pytest.raises(IncompleteError, match=r"1 of 4 batches are missing \(3: not scored\)"):
        publish_dataset(CRAWL, plain, store, expected=expected([0], 0.0, [0]))
    assert publish_dataset(CRAWL, plain, store, expected=expected([0], 0.3, [0])).kept


def test_a_published_batch_is_not_dropped_without_a_word(store: Store, plain: Settings) -> None:
    write_world(build_world(batches=3), store, planned_batches=range(4))
    publish_dataset(CRAWL, plain, store)
    before = files_of(store)
    store.delete(f"{scored_stem(CRAWL, 1)}_stats.json")  # as the score stage does before it scores again
    with pytest.raises(InputError, match=r"1 of its published batches are not scored any more \(1\)"):
        publish_dataset(CRAWL, plain, store)
    assert files_of(store) == before
    done = publish_dataset(CRAWL, plain, store, expected=expected([0], 0.5, [0]))
    assert done.details["missing_batches"] == [1, 3]


@pytest.mark.parametrize("damage", ["cut off", "of another batch", "of a newer format"])
def test_damaged_stats_of_a_scored_batch_make_it_missing_and_stop_no_other(
    damage: str, store: Store, plain: Settings
) -> None:
    write_world(build_world(batches=3), store, planned_batches=range(3))
    whole = store.read(f"{scored_stem(CRAWL, 1)}_stats.json")
    damaged = {
        "cut off": whole[:50],
        "of another batch": store.read(f"{scored_stem(CRAWL, 2)}_stats.json"),
        "of a newer format": whole.replace(b'"format": 2', b'"format": 99'),
    }
    store.write(f"{scored_stem(CRAWL, 1)}_stats.json", damaged[damage])
    with pytest.raises(IncompleteError, match=r"1 of 3 batches are missing \(1: not scored\)"):
        publish_dataset(CRAWL, plain, store, expected=expected([0], 0.0, [0]))
    with pytest.raises(InputError, match=r"stats of scored batches are damaged \(1\)"):
        publish_dataset(CRAWL, plain, store)
    done = publish_dataset(CRAWL, plain, store, expected=expected([0], 0.4, [0]))
    assert done.details["missing_batches"] == [1]


@pytest.mark.parametrize("shard", ["gone", "damaged"])
def test_scores_of_a_batch_that_a_group_could_not_score_are_not_published(
    shard: str, store: Store, plain: Settings
) -> None:
    """They are older: of which images is not known."""
    write_world(build_world(batches=3), store, planned_batches=range(3))
    name = f"{shard_stem(CRAWL, 1)}_stats.json"
    whole = store.read(name)
    cause = Fault.NOT_DOWNLOADED if shard == "gone" else Fault.DAMAGED
    write_missing([MissingBatch(1, cause, "cannot read it")], store)
    store.write(name, b"{")
    if shard == "gone":
        store.delete(name)
    with pytest.raises(
        IncompleteError,
        match=rf"1 of 3 batches are missing \(1: not scored: batch 1 {cause}, cannot read it\)",
    ):
        publish_dataset(CRAWL, plain, store, expected=expected([0], 0.0, [0]))
    store.write(name, whole)  # downloaded, and scored since
    assert (
        publish_dataset(CRAWL, plain, store, expected=expected([0], 0.0, [0])).details["missing_batches"]
        == []
    )


@pytest.mark.parametrize(
    ("damage", "problem"),
    [(b"{", "not a stats file"), (b'{"format": 99}', "it was written by format 99 of a newer laion-etl")],
)
def test_damaged_stats_are_a_problem_of_the_funnel(damage: bytes, problem: str, store: Store) -> None:
    write_world(build_world(batches=3), store, planned_batches=range(3))
    units = crawl_funnel(store, CRAWL).row("score").units
    name = f"{scored_stem(CRAWL, 1)}_stats.json"
    store.write(name, damage)
    funnel = crawl_funnel(store, CRAWL)
    assert funnel.row("score").units == units - 1
    assert any(f"{name}: {problem}" in found for found in funnel.problems)


def test_a_plan_that_postgres_does_not_have_is_not_published(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    other = Expected([0], 1.0, LoadedCrawl(frozenset([0]), "of a restored database"))
    with pytest.raises(
        IncompleteError, match=f"not the one in Postgres; run `laion-etl stage plan --crawl {CRAWL}`"
    ):
        publish_dataset(CRAWL, plain, store, expected=other)
    assert not store.exists(f"{FOLDER}/_stats.json")


@pytest.mark.parametrize(
    "again", [range(6), range(2), [5], None], ids=["the same", "0:2", "the last", "none"]
)
def test_fewer_partitions_of_a_finished_crawl_make_no_other_version(
    again: Iterable[int] | None, store: Store, plain: Settings
) -> None:
    write_world(build_world(), store)
    first = publish_dataset(CRAWL, plain, store, expected=expected(range(6), 0.0, range(6)))
    asked = None if again is None else expected(again, 0.0, range(6))
    before = files_of(store)
    assert publish_dataset(CRAWL, plain, store, expected=asked) == first
    assert files_of(store) == before


def test_what_was_missing_stays_missing_until_it_is_loaded(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    first = publish_dataset(CRAWL, plain, store, expected=expected(range(4), 0.5, [0, 1, 2]))
    assert first.details["missing_partitions"] == [3]
    assert publish_dataset(CRAWL, plain, store, expected=expected([0], 0.0, [0, 1, 2])) == first
    other = changed(plain, rows_per_file=20)
    second = publish_dataset(CRAWL, other, store, expected=expected([0], 0.0, [0, 1, 2]))
    assert (second.details["partitions"], second.details["missing_partitions"]) == (4, [3])
    unasked = publish_dataset(CRAWL, plain, store)
    assert (unasked.details["partitions"], unasked.details["missing_partitions"]) == (4, [3])
    fixed = publish_dataset(CRAWL, plain, store, expected=expected([3], 0.0, range(4)))
    assert (fixed.details["partitions"], fixed.details["missing_partitions"]) == (4, [])
    assert fixed.unit == f"laion/{CRAWL}.4"


def test_a_crawl_without_anything_new_gets_no_version(store: Store, plain: Settings) -> None:
    write_world(World({}), store)
    assert publish_variants(CRAWL, plain, store, expected([0, 1], 0.0, [0, 1])) == []
    assert publish_variants(CRAWL, plain, store) == []
    with pytest.raises(IncompleteError, match="1 of 2 partitions are missing"):
        publish_variants(CRAWL, plain, store, expected([0, 1], 0.0, [0]))
    assert store.list("dataset") == []


def test_a_crawl_that_is_being_planned_is_not_published_for_the_first_time(
    store: Store, plain: Settings
) -> None:
    """What is planned so far is scored."""
    write_world(build_world(batches=2), store)
    name = plan_stats_name(CRAWL)
    whole = store.read_stats(name)
    being_planned = {"being_planned": {"fingerprint": "f", "windows": 2}}
    store.write_stats(name, replace(whole, details=whole.details | being_planned))
    with pytest.raises(InputError, match=r"its plan is not finished; run `laion-etl stage plan --crawl"):
        publish_dataset(CRAWL, plain, store)
    store.write_stats(name, whole)
    assert publish_dataset(CRAWL, plain, store).kept
    store.write_stats(name, replace(whole, details=whole.details | being_planned))
    publish_dataset(CRAWL, plain, store)  # of a removal: a later round does not stop it

"""Postgres decides what is loaded of a crawl, never files that `forget` or a move leaves behind."""

import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from laion_etl.core.errors import SettingsError
from laion_etl.core.schemas import batch_file_name, scored_stem, shard_stem
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.database.loaded import loaded_crawl
from laion_etl.io.planned import batches_in
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import Settings, Stage, shaping
from tests.database.pairs import batch_no, numbered_pairs, write_pairs


def work_on(store: Store, settings: Settings, database: Database, *partitions: int) -> StageStats:
    """Ten pairs of each partition, loaded and planned; returns the plan."""
    for number in partitions:
        write_pairs(store, "C", number, numbered_pairs(10 * number, 10 * number + 10))
        load_partition("C", number, settings, store, database)
    return plan_batches("C", settings, store, database)


def counted(store: Store, database: Database) -> set[int]:
    return set(loaded_crawl("C", store, database).partitions)


def test_a_partition_counts_once_its_pairs_are_in_batches(
    store: Store, settings: Settings, database: Database
) -> None:
    assert counted(store, database) == set()
    plan = work_on(store, settings, database, 0, 1)
    write_pairs(store, "C", 2, numbered_pairs(20, 30))
    load_partition("C", 2, settings, store, database)
    assert counted(store, database) == {0, 1}  # partition 2 is loaded and in no batch
    assert loaded_crawl("C", store, database).plan == plan.fingerprint
    plan = plan_batches("C", settings, store, database)
    assert counted(store, database) == {0, 1, 2}
    assert loaded_crawl("C", store, database).plan == plan.fingerprint


def test_a_partition_without_new_pairs_counts(store: Store, settings: Settings, database: Database) -> None:
    work_on(store, settings, database, 0)
    write_pairs(store, "C", 1, numbered_pairs(0, 10))
    assert load_partition("C", 1, settings, store, database).kept == 0
    plan_batches("C", settings, store, database)
    assert counted(store, database) == {0, 1}


def test_pairs_that_were_parsed_anew_are_not_those_that_are_loaded(
    store: Store, settings: Settings, database: Database
) -> None:
    work_on(store, settings, database, 0, 1, 2)
    write_pairs(store, "C", 1, numbered_pairs(10, 15))
    store.delete("pairs/C/part-00002.json")  # as while it is parsed again
    assert counted(store, database) == {0}


def test_nothing_counts_after_forget(any_store: Store, settings: Settings, database: Database) -> None:
    work_on(any_store, settings, database, 0, 1)
    forget_crawl("C", settings, any_store, database)
    assert counted(any_store, database) == set()
    assert any_store.list("load") == []
    load_partition("C", 1, settings, any_store, database)
    plan_batches("C", settings, any_store, database)
    assert counted(any_store, database) == {1}
    assert any_store.list("load") == ["load/C/part-00001.json"]


def test_nothing_counts_in_another_database(
    store: Store, settings: Settings, database: Database, postgres: EmbeddedServer
) -> None:
    work_on(store, settings, database, 0, 1)
    elsewhere = replace(settings.core, database_url=postgres.url(f"other_{uuid4().hex}"))
    with open_database(replace(settings, core=elsewhere)) as other:
        assert counted(store, other) == set()


@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_a_forget_that_is_killed_can_be_repeated_or_undone_by_load(
    deleted: int, tmp_path: Path, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when some stats are gone and Postgres still has the crawl, or after all of it."""
    store = LocalStore(tmp_path / "store")
    work_on(store, settings, database, 0, 1)
    left, delete = [deleted], store.delete

    def killed(name: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        delete(name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "delete", lambda _, name: killed(name))
        if deleted < 2:
            with pytest.raises(KeyboardInterrupt):
                forget_crawl("C", settings, store, database)
        else:
            forget_crawl("C", settings, store, database)
    assert counted(store, database) == ({0, 1} if deleted < 2 else set())
    for number in (0, 1):
        load_partition("C", number, settings, store, database)
    assert len(store.list("load/C")) == 2
    forget_crawl("C", settings, store, database)
    assert counted(store, database) == set()
    assert store.list("load/C") == []


def write_done(store: Store, batch: int) -> list[str]:
    """Stats that call a batch downloaded and scored."""
    names = [f"{stem}_stats.json" for stem in (shard_stem("C", batch), scored_stem("C", batch))]
    for name in names:
        store.write_stats(name, StageStats("score", "C", f"{batch:09d}", "f", 10, 10))
    return names


def test_a_batch_with_other_pairs_has_another_number_than_that_of_a_forgotten_plan(
    any_store: Store, settings: Settings, database: Database
) -> None:
    work_on(any_store, settings, database, 0)
    done = write_done(any_store, batch_no(0))
    forget_crawl("C", settings, any_store, database)
    write_pairs(any_store, "C", 0, numbered_pairs(0, 9))
    load_partition("C", 0, settings, any_store, database)
    assert batches_in(plan_batches("C", settings, any_store, database)) == [batch_no(1)]
    assert all(any_store.exists(name) for name in done)  # they are of a batch that is not planned


def test_shards_of_the_same_batch_are_not_fetched_again(
    store: Store, settings: Settings, database: Database
) -> None:
    before = work_on(store, settings, database, 0)
    done = write_done(store, batch_no(0))
    forget_crawl("C", settings, store, database)
    assert work_on(store, settings, database, 0) == before
    assert all(store.exists(name) for name in done)
    forget_crawl("C", settings, store, database)
    store.delete(batch_file_name("C", batch_no(0)))  # nothing says what the shards were made from
    work_on(store, settings, database, 0)
    assert not [name for name in done if store.exists(name)]


def test_pairs_of_other_rules_are_not_loaded(store: Store, settings: Settings, database: Database) -> None:
    """A failed parse that was marked as a success leaves such a partition."""
    write_pairs(store, "C", 0, numbered_pairs(0, 10))
    parsed = store.read_stats("pairs/C/part-00000.json")
    english = replace(settings, parse=replace(settings.parse, languages=("en",)))
    rules = json.loads(json.dumps(shaping(settings.parse, Stage.PARSE)["parse"]))
    store.write_stats("pairs/C/part-00000.json", replace(parsed, details={"rules": rules}))
    with pytest.raises(SettingsError, match=r"cannot load partition 0 of C: .* clear the task parse"):
        load_partition("C", 0, english, store, database)
    assert counted(store, database) == set()
    assert load_partition("C", 0, settings, store, database).kept == 10

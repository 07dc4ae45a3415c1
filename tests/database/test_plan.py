from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.database.connect import Database
from laion_etl.database.load import load_partition
from laion_etl.database.plan import plan_batches
from laion_etl.errors import DatabaseError
from laion_etl.records import BATCH_SCHEMA, batch_name, pair_id
from laion_etl.settings import PlanSettings, Settings
from laion_etl.storage import Store
from tests.database.pairs import numbered_pairs, write_pairs


@pytest.fixture
def small_batches(settings: Settings) -> Settings:
    return replace(settings, plan=PlanSettings(batch_size=40))


def read_batch(store: Store, batch: int) -> pa.Table:
    with store.open(f"batches/C/{batch_name(batch)}.parquet") as file:
        return pq.read_table(file)


def test_every_new_pair_is_in_exactly_one_batch(
    any_store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    for partition in range(2):
        write_pairs(any_store, "C", partition, numbered_pairs(partition * 40, partition * 40 + 60))
        load_partition("C", partition, settings, any_store, database)
    stats = plan_batches("C", small_batches, any_store, database)
    assert (stats.input, stats.kept, stats.dropped) == (100, 100, {})
    assert stats.details["batches"] == [0, 1, 2]
    tables = [read_batch(any_store, batch) for batch in (0, 1, 2)]
    assert [table.num_rows for table in tables] == [34, 33, 33]
    assert all(table.schema.equals(BATCH_SCHEMA) for table in tables)
    urls = [url for table in tables for url in table["url"].to_pylist()]
    assert sorted(urls) == sorted(url for url, _ in numbered_pairs(0, 100))
    for table in tables:
        for pair in table.to_pylist():
            assert pair["pair_id"] == pair_id(pair["url"], pair["alt"])


def test_planning_again_changes_nothing(
    store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 50))
    load_partition("C", 0, settings, store, database)
    first = plan_batches("C", small_batches, store, database)
    store.delete("batches/C/_stats.json")
    assert plan_batches("C", small_batches, store, database) == first


def test_a_killed_planner_is_repeated_with_the_same_bytes(
    store: Store,
    database: Database,
    settings: Settings,
    small_batches: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 100))
    load_partition("C", 0, settings, store, database)
    create = store.create

    def fail_on_the_third(name: str):  # type: ignore[no-untyped-def]
        if name.endswith(f"{batch_name(2)}.parquet"):
            raise KeyboardInterrupt
        return create(name)

    monkeypatch.setattr(store, "create", fail_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        plan_batches("C", small_batches, store, database)
    monkeypatch.undo()
    half_done = store.read(f"batches/C/{batch_name(0)}.parquet")
    stats = plan_batches("C", small_batches, store, database)
    assert stats.details["batches"] == [0, 1, 2]
    assert store.read(f"batches/C/{batch_name(0)}.parquet") == half_done


def test_partitions_loaded_later_make_further_batches(
    store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    write_pairs(store, "C", 1, numbered_pairs(0, 50))
    load_partition("C", 1, settings, store, database)
    plan_batches("C", small_batches, store, database)
    write_pairs(store, "C", 0, numbered_pairs(0, 60))  # a lower partition: must not take planned pairs over
    load_partition("C", 0, settings, store, database)
    stats = plan_batches("C", small_batches, store, database)
    assert (stats.input, stats.kept) == (60, 60)
    assert stats.details["batches"] == [0, 1, 2]
    assert read_batch(store, 2).num_rows == 10


def test_batch_numbers_go_on_over_crawls(
    store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    for crawl, start in (("C", 0), ("D", 50)):
        write_pairs(store, crawl, 0, numbered_pairs(start, start + 50))
        load_partition(crawl, 0, settings, store, database)
    assert plan_batches("C", small_batches, store, database).details["batches"] == [0, 1]
    assert plan_batches("D", small_batches, store, database).details["batches"] == [2, 3]


def test_a_crawl_with_nothing_loaded_says_so(
    store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    with pytest.raises(DatabaseError, match="nothing of C is loaded yet"):
        plan_batches("C", small_batches, store, database)

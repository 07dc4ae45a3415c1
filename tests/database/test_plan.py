from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import DatabaseError
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import BATCH_SCHEMA, pair_id
from laion_etl.database.connection import Database
from laion_etl.database.load import load_partition
from laion_etl.io.planned import batches_in, planned_files
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import LoadSettings, PlanSettings, Settings
from tests.database.pairs import batch_no, batch_nos, numbered_pairs, write_pairs


@pytest.fixture
def small_batches(settings: Settings) -> Settings:
    return replace(settings, plan=PlanSettings(batch_size=40))


def read_batch(store: Store, batch: int) -> pa.Table:
    with store.open(f"batches/C/{batch_name(batch_no(batch))}.parquet") as file:
        return pq.read_table(file)


def test_every_new_pair_is_in_exactly_one_batch(
    any_store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    for partition in range(2):
        write_pairs(any_store, "C", partition, numbered_pairs(partition * 40, partition * 40 + 60))
        load_partition("C", partition, settings, any_store, database)
    stats = plan_batches("C", small_batches, any_store, database)
    assert (stats.input, stats.kept, stats.dropped) == (100, 100, {})
    assert batches_in(stats) == batch_nos(3)
    tables = [read_batch(any_store, batch) for batch in (0, 1, 2)]
    assert [table.num_rows for table in tables] == [34, 33, 33]
    assert all(table.schema.equals(BATCH_SCHEMA) for table in tables)
    urls = [url for table in tables for url in table["url"].to_pylist()]
    assert sorted(urls) == sorted(url for url, _ in numbered_pairs(0, 100))
    for table in tables:
        for pair in table.to_pylist():
            assert pair["pair_id"] == pair_id(pair["url"], pair["caption"])


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

    def fail_on_the_third(name: str, *guard: object):  # type: ignore[no-untyped-def]
        if name.endswith(f"{batch_name(batch_no(2))}.parquet"):
            raise KeyboardInterrupt
        return create(name, *guard)

    monkeypatch.setattr(store, "create", fail_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        plan_batches("C", small_batches, store, database)
    monkeypatch.undo()
    half_done = store.read(f"batches/C/{batch_name(batch_no(0))}.parquet")
    stats = plan_batches("C", small_batches, store, database)
    assert batches_in(stats) == batch_nos(3)
    assert store.read(f"batches/C/{batch_name(batch_no(0))}.parquet") == half_done


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
    assert batches_in(stats) == batch_nos(3)
    assert read_batch(store, 2).num_rows == 10


def test_each_crawl_has_numbers_of_its_own(
    store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    for crawl, start in (("CC-MAIN-2024-38", 0), ("CC-MAIN-2026-05", 50)):
        write_pairs(store, crawl, 0, numbered_pairs(start, start + 50))
        load_partition(crawl, 0, settings, store, database)
    plan = plan_batches("CC-MAIN-2024-38", small_batches, store, database)
    assert batches_in(plan) == [202438000000, 202438000001]
    assert [batch.file.name for batch in planned_files("CC-MAIN-2024-38", store)] == [
        f"batches/CC-MAIN-2024-38/20243800000{number}.parquet" for number in (0, 1)
    ]
    plan = plan_batches("CC-MAIN-2026-05", small_batches, store, database)
    assert batches_in(plan) == [202605000000, 202605000001]


def test_a_crawl_with_nothing_loaded_says_so(
    store: Store, database: Database, settings: Settings, small_batches: Settings
) -> None:
    with pytest.raises(
        DatabaseError, match="nothing of it is loaded yet; run `laion-etl stage load --crawl C --partition N`"
    ):
        plan_batches("C", small_batches, store, database)


def test_no_batch_hammers_one_host(store: Store, database: Database, settings: Settings) -> None:
    many = [(f"https://large.example/{n}.jpg", f"image {n}") for n in range(90)]
    few = [(f"https://host{n}.example/a.jpg", "an image") for n in range(30)]
    write_pairs(store, "C", 0, many + few)
    load_partition("C", 0, settings, store, database)
    capped = replace(settings, plan=PlanSettings(batch_size=60, max_pairs_per_host=20))
    stats = plan_batches("C", capped, store, database)
    assert len(batches_in(stats)) == 5
    for batch in range(5):
        hosts = [url.split("/")[2] for url in read_batch(store, batch)["url"].to_pylist()]
        assert len(hosts) == 24
        assert hosts.count("large.example") == 18
        assert "large.example " * 18 not in " ".join(hosts) + " "


def test_batches_of_one_language_each(store: Store, database: Database, settings: Settings) -> None:
    for partition, (language, count) in enumerate([("en", 70), ("de", 45), ("fr", 10), ("ja", 5)]):
        pairs = [(f"https://{language}.example/{n}.jpg", f"text {n}") for n in range(count)]
        write_pairs(store, "C", partition, pairs, language)
        load_partition("C", partition, settings, store, database)
    by_language = replace(settings, plan=PlanSettings(batch_size=40, per_language=True))
    assert batches_in(plan_batches("C", by_language, store, database)) == batch_nos(5)
    languages = [sorted(set(read_batch(store, batch)["language"].to_pylist())) for batch in range(5)]
    assert sorted(languages) == [["de"], ["de"], ["en"], ["en"], ["fr", "ja"]]


def test_windows_change_nothing_but_memory(store: Store, database: Database, settings: Settings) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 100))
    load_partition("C", 0, settings, store, database)
    stats = plan_batches(
        "C", replace(settings, plan=PlanSettings(batch_size=10, window_pairs=30)), store, database
    )
    tables = [read_batch(store, batch - batch_no(0)) for batch in batches_in(stats)]
    assert sum(table.num_rows for table in tables) == 100
    assert max(table.num_rows for table in tables) <= 10
    assert len({url for table in tables for url in table["url"].to_pylist()}) == 100


def test_under_rule_url_batches_carry_the_hash_of_the_pair(
    store: Store, database: Database, settings: Settings
) -> None:
    by_url = replace(settings, load=LoadSettings(dedupe="url"))
    write_pairs(store, "C", 0, [*numbered_pairs(0, 5), ("https://img.example/0.jpg", "shorter")])
    load_partition("C", 0, by_url, store, database)
    plan_batches("C", by_url, store, database)
    rows = read_batch(store, 0).to_pylist()
    assert sorted((row["url"], row["caption"]) for row in rows) == sorted(numbered_pairs(0, 5))
    assert all(row["pair_id"] == pair_id(row["url"], row["caption"]) for row in rows)

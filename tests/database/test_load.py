from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest
from psycopg import Connection

from laion_etl.core.errors import DatabaseError, StorageError, StoreOutageError
from laion_etl.core.schemas import partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import LoadSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs


def rows(connection: Connection) -> list[Any]:
    return connection.execute(
        "select pair_id, partition, page_url from pair_text order by pair_id"
    ).fetchall()


def final_stats(store: Store, partitions: int) -> list[StageStats]:
    """Load stats of crawl C when everything is loaded: a later load may have taken pairs over."""
    return [store.read_stats(f"load/C/{partition_name(number)}.json") for number in range(partitions)]


def test_new_pairs_are_kept_and_duplicates_counted_by_kind(
    store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    write_pairs(store, "OLD", 0, numbered_pairs(0, 10))
    load_partition("OLD", 0, settings, store, database)
    write_pairs(store, "NEW", 0, numbered_pairs(5, 30))
    write_pairs(store, "NEW", 1, numbered_pairs(25, 40))
    first = load_partition("NEW", 0, settings, store, database)
    second = load_partition("NEW", 1, settings, store, database)
    assert (first.input, first.kept, first.dropped) == (25, 20, {"duplicate_of_earlier_crawl": 5})
    assert (second.input, second.kept, second.dropped) == (15, 10, {"duplicate_in_crawl": 5})
    assert len(rows(connection)) == 40
    assert store.read_stats("load/NEW/part-00001.json") == second


def test_the_same_text_on_another_url_is_another_pair(
    store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    write_pairs(store, "C", 0, [("https://a.example/1", "same"), ("https://a.example/2", "same")])
    assert load_partition("C", 0, settings, store, database).kept == 2


@pytest.mark.parametrize("rule", ["pair", "url"])
def test_pairs_of_the_previous_version_have_their_captions_in_alt(
    rule: str, store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    settings = replace(settings, load=LoadSettings(dedupe=rule))
    write_pairs(store, "C", 0, [("https://a.example/1", "a text"), ("https://a.example/2", "a longer text")])
    name = "pairs/C/part-00000.parquet"
    with store.open(name) as file:
        table = pq.read_table(file)
    with store.create(name) as written:
        pq.write_table(
            table.rename_columns(["alt" if n == "caption" else n for n in table.column_names]), written
        )
    stats = store.read_stats("pairs/C/part-00000.json")
    store.write_stats("pairs/C/part-00000.json", replace(stats, outputs=(written.output,)))
    assert load_partition("C", 0, settings, store, database).kept == 2
    assert sorted(connection.execute("select url, caption from pair").fetchall()) == [
        ("https://a.example/1", "a text"),
        ("https://a.example/2", "a longer text"),
    ]


def test_loading_twice_changes_nothing(
    store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 10))
    first = load_partition("C", 0, settings, store, database)
    before = rows(connection)
    store.delete("load/C/part-00000.json")
    assert load_partition("C", 0, settings, store, database) == first
    assert rows(connection) == before
    assert store.exists("load/C/part-00000.json")


def test_the_rows_do_not_depend_on_the_load_order(store: Store, settings: Settings) -> None:
    seen = []
    for crawl, order in (("C", (0, 1, 2)), ("C", (2, 0, 1)), ("C", (1, 2, 0))):
        for partition in range(3):
            write_pairs(store, crawl, partition, numbered_pairs(partition * 5, partition * 5 + 10))
        with open_database(settings) as database:
            for partition in order:
                load_partition(crawl, partition, settings, store, database)
            seen.append((rows(database.connection), final_stats(store, 3)))
            forget_crawl(crawl, settings, store, database)
    assert len(seen[0][0]) == 20
    assert [(one.kept, one.dropped) for one in seen[0][1]] == [
        (10, {}),
        (5, {"duplicate_in_crawl": 5}),
        (5, {"duplicate_in_crawl": 5}),
    ]
    assert seen[0] == seen[1] == seen[2]


def test_partitions_load_side_by_side_without_deadlock(store: Store, settings: Settings) -> None:
    for partition in range(6):
        write_pairs(store, "C", partition, numbered_pairs(0, 3000)[:: partition + 1])

    def load(partition: int) -> None:
        with open_database(settings) as database:
            load_partition("C", partition, settings, store, database)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(load, range(6)))
    assert [one.kept for one in final_stats(store, 6)] == [3000, 0, 0, 0, 0, 0]


def test_a_corrected_partition_replaces_what_was_not_yet_planned(
    store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 10))
    write_pairs(store, "C", 1, numbered_pairs(5, 15))
    load_partition("C", 0, settings, store, database)
    assert load_partition("C", 1, settings, store, database).kept == 5
    write_pairs(store, "C", 0, numbered_pairs(0, 3))
    assert load_partition("C", 0, settings, store, database).kept == 3
    assert load_partition("C", 1, settings, store, database).kept == 10
    assert len(rows(connection)) == 13


def test_an_outage_while_pairs_are_given_back_loses_none(
    store: Store, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that is corrected gives pairs back to another, unless the store has lost its file."""
    for partition in (0, 1):
        write_pairs(store, "C", partition, numbered_pairs(0, 10))
        load_partition("C", partition, settings, store, database)
    write_pairs(store, "C", 0, numbered_pairs(0, 4))
    plain = type(store).read_stats

    def unreachable(self: Store, name: str) -> StageStats:
        if name == "pairs/C/part-00001.json":
            raise StoreOutageError(f"cannot read {name}: unreachable")
        return plain(self, name)

    with monkeypatch.context() as during:
        during.setattr(type(store), "read_stats", unreachable)
        with pytest.raises(StoreOutageError):
            load_partition("C", 0, settings, store, database)
    load_partition("C", 0, settings, store, database)
    assert database.rows("plan.stored_pairs") == [(10,)]


def test_a_planned_partition_is_final_until_the_crawl_is_forgotten(
    store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 10))
    load_partition("C", 0, settings, store, database)
    plan_batches("C", settings, store, database)
    write_pairs(store, "C", 0, numbered_pairs(0, 3))
    with pytest.raises(DatabaseError, match="laion-etl db forget --crawl C"):
        load_partition("C", 0, settings, store, database)
    assert len(rows(connection)) == 10
    forget_crawl("C", settings, store, database)
    assert load_partition("C", 0, settings, store, database).kept == 3


def test_an_unparsed_partition_is_named(
    store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    with pytest.raises(StorageError, match=r"part-00007\.json.*was the stage before it run"):
        load_partition("C", 7, settings, store, database)


def test_texts_in_any_script_survive(
    store: Store, settings: Settings, database: Database, connection: Connection
) -> None:
    texts = ["Красный круг", "赤い円", "دائرة حمراء", "\U0001f697 car", "tab\\t and 'quotes' \"x\""]
    write_pairs(store, "C", 0, [(f"https://a.example/{n}", text) for n, text in enumerate(texts)])
    load_partition("C", 0, settings, store, database)
    assert {row[0] for row in connection.execute("select caption from pair")} == set(texts)

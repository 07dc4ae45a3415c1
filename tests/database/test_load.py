from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg import Connection

from laion_etl.database.connect import open_database
from laion_etl.database.load import load_partition
from laion_etl.database.plan import forget_crawl, plan_batches
from laion_etl.errors import DatabaseError, StorageError
from laion_etl.settings import Settings
from laion_etl.storage import Store
from tests.database.pairs import numbered_pairs, write_pairs


def rows(connection: Connection) -> list[Any]:
    return connection.execute("select pair_id, partition, page_url from pair order by pair_id").fetchall()


def test_new_pairs_are_kept_and_duplicates_told_apart(store: Store, connection: Connection) -> None:
    write_pairs(store, "OLD", 0, numbered_pairs(0, 10))
    load_partition("OLD", 0, store, connection)
    write_pairs(store, "NEW", 0, numbered_pairs(5, 30))
    write_pairs(store, "NEW", 1, numbered_pairs(25, 40))
    first = load_partition("NEW", 0, store, connection)
    second = load_partition("NEW", 1, store, connection)
    assert (first.input, first.kept, first.dropped) == (25, 20, {"duplicate_of_earlier_crawl": 5})
    assert (second.input, second.kept, second.dropped) == (15, 10, {"duplicate_in_crawl": 5})
    assert len(rows(connection)) == 40
    assert store.read_stats("load/NEW/part-00001.json") == second


def test_the_same_text_on_another_url_is_another_pair(store: Store, connection: Connection) -> None:
    write_pairs(store, "C", 0, [("https://a.example/1", "same"), ("https://a.example/2", "same")])
    assert load_partition("C", 0, store, connection).kept == 2


def test_loading_twice_changes_nothing(store: Store, connection: Connection) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 10))
    first = load_partition("C", 0, store, connection)
    before = rows(connection)
    store.delete("load/C/part-00000.json")
    assert load_partition("C", 0, store, connection) == first
    assert rows(connection) == before
    assert store.exists("load/C/part-00000.json")


def test_the_rows_do_not_depend_on_the_load_order(store: Store, settings: Settings) -> None:
    seen = []
    for crawl, order in (("C", (0, 1, 2)), ("C", (2, 0, 1)), ("C", (1, 2, 0))):
        for partition in range(3):
            write_pairs(store, crawl, partition, numbered_pairs(partition * 5, partition * 5 + 10))
        with open_database(settings) as connection:
            stats = [load_partition(crawl, partition, store, connection) for partition in order]
            assert sum(one.kept for one in stats) == 20
            seen.append(rows(connection))
            forget_crawl(crawl, connection)
    assert len(seen[0]) == 20
    assert seen[0] == seen[1] == seen[2]


def test_partitions_load_side_by_side_without_deadlock(store: Store, settings: Settings) -> None:
    for partition in range(6):
        write_pairs(store, "C", partition, numbered_pairs(0, 3000)[:: partition + 1])

    def load(partition: int) -> int:
        with open_database(settings) as connection:
            return load_partition("C", partition, store, connection).kept

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(load, range(6))) == 3000


def test_a_corrected_partition_replaces_what_was_not_yet_planned(
    store: Store, connection: Connection
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 10))
    write_pairs(store, "C", 1, numbered_pairs(5, 15))
    load_partition("C", 0, store, connection)
    assert load_partition("C", 1, store, connection).kept == 5
    write_pairs(store, "C", 0, numbered_pairs(0, 3))
    assert load_partition("C", 0, store, connection).kept == 3
    assert load_partition("C", 1, store, connection).kept == 10
    assert len(rows(connection)) == 13


def test_a_planned_partition_is_final_until_the_crawl_is_forgotten(
    store: Store, connection: Connection, settings: Settings
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 10))
    load_partition("C", 0, store, connection)
    plan_batches("C", settings, store, connection)
    write_pairs(store, "C", 0, numbered_pairs(0, 3))
    with pytest.raises(DatabaseError, match="laion-etl forget --crawl C"):
        load_partition("C", 0, store, connection)
    assert len(rows(connection)) == 10
    forget_crawl("C", connection)
    assert load_partition("C", 0, store, connection).kept == 3


def test_an_unparsed_partition_is_named(store: Store, connection: Connection) -> None:
    with pytest.raises(StorageError, match=r"part-00007\.json.*was the stage before it run"):
        load_partition("C", 7, store, connection)


def test_texts_in_any_script_survive(store: Store, connection: Connection) -> None:
    texts = ["Красный круг", "赤い円", "دائرة حمراء", "\U0001f697 car", "tab\\t and 'quotes' \"x\""]
    write_pairs(store, "C", 0, [(f"https://a.example/{n}", text) for n, text in enumerate(texts)])
    load_partition("C", 0, store, connection)
    assert {row[0] for row in connection.execute("select alt from pair")} == set(texts)

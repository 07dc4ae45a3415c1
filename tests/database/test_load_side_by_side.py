"""Loaders of several partitions at once, some of them killed between ranges: the result is that of one."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import Connection, sql

from laion_etl.core.errors import DatabaseError
from laion_etl.database import conflicts, corrections, pair_texts, pairs_file, polling, range_load
from laion_etl.database.connection import Database, open_database
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.database.queries import query
from laion_etl.database.range_locks import take_ranges
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import LoadSettings, Settings
from tests.database.pairs import Pair, numbered_pairs, write_pairs
from tests.database.test_load_histories import (
    check_counts,
    key_by_pair,
    key_by_url,
    order_by_text,
    owners,
    pairs,
)

ResultT = TypeVar("ResultT")

PARTITIONS = 4
LIMIT_S = 240  # for a hang
RANGES = range(64)


class KilledError(Exception):
    """Stands for the end of the process."""


class KilledDatabase(Database):
    """One whose program ends after some transactions."""

    def __init__(self, settings: Settings, transactions: int) -> None:
        super().__init__(settings.core.database_url, settings.database)
        self._left = transactions

    def run(self, work: Callable[[Connection], ResultT], timeout_s: float | None = None) -> ResultT:
        if not self._left:
            raise KilledError
        self._left -= 1
        return super().run(work, timeout_s)


@dataclass(frozen=True)
class Load:
    """A loader at work beside others: it loads a version of a partition, or is killed before that."""

    partition: int
    version: list[Pair]
    transactions: int | None


loads = st.lists(
    st.builds(Load, st.integers(0, PARTITIONS - 1), pairs, st.one_of(st.none(), st.integers(3, 12))),
    max_size=4,
    unique_by=lambda load: load.partition,
)


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ranges a transaction, several segments a file, as a large partition has them."""
    monkeypatch.setattr(conflicts, "KEYS_PER_CHUNK", 2)
    monkeypatch.setattr(range_load, "PAIRS_PER_TRANSACTION", 3)
    monkeypatch.setattr(corrections, "PAIRS_PER_TRANSACTION", 3)
    monkeypatch.setattr(corrections, "_GIVEN_UP_AT_ONCE", 4)
    monkeypatch.setattr(pair_texts, "_ROWS_PER_SEGMENT", 4)
    monkeypatch.setattr(pairs_file, "_ROWS_PER_READ", 2)
    monkeypatch.setattr(polling, "_FIRST_PAUSE_S", 0.001)


def side_by_side(loads: list[Load], loaders: int, settings: Settings, store: Store) -> None:
    """Loads with this many loaders at once, each of which takes the next load when it is done."""
    for load in loads:
        write_pairs(store, "C", load.partition, load.version)

    def run(load: Load) -> None:
        if load.transactions is None:
            with open_database(settings) as database:
                load_partition("C", load.partition, settings, store, database)
            return
        killed = KilledDatabase(settings, load.transactions)
        try:
            load_partition("C", load.partition, settings, store, killed)
        except KilledError:
            pass
        finally:
            killed.close()

    with ThreadPoolExecutor(loaders) as pool:
        list(pool.map(run, loads))


@pytest.mark.parametrize("rule", list(DedupeRule))
@pytest.mark.parametrize("loaders", [2, 4])
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=4,
    derandomize=True,
)
@given(
    history=st.lists(loads, max_size=2),
    last=st.permutations(range(PARTITIONS)),
    versions=st.tuples(pairs, pairs, pairs, pairs),
)
def test_only_the_last_versions_count(
    rule: DedupeRule,
    loaders: int,
    history: list[list[Load]],
    last: list[int],
    versions: tuple[list[Pair], ...],
    settings: Settings,
    database: Database,
) -> None:
    by_rule = replace(settings, load=LoadSettings(dedupe=str(rule), connections=2))
    database.connection.execute("truncate crawl, partition, page, pair, batch, dedupe_rule cascade")
    with TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        for loads in history:
            side_by_side(loads, loaders, by_rule, store)
        side_by_side([Load(number, versions[number], None) for number in last], loaders, by_rule, store)
        if rule is DedupeRule.PAIR:
            expected = owners(list(versions), key_by_pair, lambda _: 0)
        else:
            expected = owners(list(versions), key_by_url, order_by_text)
        rows = database.connection.execute(
            "select pair_id, partition, url, caption, page_url from pair_text"
        ).fetchall()
        assert {key.bytes: (number, (url, caption)) for key, number, url, caption, _ in rows} == expected
        assert all(page == f"https://pages.example/{number}" for _, number, _, _, page in rows)
        check_counts(database, store, versions, expected)
        assert sums_of_ranges(database) == sums_of_partitions(database)


def sums_of_ranges(database: Database) -> list[Any]:
    """Of each loaded partition: its rows in table pair, and what its ranges say."""
    return database.connection.execute(
        "select partition_no, (select count(*) from pair where pair.partition_no = partition.partition_no), "
        "ranges, kept, pairs from partition join lateral (select count(*) as ranges, sum(kept) as kept, "
        "sum(kept + lost_in_crawl + lost_earlier) as pairs from partition_range as r "
        "where r.partition_no = partition.partition_no and r.version = partition.version) as sums on true "
        "order by 1"
    ).fetchall()


def sums_of_partitions(database: Database) -> list[Any]:
    """The same from the stats of the partitions."""
    return database.connection.execute(
        "select partition_no, (stats ->> 'kept')::bigint, 64, (stats ->> 'kept')::bigint, "
        "(stats ->> 'input')::bigint "
        "- coalesce((stats -> 'dropped' ->> 'duplicate_in_partition')::bigint, 0) "
        "from partition order by 1"
    ).fetchall()


@contextmanager
def holding(settings: Settings, numbers: range | list[int]) -> Iterator[None]:
    """Another program holds these ranges during the block."""
    with open_database(settings) as other, other.connection.transaction():
        assert len(take_ranges(other.connection, list(numbers), 64, "another program")) == len(numbers)
        other.connection.execute(query("locks.drop_snapshot"))
        yield


def test_a_loader_loads_the_ranges_that_are_free_and_waits_for_the_others(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 100))
    waits = threading.Event()
    goes_on = threading.Event()

    class Waiting:
        """Stands for module time where a program waits."""

        monotonic = staticmethod(lambda: 0.0)

        @staticmethod
        def sleep(_: float) -> None:
            waits.set()
            assert goes_on.wait(LIMIT_S)

    monkeypatch.setattr(polling, "time", Waiting)
    one = replace(settings, load=LoadSettings(connections=1))

    def load() -> int:
        with open_database(one) as own:
            return load_partition("C", 0, one, store, own).kept

    with ThreadPoolExecutor(1) as pool:
        with holding(settings, range(10, 20)):
            kept = pool.submit(load)
            assert waits.wait(LIMIT_S)
            done = database.connection.execute("select range_no from partition_range order by 1").fetchall()
            assert [number for (number,) in done] == [n for n in RANGES if n not in range(10, 20)]
            assert database.rows("status.loads") == []
            assert plan_batches("C", settings, store, database).kept == 0
        goes_on.set()
        assert kept.result(LIMIT_S) == 100


def test_a_crawl_that_is_forgotten_ends_its_loader_at_the_next_range(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loader has written before is forgotten, and nothing comes after it."""
    write_pairs(store, "C", 0, numbered_pairs(0, 100))
    forgotten = threading.Event()
    take = take_ranges

    def forget_first(connection: Connection, *rest: Any) -> list[int]:
        done = database.connection.execute("select count(*) > 5 from partition_range").fetchone()
        if done == (True,) and not forgotten.is_set():
            forgotten.set()
            with open_database(settings) as other:
                forget_crawl("C", settings, store, other)
        return take(connection, *rest)

    monkeypatch.setattr(range_load, "take_ranges", forget_first)
    one = replace(settings, load=LoadSettings(connections=1))
    with open_database(one) as own, pytest.raises(DatabaseError, match="the crawl is being forgotten"):
        load_partition("C", 0, one, store, own)
    assert forgotten.is_set()
    for table in ("pair", "page", "partition_range", "partition", "crawl"):
        statement = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
        assert database.connection.execute(statement).fetchone() == (0,), table


def test_a_partition_that_two_loaders_have_is_loaded_once(
    store: Store, settings: Settings, database: Database
) -> None:
    """As after a task that was taken for dead."""
    write_pairs(store, "C", 0, numbered_pairs(0, 60))

    def load(_: int) -> int:
        with open_database(settings) as own:
            return load_partition("C", 0, settings, store, own).kept

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(load, range(2))) == [60, 60]
    assert database.connection.execute("select count(*) from pair").fetchone() == (60,)
    pages = "select count(*), count(distinct url) from page"
    assert database.connection.execute(pages).fetchone() == (1, 1)


def test_a_database_of_one_range_works_as_before(
    store: Store, settings: Settings, database: Database
) -> None:
    """As one that had partitions when its ranges were made."""
    database.connection.execute("update key_ranges set ranges = 1")
    for partition in (1, 0):
        write_pairs(store, "C", partition, numbered_pairs(10 * partition, 10 * partition + 20))
        load_partition("C", partition, settings, store, database)
    write_pairs(store, "C", 0, numbered_pairs(5, 15))
    assert load_partition("C", 0, settings, store, database).kept == 10
    assert [store.read_stats(f"load/C/part-0000{n}.json").kept for n in (0, 1)] == [10, 15]
    assert plan_batches("C", settings, store, database).kept == 25

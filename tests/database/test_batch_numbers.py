"""A number, once given to a batch, is never given to other pairs, whatever a database remembers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import InputError
from laion_etl.core.ids import batch_of_stats, sample_key
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.io.planned import batches_in, planned_files
from laion_etl.io.storage import Store
from laion_etl.plan.batch_numbers import NUMBERS_PER_FILE, BatchNumbers, Slot, prefixes
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import PlanSettings, Settings
from tests.database.pairs import batch_no, batch_nos, numbered_pairs, write_pairs


class Taken:
    """A database that has these batches."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = set(numbers)

    def highest(self, first: int, last: int) -> int | None:
        return max((number for number in self._numbers if first <= number <= last), default=None)

    def among(self, numbers: Sequence[int]) -> set[int]:
        return self._numbers & set(numbers)


free = Taken()


def digests(*numbers: int) -> list[str]:
    return [f"{number:016x}" for number in numbers]


@pytest.mark.parametrize(
    ("crawl", "prefix"),
    [("CC-MAIN-2024-38", 202438), ("CC-MAIN-2013-20", 201320), ("CC-MAIN-2099-53", 209953)],
)
def test_the_prefix_of_a_crawl_is_its_year_and_week(crawl: str, prefix: int, store: Store) -> None:
    assert list(prefixes(crawl)) == [prefix]
    assert BatchNumbers(crawl, store, free).give(digests(5, 6)) == [prefix * 10**6, prefix * 10**6 + 1]
    assert store.list("ids") == [f"ids/{prefix}/000.json"]


@pytest.mark.parametrize(
    "crawl", ["C", "CC-MAIN-2012", "CC-MAIN-2008-2009", "real-pages", "CC-MAIN-2024-381"]
)
def test_other_names_have_a_prefix_that_no_year_and_week_has(crawl: str) -> None:
    first, second = [prefix for prefix, _ in zip(prefixes(crawl), range(2), strict=False)]
    assert 300_000 <= first <= 999_999
    assert first != second
    assert next(prefixes(crawl)) == first


def test_two_names_with_one_hash_get_two_prefixes(any_store: Store) -> None:
    names: dict[int, str] = {}
    for name in (f"crawl-{number}" for number in range(10_000)):
        if (other := names.setdefault(next(prefixes(name)), name)) != name:
            break
    assert next(prefixes(name)) == next(prefixes(other))
    one, two = (BatchNumbers(crawl, any_store, free) for crawl in (name, other))
    assert two.prefix == one.prefix + 1
    assert [BatchNumbers(crawl, any_store, free).prefix for crawl in (other, name)] == [
        two.prefix,
        one.prefix,
    ]


def test_the_same_pairs_have_the_same_number_and_others_never_do(any_store: Store) -> None:
    first = BatchNumbers("C", any_store, free).give(digests(1, 2, 3))
    assert first == batch_nos(3)
    again = BatchNumbers("C", any_store, free)
    assert again.give(digests(3, 4)) == [first[2], first[2] + 1]
    assert again.give(digests(1, 3, 3)) == [first[0], first[2], first[2] + 2]  # 3 twice in one plan


def test_two_planners_with_one_store_and_two_databases_share_no_number(any_store: Store) -> None:
    one, two = (BatchNumbers("C", any_store, free) for _ in range(2))
    assert one.give(digests(1, 2)) == batch_nos(2)
    assert two.give(digests(2, 3)) == batch_nos(3)[1:]
    assert one.give(digests(4)) == batch_nos(4)[3:]


def test_numbers_that_the_database_has_are_not_given(store: Store) -> None:
    """Its crawl was planned into another store."""
    numbers = BatchNumbers("C", store, Taken(batch_no(1), batch_no(4)))
    assert numbers.give(digests(1, 2)) == batch_nos(7)[5:]
    assert BatchNumbers("C", store, free).give(digests(2, 1, 9)) == [batch_nos(7)[n] for n in (6, 5)] + [
        batch_nos(8)[7]
    ]


def test_thousands_of_numbers_lie_in_several_files(store: Store) -> None:
    count = 2 * NUMBERS_PER_FILE + 1
    numbers = BatchNumbers("C", store, free)
    assert numbers.give(digests(*range(1, count))) == batch_nos(count - 1)
    assert numbers.give(digests(count)) == batch_nos(count)[-1:]
    assert len(store.list("ids")) == 3
    assert BatchNumbers("C", store, free).give(digests(*range(1, count + 1))) == batch_nos(count)


def test_a_crawl_without_free_numbers_says_so(store: Store) -> None:
    numbers = BatchNumbers("C", store, Taken(batch_no(999_999)))
    with pytest.raises(
        InputError, match=r"cannot plan C: its 1,000,000 batch numbers are used up; plan larger"
    ):
        numbers.give(digests(1))


def test_a_slot_without_free_numbers_says_what_to_do(store: Store) -> None:
    numbers = BatchNumbers("C", store, free)
    slot = Slot(*batch_nos(2))
    with pytest.raises(
        InputError,
        match=r"makes 3 batches, and 2 numbers, .* for it; raise LAION_ETL_PLAN_BATCH_SIZE, and plan",
    ):
        numbers.give(digests(1, 2, 3), slot)
    assert numbers.give(digests(1, 2), slot) == batch_nos(2)


@pytest.mark.parametrize("text", [b"{}", b"[", b'{"crawl": "C", "batches": 1}'])
def test_a_damaged_record_is_named(store: Store, text: bytes) -> None:
    BatchNumbers("C", store, free)
    (name,) = store.list("ids")
    store.write(name, text)
    with pytest.raises(InputError, match=r"cannot read .*/000.json: it is not a record of batch numbers"):
        BatchNumbers("C", store, free)


def test_files_of_others_beside_the_record_do_no_harm(store: Store) -> None:
    given = BatchNumbers("C", store, free).give(digests(1))
    (name,) = store.list("ids")
    for other in (".DS_Store", "000.json.bak", "notes.txt", "1.json"):
        store.write(f"{name.rpartition('/')[0]}/{other}", b"of someone else")
    assert BatchNumbers("C", store, free).give(digests(1)) == given


def test_a_record_of_a_newer_version_is_refused(store: Store) -> None:
    BatchNumbers("C", store, free)
    (name,) = store.list("ids")
    store.write(name, b'{"format": 2, "crawl": "C", "batches": []}')
    with pytest.raises(InputError, match="it was written by format 2 of a newer laion-etl"):
        BatchNumbers("C", store, free)


class SampleIds:
    """The pair of every sample id that plans of a crawl have given."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pairs: dict[str, bytes] = {}

    def note(self, plan: StageStats) -> list[int]:
        """Notes the samples of a plan; no id may have another pair than before. Returns the batches."""
        for batch in planned_files("C", self._store):
            with self._store.open(batch.file.name) as raw:
                for index, pair in enumerate(pq.read_table(raw)["pair_id"].to_pylist()):
                    assert self.pairs.setdefault(sample_key(batch.number, index), pair) == pair
        return batches_in(plan)


@pytest.fixture
def ids(store: Store) -> SampleIds:
    return SampleIds(store)


@pytest.fixture
def small(settings: Settings) -> Settings:
    return replace(settings, plan=PlanSettings(batch_size=10))


@contextmanager
def another_database(settings: Settings, postgres: EmbeddedServer) -> Iterator[Database]:
    elsewhere = replace(settings.core, database_url=postgres.url(f"year_{uuid4().hex}"))
    with open_database(replace(settings, core=elsewhere)) as database:
        yield database


def plan(store: Store, settings: Settings, database: Database, *partitions: int) -> StageStats:
    """Twenty pairs of each partition, loaded and planned."""
    for number in partitions:
        write_pairs(store, "C", number, numbered_pairs(20 * number, 20 * number + 20))
        load_partition("C", number, settings, store, database)
    return plan_batches("C", settings, store, database)


def test_a_forgotten_crawl_never_gives_a_sample_id_twice(
    store: Store, small: Settings, database: Database, ids: SampleIds
) -> None:
    assert ids.note(plan(store, small, database, 0)) == batch_nos(2)
    forget_crawl("C", small, store, database)
    larger = replace(small, plan=PlanSettings(batch_size=15))
    assert ids.note(plan(store, larger, database, 0, 1)) == batch_nos(5)[2:]
    forget_crawl("C", small, store, database)
    assert ids.note(plan(store, small, database, 0)) == batch_nos(2)


def test_a_second_database_never_gives_a_sample_id_twice(
    store: Store, small: Settings, database: Database, postgres: EmbeddedServer, ids: SampleIds
) -> None:
    assert ids.note(plan(store, small, database, 0, 1)) == batch_nos(4)
    with another_database(small, postgres) as other:
        assert ids.note(plan(store, small, other, 1)) == batch_nos(6)[4:]
        assert ids.note(plan(store, small, other, 0)) == batch_nos(8)[4:]


def test_a_restored_backup_plans_the_same_batches_under_the_same_numbers(
    store: Store, small: Settings, database: Database, ids: SampleIds
) -> None:
    plan(store, small, database, 0)
    planned = plan(store, small, database, 1)
    database.connection.execute("delete from batch where batch = any (%s)", [batch_nos(4)[2:]])
    database.connection.execute("update partition set planned = false where partition = 1")
    database.connection.execute("delete from plan_window where round = 2")
    database.connection.execute("delete from plan_round where round = 2")
    assert plan_batches("C", small, store, database) == planned
    assert ids.note(planned) == batch_nos(4)


def test_a_planner_killed_before_its_commit_gives_the_same_numbers_again(
    store: Store, small: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("laion_etl.plan.stage.record_window", killed)
        with pytest.raises(KeyboardInterrupt):
            plan(store, small, database, 0)
    assert batches_in(plan(store, small, database, 0)) == batch_nos(2)


def test_only_names_of_batches_are_read_as_such() -> None:
    names = (
        "C/000000007_stats.json",
        "C/202438000007_stats.json",
        "C/000000000007_stats.json",
        "C/7_stats.json",
    )
    assert [batch_of_stats(name) for name in names] == [7, 202438000007, None, None]

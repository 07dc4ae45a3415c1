"""A plan is the same however many planners cut its windows, in which order, and how often they are killed."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from laion_etl.core.errors import DatabaseError, IncompleteError
from laion_etl.core.schemas import pair_id
from laion_etl.core.stage_stats import fingerprint
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.database.loaded import loaded_crawl
from laion_etl.database.queries import query
from laion_etl.database.servers import range_servers
from laion_etl.io.planned import batches_in, is_without_batches, planned_batches, planned_files
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan import window_pairs
from laion_etl.plan.stage import Prepared, plan_batches, plan_range, prepare_plan
from laion_etl.publish.completeness import Expected
from laion_etl.settings import AirflowSettings, PlanSettings, Settings
from tests.database.pairs import batch_no, numbered_pairs, page_of, write_pairs
from tests.database.test_batch_numbers import another_database
from tests.faults.test_database import wait_for

Result = dict[str, Any]
PAIRS_OF_PARTITION = 30
WAITING = """
select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def small(settings: Settings) -> Settings:
    """Ninety pairs make eight windows."""
    return replace(
        settings,
        plan=PlanSettings(batch_size=5, window_pairs=12),
        airflow=AirflowSettings(plan_ranges=5),
    )


def load(store: Store, settings: Settings, database: Database, *partitions: int) -> None:
    for number in partitions:
        start = PAIRS_OF_PARTITION * number
        write_pairs(store, "C", number, numbered_pairs(start, start + PAIRS_OF_PARTITION))
        load_partition("C", number, settings, store, database)


def test_each_pair_has_licence_and_url_of_its_page(
    store: Store, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are read so many at once, of several partitions together."""
    expected = {}
    for partition in (0, 1, 2):
        pairs = numbered_pairs(100 * partition, 100 * partition + 40)
        write_pairs(store, "C", partition, pairs, per_page=3)
        load_partition("C", partition, settings, store, database)
        expected |= {pair: page_of(partition, index, 3) for index, pair in enumerate(pairs)}
    monkeypatch.setattr(window_pairs, "_PAGES_AT_ONCE", 17)
    numbers = [number for (number,) in database.connection.execute("select partition_no from partition")]
    everything = UUID(int=0), UUID(int=2**128 - 1)
    with range_servers(database) as servers:
        found = window_pairs.read_pairs(everything, numbers, servers, 60.0)
        assert window_pairs.read_pairs(everything, [], servers, 60.0).num_rows == 0
        rows = found.to_pylist()
        assert {(row["url"], row["caption"]): (row["license"], row["page_url"]) for row in rows} == expected
        assert [row["pair_id"] for row in rows] == sorted(pair_id(*pair) for pair in expected)
        gone = rows[5]["page_url"]
        database.connection.execute("delete from page where url = %s", [gone])
        left = window_pairs.read_pairs(everything, numbers, servers, 60.0)
    assert left.to_pylist() == [row for row in rows if row["page_url"] != gone]


def unplan(database: Database) -> None:
    """Make the crawl one that was just loaded: quicker than to load it again for each way to plan it."""
    for statement in (
        "delete from batch",
        "delete from plan_window",
        "delete from plan_round",
        "update partition set planned = false, planning = false",
    ):
        database.connection.execute(statement)  # type: ignore[call-overload]


def result(store: Store, database: Database) -> Result:
    """What a plan leaves: the queue, the partitions, and every file with its bytes."""
    rows = database.connection.execute("select batch, pairs, file, state::text from batch order by 1")
    planned = database.connection.execute("select partition, planned, planning from partition order by 1")
    files = {name: store.read(name) for folder in ("batches", "plan", "ids") for name in store.list(folder)}
    return {"batches": rows.fetchall(), "partitions": planned.fetchall(), **files}


def in_ranges(
    store: Store, settings: Settings, database: Database, rng: random.Random | None = None
) -> Prepared:
    """Plan range by range; in another order with `rng`."""
    prepared = prepare_plan("C", settings, store, database)
    ranges = list(prepared.ranges)
    if rng:
        rng.shuffle(ranges)
    for name in ranges:
        index, of = map(int, name.split("/"))
        plan_range("C", index, of, settings, store, database)
    return prepared


@pytest.fixture
def alone(store: Store, small: Settings, database: Database) -> Result:
    """What one process makes of the crawl, which is loaded and not planned when this returns."""
    load(store, small, database, 0, 1, 2)
    plan_batches("C", small, store, database)
    made = result(store, database)
    unplan(database)
    return made


def elsewhere(tmp_path: Path, name: object) -> LocalStore:
    return LocalStore(tmp_path / f"store of {name}")


def test_every_new_pair_is_in_one_batch_of_one_window(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0, 1, 2)
    stats = plan_batches("C", small, store, database)
    assert (stats.input, stats.kept) == (90, 90)
    batches = list(planned_files("C", store))
    assert [batch.number for batch in batches] == batches_in(stats) == planned_batches("C", store)
    assert sum(batch.pairs for batch in batches) == 90
    assert max(batch.pairs for batch in batches) <= 5
    assert len(store.list("plan/C")) == 8
    assert store.read_stats("batches/C/_stats.json") == stats


@pytest.mark.parametrize("count", [2, 3, 5])
def test_ranges_in_any_order_make_the_same_plan(
    count: int, alone: Result, small: Settings, database: Database, tmp_path: Path
) -> None:
    settings = replace(small, airflow=AirflowSettings(plan_ranges=count))
    for seed in range(2):
        store = elsewhere(tmp_path, seed)
        prepared = in_ranges(store, settings, database, random.Random(seed))
        assert len(prepared.ranges) == count
        assert prepared.batches == 18
        assert result(store, database) == alone
        assert prepare_plan("C", settings, store, database).ranges == ()
        assert result(store, database) == alone
        unplan(database)


def test_ranges_side_by_side_make_the_same_plan(
    alone: Result, small: Settings, database: Database, tmp_path: Path
) -> None:
    store = elsewhere(tmp_path, "all")

    def work(name: str) -> None:
        index, of = map(int, name.split("/"))
        with open_database(small) as own:
            plan_range("C", index, of, small, store, own)

    ranges = prepare_plan("C", small, store, database).ranges
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, [*ranges, *ranges[::-1]]))  # each by two planners
    assert result(store, database) == alone


class Killer:
    """Ends what runs at a step chosen at random: before or after a transaction or a change of the store."""

    def __init__(self, patch: pytest.MonkeyPatch, rng: random.Random, most_steps: int = 220) -> None:
        self._rng = rng
        self._most_steps = most_steps
        self._left: int | None = None
        self.kills = 0
        for owner, name in (
            (Database, "_transaction"),
            (LocalStore, "create"),
            (LocalStore, "swap"),
            (LocalStore, "write"),
        ):
            patch.setattr(owner, name, self._stepping(getattr(owner, name)))

    def _stepping(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **keys: Any) -> Any:
            self._step()
            done = action(*args, **keys)
            self._step()
            return done

        return stepped

    def _step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KilledError

    def survives(self, action: Callable[[], object]) -> bool:
        """Whether an action came to its end."""
        self._left = self._rng.randrange(self._most_steps)
        try:
            action()
        except KilledError:
            self.kills += 1
            return False
        finally:
            self._left = None
        return True


def test_killed_at_any_moment_planners_make_the_same_plan(
    alone: Result, small: Settings, database: Database, tmp_path: Path
) -> None:
    kills = 0
    for seed in range(8):
        rng = random.Random(seed)
        store = elsewhere(tmp_path, seed)
        count = rng.choice([1, 2, 3, 5])
        settings = replace(small, airflow=AirflowSettings(plan_ranges=count))
        with pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, rng)

            def prepare(settings: Settings = settings, store: Store = store) -> None:
                prepare_plan("C", settings, store, database)

            while not killer.survives(prepare):
                pass
            left = list(range(1, count + 1))
            while left:
                index = rng.choice(left)

                def cut(index: int = index, settings: Settings = settings, store: Store = store) -> None:
                    plan_range("C", index, count, settings, store, database)  # noqa: B023

                if killer.survives(cut):
                    left.remove(index)
            kills += killer.kills
        assert result(store, database) == alone
        unplan(database)
    assert kills > 16


def test_what_a_killed_range_has_recorded_is_not_cut_again(
    store: Store, small: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(store, small, database, 0, 1, 2)
    prepare_plan("C", small, store, database)
    recorded: list[int] = []

    def record(*args: Any) -> None:
        if len(recorded) == 2:
            raise KilledError
        recorded.append(args[1].number)
        original(*args)

    from laion_etl.plan import stage

    original = stage.record_window
    with monkeypatch.context() as patch:
        patch.setattr(stage, "record_window", record)
        with pytest.raises(KilledError):
            plan_range("C", 1, 2, small, store, database)
    assert recorded == [0, 1]
    queue = [number for (number,) in database.connection.execute("select batch from batch")]
    assert queue  # may be downloaded
    assert set(queue) < set(planned_batches("C", store))  # one window more had its files
    cut: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(stage, "record_window", lambda *args: cut.append(args[1].number) or original(*args))
        assert plan_range("C", 1, 2, small, store, database).fingerprint == ""
        plan_range("C", 2, 2, small, store, database)
    assert cut == [2, 3, 4, 5, 6, 7]


def test_a_later_round_is_the_same_too_and_keeps_the_numbers_of_the_first(
    alone: Result, small: Settings, database: Database, tmp_path: Path
) -> None:
    made = []
    load(elsewhere(tmp_path, "pairs"), small, database, 3, 4)
    for name in ("one process", "ranges"):
        store = elsewhere(tmp_path, name)
        database.connection.execute(
            "update partition set fingerprint = '' where partition >= 3"
        )  # not loaded
        in_ranges(store, small, database) if name == "ranges" else plan_batches("C", small, store, database)
        first = set(planned_batches("C", store))
        assert first == {row[0] for row in alone["batches"]}
        database.connection.execute("update partition set fingerprint = loading where partition >= 3")
        in_ranges(store, small, database) if name == "ranges" else plan_batches("C", small, store, database)
        made.append(result(store, database))
        both = planned_batches("C", store)
        assert first < set(both)
        assert sum(batch.pairs for batch in planned_files("C", store)) == 150
        assert min(set(both) - first) > max(first)
        unplan(database)
    assert made[0] == made[1]


def test_partitions_loaded_after_a_plan_began_are_named_at_its_end(
    store: Store, small: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    load(store, small, database, 0, 1)
    prepare_plan("C", small, store, database)
    load(store, small, database, 2)
    assert plan_range("C", 1, 2, small, store, database).details == {"unplanned": 0}  # not its end
    assert caplog.messages == []
    assert plan_range("C", 2, 2, small, store, database).details == {"unplanned": 1}
    assert caplog.messages == [
        "1 partition of C loaded after this plan began; run `laion-etl stage plan --crawl C` again"
    ]
    assert in_ranges(store, small, database).ranges
    assert plan_range("C", 1, 1, small, store, database).details == {"unplanned": 0}
    assert sum(batch.pairs for batch in planned_files("C", store)) == 90


def test_a_forgotten_crawl_gets_the_same_numbers_again(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0, 1, 2)
    plan_batches("C", small, store, database)
    before = list(planned_files("C", store))
    forget_crawl("C", small, store, database)
    load(store, small, database, 2, 0, 1)
    in_ranges(store, small, database, random.Random(7))
    assert list(planned_files("C", store)) == before
    forget_crawl("C", small, store, database)
    load(store, small, database, 0, 1)  # other pairs in every window
    plan_batches("C", small, store, database)
    assert not {batch.number for batch in before} & set(planned_batches("C", store))


def test_two_databases_with_one_store_share_a_number_only_for_the_same_pairs(
    store: Store, small: Settings, database: Database, postgres: EmbeddedServer
) -> None:
    """Their rounds are open at the same time."""
    load(store, small, database, 0, 1, 2)
    prepare_plan("C", small, store, database)
    plan_range("C", 2, 3, small, store, database)
    with another_database(small, postgres) as other:
        load(store, small, other, 0, 1)
        prepare_plan("C", small, store, other)
        for index in (1, 3):
            plan_range("C", index, 3, small, store, other)
            plan_range("C", index, 3, small, store, database)
        plan_range("C", 2, 3, small, store, other)
        numbers: list[int] = []
        for one in (database, other):
            assert loaded_crawl("C", store, one).windows_left == 0
            numbers += [number for (number,) in one.connection.execute("select batch from batch")]
        assert len(numbers) == len(set(numbers)) > 30  # the windows differ, and with them the batches


def test_an_unfinished_plan_counts_as_nothing_but_work_to_do(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0, 1, 2)
    prepare_plan("C", small, store, database)
    assert planned_batches("C", store) == []
    assert not is_without_batches("C", store)
    plan_range("C", 1, 2, small, store, database)
    loaded = loaded_crawl("C", store, database)
    assert loaded.windows_left == 4
    assert loaded.partitions == frozenset()
    done = database.connection.execute("select batch from batch order by 1").fetchall()
    assert planned_batches("C", store) == [number for (number,) in done]
    with pytest.raises(IncompleteError, match=r"its plan is not finished, 4 of its windows are left; clear"):
        Expected([0, 1, 2], 1.0, loaded).check_partitions("C", store)
    plan_range("C", 2, 2, small, store, database)
    loaded = loaded_crawl("C", store, database)
    Expected([0, 1, 2], 0.0, loaded).check_partitions("C", store)


def test_a_range_of_a_plan_that_has_not_begun_is_refused(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0)
    with pytest.raises(DatabaseError, match=r"its plan has not begun; run .* --prepare"):
        plan_range("C", 1, 2, small, store, database)


def test_a_planner_of_a_forgotten_crawl_records_nothing(
    store: Store, small: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(store, small, database, 0, 1)
    prepare_plan("C", small, store, database)
    from laion_etl.plan import stage

    original = stage.record_window

    def forgotten(*args: Any) -> None:
        monkeypatch.undo()
        with open_database(small) as other:
            forget_crawl("C", small, store, other)
        original(*args)

    monkeypatch.setattr(stage, "record_window", forgotten)
    with pytest.raises(DatabaseError, match="cannot plan C: it was forgotten meanwhile"):
        plan_range("C", 1, 2, small, store, database)
    assert database.connection.execute("select count(*) from batch").fetchone() == (0,)


def test_a_crawl_of_one_host_is_planned_with_more_of_its_pairs_in_each_batch(
    store: Store, settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    load(store, settings, database, *range(10))
    few = replace(settings, plan=PlanSettings(batch_size=150, window_pairs=150, max_pairs_per_host=5))
    prepared = prepare_plan("C", few, store, database)
    plan_range("C", 1, 2, few, store, database)
    assert "a batch has up to 8 of the host, more than LAION_ETL_PLAN_MAX_PAIRS_PER_HOST (5)" in caplog.text
    stats = plan_batches("C", few, store, database)
    assert (len(prepared.ranges), stats.kept) == (2, 300)
    sizes = [pairs for (pairs,) in database.connection.execute("select pairs from batch").fetchall()]
    assert (sum(sizes), len(sizes), max(sizes)) == (300, 40, 8)


def test_a_window_reads_its_own_part_of_the_record_of_numbers(
    store: Store, small: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(store, small, database, 0, 1, 2)
    digests = [f"{number:016x}" for number in range(2_500)]
    from laion_etl.plan.batch_numbers import BatchNumbers
    from laion_etl.plan.taken_numbers import TakenNumbers

    BatchNumbers("C", store, TakenNumbers(database)).give(digests)
    prepare_plan("C", small, store, database)
    read: list[str] = []
    original = LocalStore.read_with_etag
    with monkeypatch.context() as patch:
        patch.setattr(
            LocalStore, "read_with_etag", lambda self, name: read.append(name) or original(self, name)
        )
        plan_range("C", 1, 1, small, store, database)
    names = [name.rpartition("/")[2] for name in read]
    assert names.count("001.json") == 1  # by all eight windows together
    assert min(planned_batches("C", store)) == batch_no(2_500)


def test_files_of_windows_that_the_store_lost_are_written_again(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0, 1, 2)
    plan_batches("C", small, store, database)
    before = result(store, database)
    for name in store.list("plan/C")[::2]:
        store.delete(name)
    store.delete("batches/C/_stats.json")
    plan_batches("C", small, store, database)
    assert result(store, database) == before


def test_a_crawl_without_new_pairs_has_a_plan_without_batches(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0)
    write_pairs(store, "D", 0, numbered_pairs(0, PAIRS_OF_PARTITION))
    load_partition("D", 0, small, store, database)
    assert prepare_plan("D", small, store, database).ranges == ()
    assert is_without_batches("D", store)
    loaded = loaded_crawl("D", store, database)
    assert (loaded.partitions, loaded.windows_left) == ({0}, 0)
    Expected([0], 0.0, loaded).check_partitions("D", store)


def test_a_plan_of_an_earlier_version_is_read_and_gets_windows(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0)
    now = plan_batches("C", replace(small, plan=PlanSettings(batch_size=5)), store, database)
    batches = list(planned_files("C", store))
    for statement in ("delete from plan_window", "delete from plan_round"):
        database.connection.execute(statement)  # type: ignore[call-overload]
    for name in store.list("plan"):
        store.delete(name)
    outputs = tuple(batch.file for batch in batches)
    rows = [(batch.number, batch.pairs, asdict(batch.file)) for batch in batches]
    details = {"batches": batches_in(now)}
    before = replace(now, fingerprint=fingerprint("plan", rows), outputs=outputs, details=details)
    store.write_stats("batches/C/_stats.json", before)
    assert planned_batches("C", store) == batches_in(now)
    Expected([0], 0.0, loaded_crawl("C", store, database)).check_partitions("C", store)
    load(store, small, database, 1)
    in_ranges(store, small, database)
    after = list(planned_files("C", store))
    assert after[: len(batches)] == batches
    assert len(after) > len(batches)
    Expected([0, 1], 0.0, loaded_crawl("C", store, database)).check_partitions("C", store)


def test_a_planner_that_records_a_window_and_forget_wait_for_each_other_in_one_order(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0, 1)
    prepare_plan("C", small, store, database)

    def forget() -> None:
        with open_database(small) as other:
            forget_crawl("C", small, store, other)

    with ThreadPoolExecutor(1) as pool, database.another() as planner:
        with planner.connection.transaction():
            planner.connection.execute("select from plan_round for update")
            running = pool.submit(forget)
            wait_for(lambda: bool(database.connection.execute(WAITING).fetchall()))
            planner.connection.execute("select from plan_window for update nowait")
        running.result()
    assert database.connection.execute("select count(*) from crawl").fetchone() == (0,)


def test_batches_of_other_crawls_are_not_read(database: Database) -> None:
    connection = database.connection
    connection.execute("insert into crawl (crawl) values ('A'), ('B'), ('C')")
    connection.execute(
        "insert into batch (batch, crawl_no, pairs, file, state) "
        "select n, case when n <= 2000 then 1 else 2 end, 1, '{}', "
        "(enum_range(null::batch_state))[1 + n % 6] "
        "from generate_series(1, 2040) as n"
    )
    connection.execute("analyze batch")
    for name, keys in (
        ("plan.a_batch_of", {"crawl_no": 3}),
        ("forget.batches", {"crawl_no": 2, "rows": 30}),
        ("forget.batches", {"crawl_no": 2, "rows": 30}),
    ):
        plan = connection.execute("explain (analyze) " + query(name), keys).fetchall()  # type: ignore[call-overload]
        assert not [line for (line,) in plan if "Removed by Filter" in line]
    counts = connection.execute("select crawl_no, count(*) from batch group by 1").fetchall()
    assert counts == [(1, 2000)]


def test_the_record_is_of_one_moment_while_others_plan(
    store: Store, small: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last window is recorded while a planner that began before writes the record."""
    from laion_etl.plan import stage

    load(store, small, database, 0, 1, 2)
    prepare_plan("C", small, store, database)
    read, write = Database.rows, stage.write_record

    def others_finish(self: Database, name: str, keys: dict[str, Any] | None = None) -> list[Any]:
        found = read(self, name, keys)
        monkeypatch.setattr(Database, "rows", read)
        with open_database(small) as other, range_servers(other) as servers:
            plan = stage._Plan.of("C", small, store, servers)
            begun = plan.round()
            assert begun is not None
            plan.cut(begun, begun.windows)
        return found

    def written(*args: Any) -> Any:
        monkeypatch.setattr(stage, "write_record", write)
        monkeypatch.setattr(Database, "rows", others_finish)
        stats = write(*args)
        assert (stats.kept, stats.details["being_planned"]["windows"]) == (0, 8)
        return stats

    monkeypatch.setattr(stage, "write_record", written)
    assert prepare_plan("C", small, store, database).stats.kept == 90
    assert planned_batches("C", store) == sorted(batch.number for batch in planned_files("C", store))


def test_a_plan_that_goes_on_also_plans_what_was_loaded_since(
    store: Store, small: Settings, database: Database
) -> None:
    load(store, small, database, 0, 1)
    prepare_plan("C", small, store, database)
    plan_range("C", 1, 2, small, store, database)
    load(store, small, database, 2)
    assert plan_batches("C", small, store, database).kept == 90
    assert loaded_crawl("C", store, database).partitions == {0, 1, 2}

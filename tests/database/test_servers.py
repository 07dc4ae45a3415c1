"""Key ranges on two and three Postgres servers: the same rows, batches, numbers and bytes as with one."""

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from laion_etl.core.errors import DatabaseError, DatabaseOutageError, SettingsError
from laion_etl.core.schemas import pair_id
from laion_etl.database import range_load
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.database.move_ranges import move_ranges, planned_moves
from laion_etl.database.reconcile import Kind, find_differences
from laion_etl.database.redact import redact_pairs
from laion_etl.database.seen_keys import export_seen_keys, import_seen_keys
from laion_etl.database.servers import range_servers
from laion_etl.database.stored_crawl import read_stored
from laion_etl.download.worker import open_queue
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches, plan_range, prepare_plan
from laion_etl.settings import AirflowSettings, LoadSettings, PlanSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs
from tests.database.servers import (
    further_server,
    keys_of,
    new_database,
    pairs_by_server,
    result,
    with_servers,
)
from tests.database.test_plan_windows import Killer
from tests.faults.test_database import wait_for
from tests.forks import Fork
from tests.preloaded_commands import command_server, completed
from tests.shared_folder import SharedFolder

PARTITIONS = {0: (0, 60), 1: (40, 100), 2: (90, 150)}  # they share pairs
ORDER = (2, 0, 1)  # the later ones take pairs over


@pytest.fixture
def urls(
    postgres: EmbeddedServer, migrated_template: str, shared: SharedFolder
) -> Callable[[int], list[str]]:
    """Makes new databases, each on a server of its own."""
    del migrated_template

    def make(count: int) -> list[str]:
        servers = [postgres, *(further_server(shared, number) for number in range(1, count))]
        return [new_database(server) for server in servers]

    return make


@pytest.fixture
def small(settings: Settings) -> Settings:
    """150 pairs make several windows, whose bounds are not those of key ranges."""
    return replace(
        settings,
        plan=PlanSettings(batch_size=6, window_pairs=22),
        airflow=AirflowSettings(plan_ranges=3),
        load=LoadSettings(connections=2),
    )


def write_all(store: Store, crawl: str = "C") -> None:
    for number, (first, last) in PARTITIONS.items():
        write_pairs(store, crawl, number, numbered_pairs(first, last))


def build(store: Store, settings: Settings, database: Database) -> None:
    """Loads and plans the crawl."""
    write_all(store)
    for number in ORDER:
        load_partition("C", number, settings, store, database)
    plan_batches("C", settings, store, database)


@pytest.fixture
def alone(small: Settings, database: Database, tmp_path: Path) -> dict[str, object]:
    """The results for the crawl with one server."""
    store = LocalStore(tmp_path / "alone")
    build(store, small, database)
    made = result(store, database)
    made["pairs"] = pairs_by_server(database)[0]
    return made


def all_pairs(database: Database) -> list[object]:
    return sorted(row for rows in pairs_by_server(database) for row in rows)


@pytest.mark.parametrize("count", [2, 3])
def test_several_servers_make_what_one_makes(
    count: int, alone: dict[str, object], small: Settings, store: Store, urls: Callable[[int], list[str]]
) -> None:
    settings = with_servers(small, urls(count))
    with open_database(settings) as database:
        build(store, settings, database)
        assert result(store, database) | {"pairs": all_pairs(database)} == alone
        with keys_of(database) as found:
            assert [{number % count for number in own} for own in found] == [{n} for n in range(count)]
            assert set().union(*found) == set(range(64))


def test_killed_at_any_moment_load_and_plan_make_what_one_server_makes(
    alone: dict[str, object], small: Settings, tmp_path: Path, urls: Callable[[int], list[str]]
) -> None:
    kills = 0
    for seed in range(3):
        rng = random.Random(seed)
        store = LocalStore(tmp_path / str(seed))
        settings = with_servers(small, urls(2))
        write_all(store)
        with open_database(settings) as database, pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, rng, most_steps=250)
            steps: list[Callable[[], object]] = [
                *(partial(load_partition, "C", number, settings, store, database) for number in ORDER),
                partial(prepare_plan, "C", settings, store, database),
                *(partial(plan_range, "C", index, 3, settings, store, database) for index in (3, 1, 2)),
            ]
            for step in steps:
                while not killer.survives(step):
                    pass
            kills += killer.kills
            assert result(store, database) | {"pairs": all_pairs(database)} == alone
    assert kills > 6


def owned(settings: Settings, urls: list[str]) -> list[object]:
    """The pairs that count: those of each range on the server that the record says has it."""
    pairs = "select pair_id, crawl, partition, url, caption, language, license, page_url from pair_text"
    with open_database(
        replace(settings, core=replace(settings.core, database_urls=(), database_url=urls[0]))
    ) as db:
        homes = dict(db.connection.execute("select range_no, server_no from range_home").fetchall())
        found = []
        for server_no, url in enumerate(urls):
            with Database(url, settings.database).another() as one:
                rows = one.connection.execute(pairs).fetchall()
                found += [row for row in rows if homes[row[0].int >> 122] == server_no]
    return sorted(found)


def test_a_killed_move_leaves_each_range_on_one_server_and_goes_on(
    alone: dict[str, object], small: Settings, store: Store, urls: Callable[[int], list[str]]
) -> None:
    all_urls = urls(3)
    one = with_servers(small, all_urls[:1])
    with open_database(one) as database:
        build(store, one, database)
    kills = 0
    for count in (2, 3):
        settings = with_servers(small, all_urls[:count])
        with open_database(settings) as database, pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, random.Random(count), most_steps=300)
            while not killer.survives(lambda: move_ranges(database)):
                assert owned(settings, all_urls) == alone["pairs"]
            kills += killer.kills
            assert move_ranges(database) == []
            with keys_of(database) as found:
                assert [{number % count for number in own} for own in found] == [{n} for n in range(count)]
            assert owned(settings, all_urls) == all_pairs(database) == alone["pairs"]
    assert kills > 4


def test_after_a_move_the_next_crawl_is_deduplicated_against_what_was_moved(
    small: Settings, store: Store, tmp_path: Path, urls: Callable[[int], list[str]]
) -> None:
    made = []
    for count in (1, 2):
        own = LocalStore(tmp_path / f"of {count}")
        all_urls = urls(count)
        one = with_servers(small, all_urls[:1])
        with open_database(one) as database:
            build(own, one, database)
        settings = with_servers(small, all_urls)
        with open_database(settings) as database:
            moved = {move.range_no for move in move_ranges(database)}
            assert moved == {number for number in range(64) if number % count}
            write_pairs(own, "D", 0, numbered_pairs(100, 200))
            write_pairs(own, "D", 1, numbered_pairs(180, 220))
            for number in (1, 0):
                load_partition("D", number, settings, own, database)
            plan_batches("D", settings, own, database)
            made.append(result(own, database) | {"pairs": all_pairs(database)})
    assert made[0] == made[1]
    assert made[0]["partitions"][-2][-1]["dropped"] == {"duplicate_of_earlier_crawl": 50}


def test_a_corrected_partition_gives_pairs_back_on_every_server(
    small: Settings, tmp_path: Path, urls: Callable[[int], list[str]]
) -> None:
    made = []
    for count in (1, 3):
        store = LocalStore(tmp_path / f"of {count}")
        settings = with_servers(small, urls(count))
        write_all(store)
        with open_database(settings) as database:
            for number in ORDER:
                load_partition("C", number, settings, store, database)
            write_pairs(store, "C", 0, numbered_pairs(30, 50))
            load_partition("C", 0, settings, store, database)
            plan_batches("C", settings, store, database)
            made.append(result(store, database) | {"pairs": all_pairs(database)})
    assert made[0] == made[1]
    assert len(made[0]["pairs"]) == 120  # type: ignore[arg-type]


def test_forget_removal_and_keys_reach_every_server(
    small: Settings, store: Store, urls: Callable[[int], list[str]]
) -> None:
    settings = with_servers(small, urls(2))
    ids = [pair_id(*pair).hex() for pair in numbered_pairs(0, 50)]
    with open_database(settings) as database:
        build(store, settings, database)
        assert redact_pairs(ids, settings, database) == 50
        texts = [row[3] for rows in pairs_by_server(database) for row in rows]
        assert texts.count("") == 50
        _, count = export_seen_keys("keys", settings, store, database)
        assert count == 150
        forget_crawl("C", settings, store, database)
        with range_servers(database) as servers:
            for server in servers.databases:
                for table in ("pair", "page", "partition", "partition_range"):
                    rows = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
                    assert server.connection.execute(rows).fetchone() == (0,)
        uri = store.uri("memory/keys.parquet")
        assert import_seen_keys(uri, settings, database).kept == 150
        assert import_seen_keys(uri, settings, database).kept == 150
        write_pairs(store, "C", 0, numbered_pairs(140, 160))
        stats = load_partition("C", 0, settings, store, database)
        assert (stats.kept, stats.dropped) == (10, {"duplicate_of_earlier_crawl": 10})


def test_another_list_of_servers_is_refused(
    small: Settings, store: Store, urls: Callable[[int], list[str]]
) -> None:
    first, second, third = urls(3)
    settings = with_servers(small, [first, second])
    write_all(store)
    with open_database(settings) as database:
        load_partition("C", 0, settings, store, database)
    for given, cause in (
        ([first], "cannot use 1 server: the pairs of this database are on 2"),
        ([first, second, third], "cannot use 3 servers: the pairs of this database are on 2"),
        ([first, third], "as server 1: it is not recorded"),
        ([second, first], "it is server 1 of several"),
        ([second], "it is server 1 of several"),
        ([third, second], "is part of another list of servers"),
        ([third, third], "it is the first server"),
    ):
        other = with_servers(small, given)
        with pytest.raises(DatabaseError, match=cause), open_database(other) as database:
            load_partition("C", 1, other, store, database)
    with open_database(settings) as database:
        assert load_partition("C", 1, settings, store, database).kept == 40


def test_a_loader_with_the_list_before_a_move_writes_nothing(
    small: Settings, store: Store, urls: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has opened its servers when the move begins."""
    first, second = urls(2)
    before, after = with_servers(small, [first]), with_servers(small, [first, second])
    write_all(store)
    from laion_etl.database import servers_load

    original = servers_load.RangeLoad.run

    def moved_first(*arguments: object) -> object:
        with open_database(after) as database:
            assert len(move_ranges(database)) == 32
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(servers_load.RangeLoad, "run", moved_first)
    with open_database(before) as database, pytest.raises(DatabaseError, match="is on server 1"):
        load_partition("C", 0, before, store, database)
    monkeypatch.undo()
    with open_database(after) as database:
        assert load_partition("C", 0, after, store, database).kept == 60
        assert [len(rows) > 0 for rows in pairs_by_server(database)] == [True, True]
        assert len(all_pairs(database)) == 60


def test_a_move_is_refused_while_a_plan_is_open_and_says_what_it_would_do(
    small: Settings, store: Store, urls: Callable[[int], list[str]]
) -> None:
    first, second = urls(2)
    before, after = with_servers(small, [first]), with_servers(small, [first, second])
    write_all(store)
    with open_database(before) as database:
        load_partition("C", 0, before, store, database)
        left = prepare_plan("C", before, store, database).ranges
    with open_database(after) as database:
        moves = planned_moves(database)
        assert [move.range_no for move in moves] == list(range(1, 64, 2))
        assert {(move.old, move.new) for move in moves} == {(0, 1)}
        pairs = sum(move.pairs for move in moves)
        with pytest.raises(DatabaseError, match="the plan of C is not finished"):
            move_ranges(database)
    with open_database(before) as database:
        for name in left:
            index, of = map(int, name.split("/"))
            plan_range("C", index, of, before, store, database)
    with open_database(after) as database:
        assert sum(move.pairs for move in move_ranges(database)) == pairs
        assert planned_moves(database) == []


def test_the_first_of_the_list_is_the_url_or_stands_alone() -> None:
    settings = Settings()
    urls = ("postgresql://one/laion", "postgresql://two/laion")
    core = replace(settings.core, database_urls=urls, database_url=urls[0])
    assert core.server_urls == urls
    assert replace(settings.core, database_url=urls[1]).server_urls == urls[1:]
    with pytest.raises(
        SettingsError, match="its first server is not that of LAION_ETL_DATABASE_URL"
    ) as refused:
        replace(settings.core, database_urls=urls, database_url=urls[1])
    assert "two" not in str(refused.value)


def environment_of(settings: Settings, store: Store, urls: list[str]) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LAION_ETL_")}
    return plain | {
        "LAION_ETL_STORE": store.uri(),
        "LAION_ETL_DATABASE_URLS": ",".join(urls),
        "LAION_ETL_DATABASE_RETRY_FOR_S": "0",
        "LAION_ETL_PLAN_BATCH_SIZE": str(settings.plan.batch_size),
        "LAION_ETL_PLAN_WINDOW_PAIRS": str(settings.plan.window_pairs),
    }


@contextmanager
def killed_while_it_waits(
    command: list[str],
    environment: dict[str, str],
    folder: Path,
    url: str,
    done_elsewhere: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Kills a command with SIGKILL while it waits for table pair on one server, and has done the rest."""
    waiting = """
        select count(*) > 0 from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'"""
    with psycopg.connect(url, autocommit=True) as holder, (folder / "output").open("w+") as output:
        with holder.transaction():
            holder.execute("lock table pair in access exclusive mode")
            server = command_server(SharedFolder.of_this_run(), environment)
            streams = (output.fileno(), output.fileno())
            fork = Fork(server, ["-m", "laion_etl", *command], environment, folder, streams)
            with psycopg.connect(url, autocommit=True) as other:
                wait_for(
                    lambda: (
                        fork.poll() is not None
                        or (other.execute(waiting).fetchone() == (True,) and done_elsewhere())
                    )
                )
            output.seek(0)
            assert fork.poll() is None, output.read()
            os.kill(fork.pid, signal.SIGKILL)
            assert fork.wait() == -signal.SIGKILL
        yield


def test_killed_by_the_system_load_plan_and_move_go_on(
    alone: dict[str, object], small: Settings, store: Store, tmp_path: Path, urls: Callable[[int], list[str]]
) -> None:
    """The process is killed while it works on the second server; what it wrote on the first stays."""
    two, three = (all_urls := urls(3))[:2], all_urls
    settings = with_servers(small, two)
    write_all(store)
    run = environment_of(small, store, two)
    with open_database(settings) as database:
        load_partition("C", 2, settings, store, database)

        def all_of_the_first_server() -> bool:
            begun = "select count(*) from partition_range where partition_no = 2"
            return database.connection.execute(begun).fetchone() == (32,)

        load = ["stage", "load", "--crawl", "C", "--partition", "0"]
        with killed_while_it_waits(load, run, tmp_path, two[1], all_of_the_first_server):
            assert all_of_the_first_server()
        for number in ORDER:
            load_partition("C", number, settings, store, database)
        with killed_while_it_waits(["stage", "plan", "--crawl", "C"], run, tmp_path, two[1]):
            assert database.connection.execute(
                "select count(*) from plan_round where not done"
            ).fetchone() == (1,)
        plan_batches("C", settings, store, database)
        made = result(store, database) | {"pairs": all_pairs(database)}
    assert made == alone
    run = environment_of(small, store, three)
    with killed_while_it_waits(["db", "move-ranges"], run, tmp_path, three[2]):
        done = completed(
            ["-m", "laion_etl", "stage", "load", "--crawl", "C", "--partition", "0"], run, tmp_path
        )
        assert done.returncode == 1
        assert "moving them to other servers was not finished" in done.stderr
    done = completed(["-m", "laion_etl", "db", "move-ranges", "--json"], run, tmp_path)
    assert done.returncode == 0, done.stderr
    moved = {one["range_no"]: (one["old"], one["new"]) for one in json.loads(done.stdout)["ranges"]}
    assert moved == {n: (n % 2, n % 3) for n in range(64) if n % 2 != n % 3}
    settings = with_servers(small, three)
    with open_database(settings) as database:
        assert result(store, database) | {"pairs": all_pairs(database)} == alone


def test_a_server_that_is_down_is_an_outage_and_stops_no_downloads(
    small: Settings, store: Store, tmp_path: Path, urls: Callable[[int], list[str]]
) -> None:
    first, second = urls(2)
    settings = with_servers(small, [first, second])
    down = [first, f"postgresql:///laion?host={tmp_path}"]
    with open_database(settings) as database:
        build(store, settings, database)
        write_pairs(store, "C", 3, numbered_pairs(200, 210))
        for command in (["load", "--partition", "3"], ["plan"]):
            words = ["-m", "laion_etl", "stage", *command, "--crawl", "C"]
            done = completed(words, environment_of(small, store, down), tmp_path)
            assert done.returncode == 75, done.stderr
            assert str(tmp_path) in done.stderr
        with open_database(with_servers(small, down)) as other:
            claim = open_queue("C", settings, other).claim()
            assert claim is not None
        states = "select distinct state::text, attempts from batch where batch <> %s"
        assert database.connection.execute(states, [claim.batch]).fetchall() == [("ready", 0)]
        assert load_partition("C", 3, settings, store, database).kept == 10


def test_a_server_that_goes_down_during_a_load_ends_it_and_the_next_one_goes_on(
    small: Settings, store: Store, urls: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = urls(2)
    at_once = replace(small, database=replace(small.database, retry_for_s=0.0))
    settings = with_servers(at_once, [first, second])
    write_all(store)
    name, admin = conninfo_to_dict(second)["dbname"], make_conninfo(second, dbname="postgres")
    gone = threading.Event()
    original = range_load.take_ranges

    def taken(connection: Connection, *rest: Any) -> list[int]:
        if connection.info.dbname == name and not gone.is_set():
            gone.set()
            with psycopg.connect(admin, autocommit=True) as server:
                statement = sql.SQL("alter database {} allow_connections false")
                server.execute(statement.format(sql.Identifier(str(name))))
                server.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
                )
        return original(connection, *rest)

    monkeypatch.setattr(range_load, "take_ranges", taken)
    with open_database(settings) as database, pytest.raises(DatabaseOutageError) as ended:
        load_partition("C", 0, settings, store, database)
    assert ended.value.exit_code == 75
    assert gone.is_set()
    with psycopg.connect(admin, autocommit=True) as server:
        statement = sql.SQL("alter database {} allow_connections true")
        server.execute(statement.format(sql.Identifier(str(name))))
    with open_database(settings) as database:
        assert load_partition("C", 0, settings, store, database).kept == 60
        assert len(all_pairs(database)) == 60


def test_db_migrate_divides_the_ranges_of_a_new_database(
    small: Settings, store: Store, tmp_path: Path, urls: Callable[[int], list[str]]
) -> None:
    all_urls = urls(3)
    run = environment_of(small, store, all_urls)
    done = completed(["-m", "laion_etl", "db", "migrate", "--json"], run, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["servers"] == 3
    for server_no, url in enumerate(all_urls):
        with psycopg.connect(url) as connection:
            own = "select range_no from range_home join this_server using (server_no) order by 1"
            numbers = [number for (number,) in connection.execute(own).fetchall()]
            assert numbers == list(range(server_no, 64, 3))


def test_the_roles_are_enough_on_every_server(
    alone: dict[str, object], small: Settings, store: Store, urls: Callable[[int], list[str]]
) -> None:
    all_urls = urls(2)
    with open_database(with_servers(small, all_urls)) as database, range_servers(database):
        pass  # by the owner
    write_all(store)

    def as_role(role: str) -> Settings:
        return with_servers(small, [f"{url}&options=-c%20role%3D{role}" for url in all_urls])

    loader = as_role("laion_loader")
    with open_database(loader) as database:
        for number in ORDER:
            load_partition("C", number, loader, store, database)
    planner = as_role("laion_planner")
    with open_database(planner) as database:
        plan_batches("C", planner, store, database)
    worker = with_servers(small, [f"{all_urls[0]}&options=-c%20role%3Dlaion_worker"])
    with open_database(worker) as database:
        assert open_queue("C", worker, database).claim() is not None
    with open_database(with_servers(small, all_urls)) as database:
        database.connection.execute("update batch set state = 'ready'")
        assert result(store, database) | {"pairs": all_pairs(database)} == alone


def test_a_server_that_was_restored_from_an_older_backup_is_found(
    small: Settings, store: Store, urls: Callable[[int], list[str]]
) -> None:
    settings = with_servers(small, urls(2))
    with open_database(settings) as database:
        build(store, settings, database)
        assert (
            Kind.INCOMPLETE_PARTITION
            not in find_differences("C", read_stored("C", store), store, database).numbers
        )
        with range_servers(database) as servers:
            servers.further[0].connection.execute(
                "delete from partition_range where partition_no = (select partition_no from partition "
                "where partition = 1) and range_no > 40"
            )
        found = find_differences("C", read_stored("C", store), store, database)
        assert found.of(Kind.INCOMPLETE_PARTITION) == [1]

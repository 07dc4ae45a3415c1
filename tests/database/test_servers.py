"""Key ranges on two and three Postgres servers: the same rows, batches, numbers and bytes as with one."""

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from laion_etl.core.errors import DatabaseError, DatabaseOutageError, SettingsError
from laion_etl.core.ids import BATCHES_PER_CRAWL
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.database.move_ranges import move_ranges, planned_moves
from laion_etl.database.redact import redact_pairs
from laion_etl.database.seen_keys import export_seen_keys, import_seen_keys
from laion_etl.database.servers import range_servers
from laion_etl.core.schemas import pair_id
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches, plan_range, prepare_plan
from laion_etl.settings import AirflowSettings, LoadSettings, PlanSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs
from tests.database.servers import further_server, new_database, pairs_by_server, keys_of, result, with_servers
from tests.database.test_plan_windows import Killer, KilledError
from tests.shared_folder import SharedFolder

PARTITIONS = {0: (0, 60), 1: (40, 100), 2: (90, 150)}  # they share pairs
ORDER = (2, 0, 1)  # the later ones take pairs over


@pytest.fixture
def urls(postgres: EmbeddedServer, migrated_template: str, shared: SharedFolder) -> Callable[[int], list[str]]:
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
    """What one server makes of the crawl."""
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

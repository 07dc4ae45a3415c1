"""Removal requests in Postgres: URLs and captions go, keys stay."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from laion_etl.core.schemas import pair_id
from laion_etl.database.connection import Database
from laion_etl.database.load import load_partition
from laion_etl.database.redact import redact_pairs
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import LoadSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs
from tests.database.test_plan import read_batch
from tests.test_cli import laion_etl

PAIRS = numbered_pairs(0, 20)
GONE = PAIRS[3:6]
IDS = [pair_id(url, caption).hex() for url, caption in GONE]


@pytest.fixture(params=["pair", "url"])
def by(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with one dedupe rule or the other."""
    return replace(settings, load=LoadSettings(dedupe=request.param))


def texts(database: Database) -> list[tuple[str, str]]:
    return sorted(database.connection.execute("select url, caption from pair").fetchall())


def test_named_pairs_lose_their_texts_and_no_others(store: Store, database: Database, by: Settings) -> None:
    write_pairs(store, "C", 0, PAIRS)
    load_partition("C", 0, by, store, database)
    assert redact_pairs([*IDS, "0" * 32], by, database) == 3
    assert texts(database) == sorted([pair for pair in PAIRS if pair not in GONE] + 3 * [("", "")])
    assert redact_pairs(IDS, by, database) == 0


def test_they_are_planned_as_empty_places_with_keys_of_their_own(
    store: Store, database: Database, by: Settings
) -> None:
    write_pairs(store, "C", 0, PAIRS)
    load_partition("C", 0, by, store, database)
    redact_pairs(IDS, by, database)
    assert plan_batches("C", by, store, database).kept == len(PAIRS)
    batch = read_batch(store, 0)
    assert sorted(batch["url"].to_pylist())[:4] == ["", "", "", min(set(PAIRS) - set(GONE))[0]]
    assert len(set(batch["pair_id"].to_pylist())) == len(PAIRS)


def test_they_stay_known(store: Store, database: Database, by: Settings) -> None:
    write_pairs(store, "C", 0, PAIRS)
    load_partition("C", 0, by, store, database)
    redact_pairs(IDS, by, database)
    write_pairs(store, "D", 0, GONE)
    assert load_partition("D", 0, by, store, database).kept == 0
    assert not set(texts(database)) & set(GONE)


def test_the_command_empties_them_where_there_is_a_database(tmp_path: Path, settings: Settings) -> None:
    store = LocalStore(tmp_path / "data")
    write_pairs(store, "C", 0, PAIRS)
    (tmp_path / "list").write_text("\n".join(url for url, _ in GONE))
    remove = ("dataset", "remove", "--list", "list", "--json")
    done = laion_etl(tmp_path, *remove)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["in_database"] is None
    assert not (tmp_path / "data" / "postgres").exists()

    write_pairs(store, "C", 0, PAIRS)
    own = {"DATABASE_URL": settings.core.database_url}
    assert laion_etl(tmp_path, "stage", "load", "--crawl", "C", "--partition", "0", **own).returncode == 0
    done = laion_etl(tmp_path, *remove, **own)
    assert done.returncode == 0, done.stderr
    assert "3 pairs emptied in Postgres" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["in_database"] == 3

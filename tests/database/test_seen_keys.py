from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import DatabaseError, InputError
from laion_etl.core.schemas import pair_id
from laion_etl.database.connection import Database
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import IMPORTED, load_partition
from laion_etl.database.seen_keys import export_seen_keys, import_seen_keys
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import LoadSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs


@pytest.fixture
def exported(store: Store, settings: Settings, database: Database, tmp_path: Path) -> str:
    """The exported keys of a crawl OLD with pairs 0 to 99, which is then forgotten."""
    write_pairs(store, "OLD", 0, numbered_pairs(0, 100))
    load_partition("OLD", 0, settings, store, database)
    output, count = export_seen_keys("old", settings, store, database)
    assert (output.name, count) == ("memory/old.parquet", 100)
    forget_crawl("OLD", settings, store, database)
    return str(tmp_path / "store" / output.name)


def test_what_was_forgotten_is_still_known(
    exported: str, store: Store, settings: Settings, database: Database
) -> None:
    stats = import_seen_keys(exported, settings, database)
    assert (stats.crawl, stats.input, stats.kept, stats.dropped) == (IMPORTED, 100, 100, {})
    assert database.connection.execute("select sum(length(url || caption)) from pair").fetchone() == (0,)
    write_pairs(store, "NEW", 0, numbered_pairs(50, 120))
    new = load_partition("NEW", 0, settings, store, database)
    assert (new.kept, new.dropped) == (20, {"duplicate_of_earlier_crawl": 50})
    assert plan_batches("NEW", settings, store, database).kept == 20


def test_importing_twice_changes_nothing(exported: str, settings: Settings, database: Database) -> None:
    first = import_seen_keys(exported, settings, database)
    assert import_seen_keys(exported, settings, database) == first
    assert database.connection.execute("select count(*) from pair").fetchone() == (100,)
    assert database.connection.execute("select count(*) from partition").fetchone() == (1,)


def test_what_is_known_keeps_its_texts(
    exported: str, store: Store, settings: Settings, database: Database
) -> None:
    write_pairs(store, "NEW", 0, numbered_pairs(90, 110))
    load_partition("NEW", 0, settings, store, database)
    stats = import_seen_keys(exported, settings, database)
    assert (stats.kept, stats.dropped) == (90, {"duplicate_of_earlier_crawl": 10})
    assert plan_batches("NEW", settings, store, database).kept == 20


def test_a_memory_can_be_forgotten_and_exported_again(
    exported: str, store: Store, settings: Settings, database: Database
) -> None:
    import_seen_keys(exported, settings, database)
    output, count = export_seen_keys("again", settings, store, database)
    assert count == 100
    assert store.read(output.name) == store.read("memory/old.parquet")
    forget_crawl(IMPORTED, settings, store, database)
    assert database.connection.execute("select count(*) from pair").fetchone() == (0,)


def test_the_file_is_sorted_hashes_and_nothing_else(exported: str) -> None:
    table = pq.read_table(exported)
    assert table.column_names == ["key"]
    keys = table["key"].to_pylist()
    assert keys == sorted(pair_id(*pair) for pair in numbered_pairs(0, 100))
    assert Path(exported).stat().st_size < 100 * 16 + 1000


def test_a_memory_made_under_another_rule_is_refused(
    exported: str, settings: Settings, database: Database
) -> None:
    database.connection.execute("delete from dedupe_rule")
    by_url = replace(settings, load=LoadSettings(dedupe="url"))
    with pytest.raises(InputError, match="made by rule pair and LAION_ETL_LOAD_DEDUPE is url"):
        import_seen_keys(exported, by_url, database)


def test_other_files_are_refused(settings: Settings, database: Database, tmp_path: Path) -> None:
    no_parquet, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    no_parquet.write_bytes(b"not parquet")
    pq.write_table(pa.table({"key": ["x"]}), other)
    with pytest.raises(InputError, match="not a parquet file"):
        import_seen_keys(str(no_parquet), settings, database)
    with pytest.raises(InputError, match="was not written by `laion-etl db seen-keys export`"):
        import_seen_keys(str(other), settings, database)
    with pytest.raises(InputError, match="no such file"):
        import_seen_keys(str(tmp_path / "c.parquet"), settings, database)
    assert database.connection.execute("select count(*) from partition").fetchone() == (0,)


def test_an_empty_memory(settings: Settings, database: Database, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    output, count = export_seen_keys("empty", settings, store, database)
    assert count == 0
    assert import_seen_keys(str(tmp_path / output.name), settings, database).kept == 0


def test_the_name_of_imported_memories_is_no_crawl(
    store: Store, settings: Settings, database: Database
) -> None:
    write_pairs(store, IMPORTED, 0, numbered_pairs(0, 3))
    with pytest.raises(DatabaseError, match="imported-memory"):
        load_partition(IMPORTED, 0, settings, store, database)

"""The lines of docs/formats.md, "Loading", on a dataset of two crawls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from laion_etl.io.storage import LocalStore
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import Settings
from tests.documented_code import code_blocks, run_python
from tests.publish.world import Row, World, build_world, changed, write_world

CRAWLS = ("CC-MAIN-2024-33", "CC-MAIN-2024-38")
# What DataComp's metadata has: https://github.com/mlfoundations/datacomp
DATACOMP = [
    "uid", "url", "text", "original_width", "original_height", "clip_b32_similarity_score",
    "clip_l14_similarity_score", "face_bboxes", "sha256",
]  # fmt: skip


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    return {
        crawl: build_world(
            batches=2, samples=12, seed=seed, first_batch=int(f"{crawl[8:12]}{crawl[13:]}000000")
        )
        for seed, crawl in enumerate(CRAWLS)
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, worlds: dict[str, World]) -> Path:
    """The store; the later crawl was published twice, so a folder of the dataset is not current."""
    store = LocalStore(tmp_path_factory.mktemp("loaders"))
    for crawl, world in worlds.items():
        write_world(world, store, crawl=crawl)
        publish_dataset(crawl, Settings(), store)
    publish_dataset(CRAWLS[1], changed(Settings(), aesthetic_min=4.0), store)
    return store.root


@pytest.fixture(autouse=True)
def in_the_store(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(root)
    yield


def ids(worlds: dict[str, World], language: str = "") -> list[int]:
    rows = (row for world in worlds.values() for row in world.kept)
    return sorted(int(row["key"]) for row in rows if language in ("", row["language"]))


def test_python_libraries(worlds: dict[str, World]) -> None:
    by_card, by_files = code_blocks("formats.md", "Loading", "python")
    found: dict[str, Any] = run_python(by_card)
    everything, last = ids(worlds, "en"), ids({CRAWLS[1]: worlds[CRAWLS[1]]}, "en")
    assert len(everything) > len(last) > 10
    assert sorted(found["pairs"]["SAMPLE_ID"]) == everything
    assert sorted(found["of_one_crawl"]["SAMPLE_ID"]) == last
    assert sorted(row["laion-en/SAMPLE_ID"] for row in found["records"]) == everything
    found = run_python(by_files)
    assert sorted(found["of_one_crawl"]["SAMPLE_ID"]) == last
    assert sorted(found["pairs"]["SAMPLE_ID"]) == everything


@pytest.mark.parametrize("folder", ["dataset/laion", f"dataset/laion/{CRAWLS[0]}"])
def test_the_lines_of_the_card_work_in_its_folder(
    folder: str, root: Path, worlds: dict[str, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = root / folder / "README.md"
    monkeypatch.chdir(card.parent)
    by_card, _ = code_blocks(card, "How to load", "python")
    pairs: Any = run_python(by_card)["pairs"]
    crawls = CRAWLS if folder == "dataset/laion" else CRAWLS[:1]
    assert sorted(row["SAMPLE_ID"] for row in pairs) == ids({crawl: worlds[crawl] for crawl in crawls}, "en")
    [query] = code_blocks(card, "How to load", "sql")
    with duckdb.connect() as database:
        found = database.sql(query).fetchall()
    assert 0 < len(found) <= len(ids(worlds, "en"))


def test_duckdb_has_each_row_of_the_current_version_once(worlds: dict[str, World], root: Path) -> None:
    laion, datacomp = code_blocks("formats.md", "Loading", "sql")
    with duckdb.connect() as database:
        database.execute(laion)
        database.execute(datacomp)
        everything = ids(worlds)
        assert [
            row for (row,) in database.sql("SELECT SAMPLE_ID FROM laion ORDER BY 1").fetchall()
        ] == everything
        files = "FROM 'dataset/laion/**/*.parquet'"
        assert database.sql(f"SELECT count(DISTINCT SAMPLE_ID) {files}").fetchall() == [(len(everything),)]
        table = database.sql("SELECT * FROM datacomp").to_arrow_table()
    assert table.column_names == DATACOMP
    expected: dict[str, Row] = {row["pair_id"].hex(): row for world in worlds.values() for row in world.kept}
    assert len(expected) == table.num_rows
    for row in table.to_pylist():
        source = expected[row["uid"]]
        assert (row["url"], row["text"], row["sha256"]) == (
            source["url"],
            source["caption"],
            source["sha256"],
        )
        assert (row["original_width"], row["original_height"]) == (
            source["original_width"], source["original_height"]
        )  # fmt: skip
        assert row["clip_b32_similarity_score"] == pytest.approx(source["similarity"])
        assert row["face_bboxes"] == []

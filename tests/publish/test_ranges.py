"""A crawl that is published in ranges of batches: the same rows and numbers as at once, whatever the ranges."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import IncompleteError, InputError
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.loaded import LoadedCrawl
from laion_etl.dataset.missing_batches import Fault, MissingBatch, group_stats, write_group_stats
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish.completeness import Expected
from laion_etl.publish.ranges import publish_range
from laion_etl.publish.stage import (
    finish_variants,
    prepare_variants,
    publish_dataset,
    publish_variants,
    render_report,
)
from laion_etl.publish.verify import verify_version
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, World, build_world, changed, write_scored, write_world

BOTH = ("research", "research-safe")
FOLDERS = {"research": f"dataset/laion/{CRAWL}", "research-safe": f"dataset/laion-research-safe/{CRAWL}"}
NOT_COMPARED = {"files", "fingerprint"}  # where files are cut, and what identifies the ranges


def settings_of(batches_per_range: int, **publish: Any) -> Settings:
    return changed(
        Settings(),
        batches_per_range=batches_per_range,
        rows_per_file=25,
        subsets=(("red", "TEXT LIKE '%red%'"),),
        **{"variants": BOTH, **publish},
    )


@pytest.fixture(scope="module")
def world() -> World:
    """Seven batches, of which the third is not scored and the last one is rejected as a whole."""
    made = build_world(batches=7, samples=24)
    for row in made.batches[6]:
        row["reason"] = "low_similarity"
    return made


def write(world: World, store: Store) -> None:
    write_world(world, store)
    store.delete(f"scored/{CRAWL}/000000002_stats.json")


def in_ranges(settings: Settings, store: Store, expected: Expected | None = None) -> list[StageStats]:
    """Publish the last range first: ranges do not depend on each other."""
    count = prepare_variants(CRAWL, settings, store, expected)
    assert isinstance(count, int)
    for number in range(count, 0, -1):
        publish_range(CRAWL, number, count, settings, store, settings.publish.variants)
    return finish_variants(CRAWL, settings, store)


def rows_of(store: Store, folder: str) -> dict[str, list[Any]]:
    """The rows of every subset, in the order of the files."""
    found: dict[str, list[Any]] = {}
    for name in store.list(folder):
        subset = name.split("/")[3] if name.count("/") == 4 else "images"
        if name.endswith(".parquet"):
            with store.open(name) as file:
                found.setdefault(subset, []).extend(pq.read_table(pa.PythonFile(file)).to_pylist())
    return found


def documents_of(store: Store, folder: str) -> dict[str, Any]:
    manifest = json.loads(store.read(f"{folder}/manifest.json"))
    for place in (manifest, *manifest["parts"]):
        for name in NOT_COMPARED & place.keys():
            del place[name]
    croissant = json.loads(store.read(f"{folder}/croissant.json"))
    sets = [one for one in croissant.pop("distribution") if one["@type"] == "cr:FileSet"]
    texts = {
        name: store.read(f"{folder}/{name}") for name in ("README.md", "dataset-card.md", "report/index.html")
    }
    stats = store.read_stats(f"{folder}/_stats.json").to_plain()
    return {"manifest": manifest, "croissant": [croissant, sets], **texts} | {
        name: stats[name] for name in ("input", "kept", "dropped", "details")
    }


@pytest.fixture(scope="module")
def at_once(world: World, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = LocalStore(tmp_path_factory.mktemp("at_once"))
    write(world, store)
    publish_variants(CRAWL, settings_of(100), store)
    assert not store.list("publish")
    return store


@pytest.mark.parametrize("batches_per_range", [1, 2, 3])
def test_rows_and_numbers_do_not_depend_on_the_ranges(
    world: World, at_once: Store, tmp_path: Path, batches_per_range: int
) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    in_ranges(settings_of(batches_per_range), store)
    for variant, folder in FOLDERS.items():
        assert rows_of(store, folder) == rows_of(at_once, folder), variant
        assert documents_of(store, folder) == documents_of(at_once, folder), variant
        assert verify_version(folder.split("/")[1], "", store).problems == []

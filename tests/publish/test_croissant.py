import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from laion_etl.core.schemas import DATASET_FILES, DATASET_SCHEMA
from laion_etl.io.storage import LocalStore
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, build_world, changed, write_world

if TYPE_CHECKING:
    from mlcroissant import Dataset

EARLIER = "CC-MAIN-2026-38"
WORLD = build_world()
EARLIER_WORLD = build_world(batches=1, samples=12, seed=8, first_batch=202638_000000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset's second version in a local folder; its files are small, so that subsets have several."""
    store = LocalStore(tmp_path_factory.mktemp("croissant"))
    write_world(EARLIER_WORLD, store, crawl=EARLIER)
    publish_dataset(EARLIER, changed(Settings(), rows_per_file=20), store)
    write_world(WORLD, store)
    publish_dataset(CRAWL, changed(Settings(), rows_per_file=20), store)
    return Path(store.uri(f"dataset/laion/{CRAWL}"))


@pytest.fixture(scope="module")
def dataset(folder: Path) -> "Dataset":
    from mlcroissant import Dataset  # each process of a run imports this module, one of them runs it

    return Dataset(str(folder / "croissant.json"))


def test_mlcroissant_finds_no_error(dataset: "Dataset") -> None:
    issues = dataset.metadata.ctx.issues
    assert issues.errors == set()
    [warning] = issues.warnings
    assert "datePublished" in warning  # equal data, equal bytes
    assert dataset.metadata.version == f"{DATASET_FILES.number}.1.0"


def test_records_are_loaded_through_mlcroissant(dataset: "Dataset") -> None:
    rows = [
        _plain(row) for name in ("laion-en", "laion-multi", "laion-nolang") for row in dataset.records(name)
    ]
    expected = {row["key"]: row for row in WORLD.kept}
    assert sorted(row["key"] for row in rows) == sorted(expected)
    for row in rows:
        assert list(row) == DATASET_SCHEMA.names
        source = expected[row["key"]]
        assert (row["URL"], row["TEXT"]) == (source["url"], source["caption"])
        assert (row["SAMPLE_ID"], row["WIDTH"]) == (int(source["key"]), source["original_width"])


def test_the_whole_dataset_is_loaded_through_mlcroissant(folder: Path) -> None:
    from mlcroissant import Dataset

    whole = Dataset(str(folder.parent / "croissant.json"))
    assert whole.metadata.ctx.issues.errors == set()
    names = ("laion-en", "laion-multi", "laion-nolang")
    keys = [_plain(row)["key"] for name in names for row in whole.records(name)]
    assert sorted(keys) == sorted(row["key"] for world in (WORLD, EARLIER_WORLD) for row in world.kept)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without the record set's name in the columns; mlcroissant gives texts as bytes."""
    return {
        name.split("/", 1)[1]: value.decode() if isinstance(value, bytes) else value
        for name, value in row.items()
    }


def test_every_data_file_is_listed_with_its_hash(folder: Path) -> None:
    document = json.loads((folder / "croissant.json").read_bytes())
    objects = {entry["@id"]: entry for entry in document["distribution"] if entry["@type"] == "cr:FileObject"}
    present = list(folder.rglob("part-*.parquet"))
    assert set(objects) == {path.relative_to(folder).as_posix() for path in present}
    for path in present:
        data = path.read_bytes()
        entry = objects[path.relative_to(folder).as_posix()]
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["contentSize"] == f"{len(data)} B"


def test_what_was_collected_and_what_is_missing_is_said(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write_world(build_world(batches=2, samples=20), store, planned_batches=(0, 1, 7))
    publish_dataset(CRAWL, changed(Settings(), contact="removal@example.org"), store)
    document = json.loads(store.read(f"dataset/laion/{CRAWL}/croissant.json"))
    assert "Missing batches: 1 of 3 planned (7)." in document["rai:dataCollectionMissingData"]
    assert "removal@example.org" in document["rai:dataReleaseMaintenancePlan"]
    assert f"{CRAWL}: 555 links. Of 80 images, each tried once, 40 arrived" in document["rai:dataCollection"]

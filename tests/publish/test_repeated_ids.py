"""Two crawls with samples of one id are never visible in one dataset."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import InputError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.dataset.coverage import number_ranges
from laion_etl.dataset.manifest import current_manifest
from laion_etl.dataset.versions import read_versions, write_versions
from laion_etl.io.storage import Store
from laion_etl.publish import commit
from laion_etl.publish.repeated_ids import check_ids
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, build_world, write_world

OTHER = "CC-MAIN-2025-05"
REFUSED = rf"cannot publish {CRAWL} into laion: 1 of its batches have the numbers of .* of {OTHER} \(1\)"


@pytest.fixture
def crawls(store: Store) -> Store:
    """Two scored crawls that both have a batch 1, as version 0.1 numbered those of two databases."""
    write_world(build_world(batches=2, samples=10), store, crawl=OTHER)
    write_world(build_world(batches=2, samples=10, seed=8, first_batch=1), store)
    return store


def visible(store: Store) -> list[str]:
    return [one.version for one in read_versions("laion", store).listed]


def as_version_0_1(store: Store) -> None:
    """Takes the numbers of batches out of the manifest of the current version."""
    versions = read_versions("laion", store)
    assert versions.current is not None
    document: dict[str, Any] = json.loads(store.read(versions.current.manifest.name))
    for part in (document, *document["parts"]):
        del part["batches"]["numbers"]
    written = store.write(versions.current.manifest.name, json.dumps(document).encode())
    write_versions(versions.with_manifest(versions.current.version, written), store)


@pytest.mark.parametrize("old", [False, True])
def test_a_crawl_with_batches_of_the_same_numbers_is_refused(crawls: Store, old: bool) -> None:
    publish_dataset(OTHER, Settings(), crawls)
    if old:
        as_version_0_1(crawls)
    before = crawls.list("dataset")
    with pytest.raises(InputError, match=REFUSED):
        publish_dataset(CRAWL, Settings(), crawls)
    assert crawls.list("dataset") == before
    elsewhere = replace(Settings(), publish=replace(Settings().publish, name="other"))
    publish_dataset(CRAWL, elsewhere, crawls)
    assert verify_version("other", "", crawls).problems == []


def test_a_crawl_published_meanwhile_is_seen_before_anything_is_visible(
    crawls: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = commit._describe

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()
        publish_dataset(OTHER, Settings(), crawls)
        return describe(*arguments)

    monkeypatch.setattr(commit, "_describe", overtaken)
    with pytest.raises(InputError, match=REFUSED):
        publish_dataset(CRAWL, Settings(), crawls)
    assert visible(crawls) == [OTHER]
    assert verify_version("laion", "", crawls).problems == []


def test_a_crawl_may_be_published_again_with_its_own_numbers(crawls: Store) -> None:
    publish_dataset(OTHER, Settings(), crawls)
    larger = replace(Settings(), publish=replace(Settings().publish, high_resolution_px=512))
    publish_dataset(OTHER, larger, crawls)
    assert visible(crawls) == [OTHER, f"{OTHER}.2"]


def test_of_an_old_version_only_files_that_may_have_the_ids_are_read(
    crawls: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_dataset(OTHER, Settings(), crawls)
    as_version_0_1(crawls)
    manifest = current_manifest("laion", crawls)
    read: list[int] = []
    batches = BoundedParquet.iter_batches

    def counted(self: BoundedParquet, rows: int, columns: Any, groups: list[int]) -> Any:
        read.extend(groups)
        return batches(self, rows, columns, groups)

    monkeypatch.setattr(BoundedParquet, "iter_batches", counted)
    check_ids(CRAWL, [202643000000, 202643000001], manifest, crawls)
    assert read == []
    with pytest.raises(InputError, match=REFUSED):
        check_ids(CRAWL, [1, 202643000000], manifest, crawls)
    assert read


def test_ids_of_seventeen_digits_are_published_and_verified(store: Store) -> None:
    first = 202643000000
    world = build_world(batches=2, samples=10, first_batch=first)
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    manifest = current_manifest("laion", store)
    assert manifest is not None
    assert manifest.parts[0].batches["numbers"] == [[first, first + 1]]
    assert verify_version("laion", "", store).problems == []
    rows = pq.read_table(io.BytesIO(store.read(manifest.data_files("laion-en", CRAWL)[0].name)))
    assert rows["SAMPLE_ID"].to_pylist() == [int(key) for key in rows["key"].to_pylist()]
    assert rows["SAMPLE_ID"][0].as_py() // 100_000 in world.batches
    assert rows["SAMPLE_ID"].to_numpy().dtype == np.int64


def test_ranges_of_batches() -> None:
    assert number_ranges([7, 3, 4, 5]) == [(3, 5), (7, 7)]
    assert number_ranges([]) == []

"""Two crawls, published one after the other, in two variants: shared by the tests of this module."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import ChangedError, InputError
from laion_etl.dataset.manifest import current_manifest, published_part
from laion_etl.dataset.variants import RESEARCH_SAFE
from laion_etl.dataset.versions import Versions, read_versions
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish import commit
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, World, build_world, changed, write_world

NEXT = "CC-MAIN-2026-47"
LANGUAGES = ("laion-en", "laion-multi", "laion-nolang")


@pytest.fixture(scope="module")
def worlds() -> tuple[World, World]:
    return build_world(), build_world(batches=2, first_batch=3, seed=9)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, worlds: tuple[World, World]) -> Store:
    store = LocalStore(tmp_path_factory.mktemp("both"))
    for crawl, world in zip((CRAWL, NEXT), worlds, strict=True):
        write_world(world, store, crawl=crawl)
        publish_dataset(crawl, Settings(), store)
        publish_dataset(crawl, Settings(), store, variant=RESEARCH_SAFE)
    return store


def manifest_of(store: Store, version: str, dataset: str = "laion") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.read(f"dataset/{dataset}/{version}/manifest.json"))
    return found


def rows(store: Store, dataset: str) -> Iterator[dict[str, Any]]:
    manifest = current_manifest(dataset, store)
    assert manifest is not None
    for subset in LANGUAGES:
        for file in [file for file in manifest.files if file.subset == subset]:
            yield from pq.read_table(io.BytesIO(store.read(file.name))).to_pylist()


def test_a_second_crawl_adds_to_the_dataset(both: Store, worlds: tuple[World, World]) -> None:
    manifest = manifest_of(both, NEXT)
    assert manifest["crawls"] == [CRAWL, NEXT]
    assert manifest["rows"] == sum(len(world.kept) for world in worlds)
    names = [file["name"] for file in manifest["files"] if file["subset"] == "laion-en"]
    assert names == [f"../{CRAWL}/laion-en/part-00000.parquet", "laion-en/part-00000.parquet"]
    expected = sorted(row["key"] for world in worlds for row in world.kept)
    assert sorted(row["key"] for row in rows(both, "laion")) == expected
    assert [one.version for one in read_versions("laion", both).listed] == [CRAWL, NEXT]


def test_the_first_version_stays_as_it_was(tmp_path: Path, both: Store, worlds: tuple[World, World]) -> None:
    alone = LocalStore(tmp_path)
    write_world(worlds[0], alone)
    publish_dataset(CRAWL, Settings(), alone)
    names = alone.list(f"dataset/laion/{CRAWL}")
    assert both.list(f"dataset/laion/{CRAWL}") == names
    assert {name: both.read(name) for name in names} == {name: alone.read(name) for name in names}


def test_other_settings_make_another_version(store: Store, worlds: tuple[World, World]) -> None:
    write_world(worlds[0], store)
    first = publish_dataset(CRAWL, Settings(), store)
    other = publish_dataset(CRAWL, changed(Settings(), rows_per_file=20), store)
    assert (first.unit, other.unit) == (f"laion/{CRAWL}", f"laion/{CRAWL}.2")
    assert manifest_of(store, f"{CRAWL}.2")["crawls"] == [CRAWL]
    assert not any(file["name"].startswith("..") for file in manifest_of(store, f"{CRAWL}.2")["files"])
    again = publish_dataset(CRAWL, changed(Settings(), rows_per_file=20), store)
    assert again == other
    back = publish_dataset(CRAWL, Settings(), store)
    release = published_part("laion", CRAWL, store)
    assert release is not None
    assert (back.unit, release.version) == (f"laion/{CRAWL}.3", f"{CRAWL}.3")


def test_research_safe_is_a_dataset_without_what_is_tagged(both: Store, worlds: tuple[World, World]) -> None:
    safe, research = list(rows(both, "laion-research-safe")), list(rows(both, "laion"))
    assert {row["NSFW"] for row in research} == {"UNLIKELY", "UNSURE", "NSFW"}
    assert {row["NSFW"] for row in safe} == {"UNLIKELY", "UNSURE"}
    unsafe = [row for row in worlds[1].kept if row["nsfw_tag"] == "NSFW"]
    manifest = manifest_of(both, NEXT, "laion-research-safe")
    assert manifest["variant"] == "research-safe"
    assert manifest["parts"][1]["dropped"] == {"tagged_nsfw": len(unsafe)}
    assert len(research) - len(safe) == sum(part["dropped"]["tagged_nsfw"] for part in manifest["parts"])


def test_unsure_scores_and_untagged_rows_can_be_left_out_too(
    store: Store, worlds: tuple[World, World]
) -> None:
    batches = {n: [dict(row) for row in found] for n, found in worlds[0].batches.items()}
    batches[0][0]["nsfw_tag"] = None
    write_world(World(batches), store)
    settings = changed(Settings(), safe_leaves_out=("NSFW", "UNSURE"), safe_max_punsafe=0.2)
    stats = publish_dataset(CRAWL, settings, store, variant=RESEARCH_SAFE)
    assert set(stats.dropped) == {
        "tagged_nsfw", "tagged_unsure", "punsafe_over_limit", "not_checked_for_safety"
    }  # fmt: skip
    found = list(rows(store, "laion-research-safe"))
    assert {row["NSFW"] for row in found} == {"UNLIKELY"}
    assert max(row["punsafe"] for row in found) <= 0.2
    assert len(found) == stats.kept == stats.input - sum(stats.dropped.values())


def test_what_is_suspected_to_be_illegal_is_in_no_published_file(
    both: Store, worlds: tuple[World, World]
) -> None:
    suspected = [row for world in worlds for row in world.rows if row["reason"] == "suspected_underage"]
    assert suspected
    for name in both.list("dataset"):
        text = both.read(name)
        if name.endswith(".parquet"):
            text = str(pq.read_table(io.BytesIO(text)).to_pylist()).encode()
        for row in suspected:
            for trace in (row["url"], row["caption"], row["key"], row["sha256"]):
                assert trace.encode() not in text, name


def test_of_two_crawls_published_at_once_none_is_lost(
    any_store: Store, worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second publisher commits just before the first one writes versions.json."""
    for crawl, world in zip((CRAWL, NEXT), worlds, strict=True):
        write_world(world, any_store, crawl=crawl)
    write, others = commit.write_versions, [NEXT]

    def disturbed(versions: Versions, store: Store) -> Any:
        if others:
            publish_dataset(others.pop(), Settings(), store)
        return write(versions, store)

    monkeypatch.setattr(commit, "write_versions", disturbed)
    publish_dataset(CRAWL, Settings(), any_store)
    assert [one.version for one in read_versions("laion", any_store).listed] == [NEXT, CRAWL]
    assert manifest_of(any_store, CRAWL)["crawls"] == [CRAWL, NEXT]
    assert verify_version("laion", "", any_store).problems == []
    assert any_store.read("dataset/laion/README.md").decode().count(NEXT) > 0


def test_a_write_that_came_through_without_an_answer_is_not_made_twice(
    store: Store, worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(worlds[0], store)
    write = commit.write_versions

    def unanswered(versions: Versions, store: Store) -> Any:
        write(versions, store)
        raise ChangedError("the retry of a request whose answer was lost")

    monkeypatch.setattr(commit, "write_versions", unanswered)
    publish_dataset(CRAWL, Settings(), store)
    assert [one.version for one in read_versions("laion", store).listed] == [CRAWL]


def test_a_version_of_the_same_name_published_by_another_process_is_an_error(
    store: Store, worlds: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(worlds[0], store)
    write, others = commit.write_versions, [changed(Settings(), rows_per_file=20)]

    def disturbed(versions: Versions, store: Store) -> Any:
        if others:
            publish_dataset(CRAWL, others.pop(), store)
        return write(versions, store)

    monkeypatch.setattr(commit, "write_versions", disturbed)
    with pytest.raises(InputError, match=f"cannot publish laion/{CRAWL}: another process has published it"):
        publish_dataset(CRAWL, Settings(), store)

"""A version that is checked in parts: together they find what one check finds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from laion_etl.core.errors import InputError
from laion_etl.dataset.manifest import current_manifest
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import VerifyReport, verify_version
from laion_etl.publish.verify_ranges import RangeReport, merge_reports, read_reports, verify_range
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, build_world, changed, write_world

OTHER = "CC-MAIN-2026-47"  # published at once, so it is one range
TOTAL = 3
FOLDER = f"dataset/laion/{CRAWL}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("published"))
    write_world(build_world(batches=4, samples=10), store)
    publish_dataset(CRAWL, changed(Settings(), batches_per_range=1, aesthetic_min=4.5), store)
    write_world(build_world(batches=1, samples=10, first_batch=50), store, crawl=OTHER)
    publish_dataset(OTHER, Settings(), store)
    return store


@pytest.fixture
def copy(published: LocalStore, tmp_path: Path) -> LocalStore:
    shutil.copytree(published.root, tmp_path / "copy")
    return LocalStore(tmp_path / "copy")


def in_parts(store: Store, tmp_path: Path) -> VerifyReport:
    """The parts as they come back from other processes."""
    results = LocalStore(tmp_path / "results")
    for number in range(1, TOTAL + 1):
        part = verify_range("laion", "", number, TOTAL, store)
        results.write(f"{number}.json", json.dumps(part.to_plain()).encode())
    return merge_reports(read_reports(results), store)


def test_the_parts_read_every_file_once_and_find_nothing(published: LocalStore, tmp_path: Path) -> None:
    manifest = current_manifest("laion", published)
    assert manifest is not None
    assert len(manifest.files) > 3 * TOTAL
    assert in_parts(published, tmp_path) == verify_version("laion", "", published)


def first_part(number: int) -> str:
    return f"{FOLDER}/laion-multi/part-{number:05d}-00000.parquet"


def cut_off(store: LocalStore) -> None:
    (store.root / first_part(2)).write_bytes(b"PAR1")


def missing(store: LocalStore) -> None:
    store.delete(first_part(3))


def extra(store: LocalStore) -> None:
    store.write(f"{FOLDER}/laion-en/part-00009-00000.parquet", b"")


def other_card(store: LocalStore) -> None:
    store.write(f"dataset/laion/{OTHER}/README.md", b"# other")


@pytest.mark.parametrize("damage", [cut_off, missing, extra, other_card])
def test_the_parts_find_what_one_check_finds(
    copy: LocalStore, tmp_path: Path, damage: Callable[[LocalStore], None]
) -> None:
    damage(copy)
    whole, parts = verify_version("laion", "", copy), in_parts(copy, tmp_path)
    assert whole.problems
    assert sorted(parts.problems, key=str) == sorted(whole.problems, key=str)


def with_counts(part: RangeReport, change: Callable[[int], int]) -> RangeReport:
    part.counts = [(crawl, subset, change(rows), fit) for crawl, subset, rows, fit in part.counts]
    return part


def test_the_merge_compares_sums_with_the_manifest_and_batches_with_each_other(published: LocalStore) -> None:
    def parts() -> list[RangeReport]:
        return [verify_range("laion", "", number, TOTAL, published) for number in range(1, TOTAL + 1)]

    fewer = parts()
    with_counts(fewer[1], lambda rows: max(0, rows - 1))
    assert "says" in merge_reports(fewer, published).problems[0].what
    repeated = parts()
    repeated[0].batches = repeated[1].batches
    assert "is in the files of several ranges" in merge_reports(repeated, published).problems[0].what


def test_only_all_parts_of_one_check_are_merged(published: LocalStore) -> None:
    parts = [verify_range("laion", "", number, 2, published) for number in (1, 2)]
    for wrong in ([], parts[:1], [*parts, parts[0]]):
        with pytest.raises(InputError, match="cannot merge the parts of a check: found"):
            merge_reports(wrong, published)
    parts[1].manifest = "other"
    with pytest.raises(InputError, match="of several versions"):
        merge_reports(parts, published)

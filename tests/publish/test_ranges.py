"""A crawl published in ranges of batches: the same rows and numbers as at once, whatever the ranges."""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from laion_etl.blocklists.removal_requests import Request
from laion_etl.cli import app
from laion_etl.core.errors import IncompleteError, InputError, StoreOutageError
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.loaded import LoadedCrawl
from laion_etl.dataset.missing_batches import Fault, MissingBatch
from laion_etl.io.storage import Guard, LocalStore, NewFile, Store
from laion_etl.publish import at_once as at_once_module
from laion_etl.publish import ranges
from laion_etl.publish.completeness import Expected
from laion_etl.publish.prepared import divide
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
from tests.publish.world import CRAWL, World, build_world, changed, write_group, write_scored, write_world

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


@pytest.mark.parametrize(
    ("batches_per_range", "variants"), [(1, BOTH[:1]), (2, BOTH), (3, BOTH[:1])], ids=["1", "2", "3"]
)
def test_rows_and_numbers_do_not_depend_on_the_ranges(
    world: World, at_once: Store, tmp_path: Path, batches_per_range: int, variants: tuple[str, ...]
) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    in_ranges(settings_of(batches_per_range, variants=variants), store)
    for variant in variants:
        folder = FOLDERS[variant]
        assert rows_of(store, folder) == rows_of(at_once, folder), variant
        assert documents_of(store, folder) == documents_of(at_once, folder), variant
        assert verify_version(folder.split("/")[1], "", store).problems == []


def test_one_call_publishes_all_ranges_on_s3_as_in_a_folder(tmp_path: Path, s3_store: Store) -> None:
    apart, together = LocalStore(tmp_path), s3_store
    settings = settings_of(2, variants=("research",))
    for store in (apart, together):
        write_world(build_world(batches=4, samples=6), store)
    [stats] = in_ranges(settings, apart)
    assert publish_dataset(CRAWL, settings, together) == stats
    assert contents(together) == contents(apart)


def contents(store: Store, folder: str = "dataset") -> dict[str, bytes]:
    return {name: store.read(name) for name in store.list(folder)}


@pytest.fixture
def small(tmp_path: Path) -> LocalStore:
    """Four batches, whose tests publish often."""
    store = LocalStore(tmp_path)
    write_world(build_world(batches=4, samples=6), store)
    return store


def test_ranges_are_published_again_only_if_a_batch_has_changed(small: Store) -> None:
    settings = settings_of(2)
    published = in_ranges(settings, small)
    before = contents(small)
    assert prepare_variants(CRAWL, settings, small) == published
    assert publish_variants(CRAWL, settings, small) == published
    assert finish_variants(CRAWL, settings, small) == published, "as a killed end that is tried again does"
    assert contents(small) == before

    write_scored(3, build_world(batches=4, samples=8).batches[3], small)
    with pytest.raises(InputError, match=f"{CRAWL}: it is visible already, and its inputs have changed"):
        publish_range(CRAWL, 2, 2, settings, small, BOTH)
    assert contents(small) == before
    again = in_ranges(settings, small)
    assert [stats.unit for stats in again] == [f"laion/{CRAWL}.2", f"laion-research-safe/{CRAWL}.2"]


def test_a_late_process_writes_nothing_into_a_visible_version(
    small: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, one = settings_of(2, variants=("research",)), ("research",)
    prepare_variants(CRAWL, settings, small)
    publish_range(CRAWL, 2, 2, settings, small, one)
    record = small.read(f"publish/laion/{CRAWL}/range-00002.json")
    write_scored(3, build_world(batches=4, samples=8).batches[3], small)
    plain, seen = ranges.read_rows, []

    def overtaken(*args: Any) -> None:
        """The others come to the end while this process reads rows."""
        monkeypatch.setattr(ranges, "read_rows", plain)
        publish_range(CRAWL, 1, 2, settings, small, one)
        finish_variants(CRAWL, settings, small)
        seen.append(contents(small))
        plain(*args)

    monkeypatch.setattr(ranges, "read_rows", overtaken)
    with pytest.raises(InputError, match="it is visible already"):
        publish_range(CRAWL, 2, 2, settings, small, one)
    assert [contents(small)] == seen
    assert small.read(f"publish/laion/{CRAWL}/range-00002.json") == record


def test_a_range_that_is_done_is_not_read_again(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(2)
    prepare_variants(CRAWL, settings, small)
    done = [stats.to_json() for stats in publish_range(CRAWL, 1, 2, settings, small, BOTH)]
    monkeypatch.setattr(ranges, "read_rows", None)
    assert [stats.to_json() for stats in publish_range(CRAWL, 1, 2, settings, small, BOTH)] == done


def test_what_does_not_fit_the_preparation_is_refused(small: Store) -> None:
    settings = settings_of(2, variants=("research",))
    one = ("research",)
    with pytest.raises(InputError, match=r"it is not prepared; run `laion-etl stage publish .* --prepare`"):
        publish_range(CRAWL, 1, 2, settings, small, one)
    prepare_variants(CRAWL, settings, small)
    with pytest.raises(InputError, match=r"range 1/3 of .*: it was prepared in 2 ranges"):
        publish_range(CRAWL, 1, 3, settings, small, one)
    with pytest.raises(InputError, match="prepared with other settings"):
        publish_range(CRAWL, 1, 2, changed(settings, aesthetic_min=4.0), small, one)
    publish_range(CRAWL, 1, 2, settings, small, one)
    with pytest.raises(InputError, match=f"range 2/2 is not done .*--crawl {CRAWL} --range 2/2`"):
        finish_variants(CRAWL, settings, small)
    planned = small.read_stats(f"batches/{CRAWL}/_stats.json")
    small.write_stats(f"batches/{CRAWL}/_stats.json", replace(planned, details={"batches": [0, 1, 2, 3, 4]}))
    with pytest.raises(InputError, match="its plan is not the one that it was prepared with"):
        publish_range(CRAWL, 2, 2, settings, small, one)
    assert not small.exists("dataset/laion/versions.json")


def test_results_of_other_ranges_are_not_merged(small: Store) -> None:
    one = ("research",)
    publish_variants(CRAWL, settings_of(1, variants=one), small)
    prepare_variants(CRAWL, settings_of(2, variants=one), small)
    assert small.list(f"publish/laion/{CRAWL}") == [
        f"publish/laion/{CRAWL}/prepared.json",
        *(f"publish/laion/{CRAWL}/range-{number:05d}.json" for number in (1, 2)),
    ]
    with pytest.raises(InputError, match=r"range 1/2 is not done .it was published by other rules"):
        finish_variants(CRAWL, settings_of(2, variants=one), small)


def test_more_missing_than_allowed_is_noticed_before_anything_is_visible(small: Store) -> None:
    settings = settings_of(2, variants=("research",))
    small.delete(f"scored/{CRAWL}/000000001_stats.json")
    strict, mild = (Expected([0], share, LoadedCrawl(frozenset({0}), "test")) for share in (0.2, 0.25))
    with pytest.raises(IncompleteError, match=r"1 of 4 batches are missing .1: not scored"):
        in_ranges(settings, small, strict)
    named = [MissingBatch(1, Fault.DAMAGED, "its tar is cut off")]
    write_group(named, small)
    with pytest.raises(IncompleteError, match="its tar is cut off"):
        prepare_variants(CRAWL, settings, small, strict)
    assert not small.exists("dataset/laion/versions.json")
    [stats] = in_ranges(settings, small, mild)
    assert stats.details["missing_batches"] == [1]


def test_batches_whose_shards_cannot_be_read_are_left_out_as_at_once(small: Store, tmp_path: Path) -> None:
    """Their scores may be those of other images."""
    mild = Expected([0], 0.25, LoadedCrawl(frozenset({0}), "test"))
    write_group([MissingBatch(1, Fault.NOT_DOWNLOADED, "it has no stats")], small)
    small.delete(f"shards/{CRAWL}/000000001_stats.json")
    whole = LocalStore(tmp_path / "whole")
    for name in small.list(""):
        whole.write(name, small.read(name))
    settings, folder = settings_of(2, variants=("research",)), FOLDERS["research"]
    published = in_ranges(settings, small, mild)
    publish_variants(CRAWL, settings_of(100, variants=("research",)), whole, mild)
    assert published[0].details["missing_batches"] == [1]
    assert documents_of(small, folder) == documents_of(whole, folder)
    assert prepare_variants(CRAWL, settings, small, mild) == published, "nothing has changed since"


def test_a_file_of_a_range_that_is_gone_is_noticed_and_written_again(small: Store) -> None:
    settings, one = settings_of(2, variants=("research",)), ("research",)
    prepare_variants(CRAWL, settings, small)
    before = [publish_range(CRAWL, number, 2, settings, small, one) for number in (1, 2)]
    gone = before[0][0].outputs[-1].name
    small.delete(gone)
    with pytest.raises(InputError, match=f"{gone} is gone"):
        finish_variants(CRAWL, settings, small)
    assert publish_range(CRAWL, 1, 2, settings, small, one) == before[0]
    finish_variants(CRAWL, settings, small)
    assert verify_version("laion", "", small).problems == []


@pytest.mark.parametrize("what", ["there are new removal requests", "its plan is not the one"])
def test_what_changes_after_the_ranges_is_not_overlooked_at_the_end(small: Store, what: str) -> None:
    settings, one = settings_of(2, variants=("research",)), ("research",)
    prepare_variants(CRAWL, settings, small)
    for number in (1, 2):
        publish_range(CRAWL, number, 2, settings, small, one)
    if "plan" in what:
        planned = small.read_stats(f"batches/{CRAWL}/_stats.json")
        details = {"batches": [0, 1, 2, 3, 4]}
        small.write_stats(f"batches/{CRAWL}/_stats.json", replace(planned, details=details))
    else:
        request = Request({"md5": ("0" * 32,)}, crawls=(CRAWL,))
        small.write(request.name, request.to_json())
    with pytest.raises(InputError, match=rf"{what}.*; run `laion-etl stage publish .* --prepare` again"):
        finish_variants(CRAWL, settings, small)
    assert not small.exists("dataset/laion/versions.json")


def test_a_removal_while_a_crawl_is_published_at_once_is_not_overlooked(
    small: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = at_once_module.read_rows

    def meanwhile(*args: Any) -> None:
        plain(*args)
        request = Request({"md5": ("0" * 32,)}, crawls=(CRAWL,))
        small.write(request.name, request.to_json())

    monkeypatch.setattr(at_once_module, "read_rows", meanwhile)
    settings = settings_of(100, variants=("research",))
    with pytest.raises(InputError, match=f"there are new removal requests; publish {CRAWL} again"):
        publish_variants(CRAWL, settings, small)
    assert not small.exists("dataset/laion/versions.json")
    [stats] = publish_variants(CRAWL, settings, small)
    assert stats.unit == f"laion/{CRAWL}"


class Counting(LocalStore):
    """Counts reads by folder, and refuses listings that grow with the crawl."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def read(self, name: str) -> bytes:
        self.reads[name.split("/", maxsplit=1)[0]] += 1
        return super().read(name)

    def list(self, prefix: str) -> list[str]:
        assert not prefix.startswith(("scored", "shards", "batches")), prefix
        return super().list(prefix)


def test_a_batch_costs_three_requests_for_all_variants(small: Store, tmp_path: Path) -> None:
    settings = settings_of(2)
    store = Counting(tmp_path)
    count = prepare_variants(CRAWL, settings, store)
    store.reads.clear()
    for number in (1, 2):
        publish_range(CRAWL, number, 2, settings, store, BOTH)
    assert (count, store.reads["scored"], store.reads["shards"]) == (2, 8, 4)
    store.reads.clear()
    finish_variants(CRAWL, settings, store)
    assert (store.reads["scored"], store.reads["shards"]) == (0, 0)


class FullDisk(LocalStore):
    """Fails at one write, in the middle of the file."""

    def __init__(self, root: Path, fatal: int) -> None:
        super().__init__(root)
        self._left = fatal

    @contextmanager
    def create(self, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        self._left -= 1
        fails = self._left == 0
        with super().create(name, guard) as file:
            yield file
            if fails:
                raise StoreOutageError(f"cannot write {name}: the disk is full")


def test_a_task_that_fails_at_any_write_is_done_again_with_the_same_bytes(tmp_path: Path) -> None:
    settings = settings_of(2)
    write_world(build_world(batches=4, samples=6), calm := LocalStore(tmp_path / "calm"))
    in_ranges(settings, calm)
    write_world(build_world(batches=4, samples=6), store := LocalStore(tmp_path / "failing"))
    tasks: list[Callable[[Store], object]] = [
        lambda store: prepare_variants(CRAWL, settings, store),
        lambda store: publish_range(CRAWL, 1, 2, settings, store, BOTH),
        lambda store: publish_range(CRAWL, 2, 2, settings, store, BOTH),
        lambda store: finish_variants(CRAWL, settings, store),
    ]
    rng = random.Random(11)
    for task in tasks:
        fatal, failures = 1, 0
        while failed(task, FullDisk(store.root, fatal)):
            failures += 1
            fatal += rng.randrange(1, 12)
        assert failures
    assert contents(store, "") == contents(calm, "")


def failed(task: Callable[[Store], object], store: Store) -> bool:
    try:
        task(store)
    except StoreOutageError:
        return True
    return False


def test_the_report_of_a_crawl_is_made_range_by_range(world: World, at_once: Store, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(world, store)
    assert render_report(CRAWL, settings_of(2), store) == render_report(CRAWL, settings_of(100), at_once)


def test_no_crawl_has_more_ranges_than_airflow_can_map() -> None:
    numbers = list(range(5_000_123))
    assert len(divide(numbers, 1)) == 1_024
    cut = divide(numbers, 5_000)
    assert sum(one.count for one in cut) == len(numbers)
    assert [one.first for one in cut[1:]] == [one.last + 1 for one in cut[:-1]]


EARLIER = "CC-MAIN-2026-38"  # published first


def with_repeats(world: World, seed: int) -> World:
    """Images that occur many times, in all batches, with ties of similarity and of size."""
    rng = random.Random(seed)
    for row in world.rows:
        row["sha256"] = hashlib.sha256(str(rng.randrange(25)).encode()).hexdigest()
        row["similarity"] = rng.choice((0.3, 0.31, 0.32))
        row["original_width"], row["original_height"] = rng.choice(((640, 480), (480, 640), (1600, 1200)))
    return world


def test_of_equal_images_in_any_ranges_the_best_one_is_published(tmp_path: Path) -> None:
    exact = {"duplicates": "exact", "duplicates_of_earlier": True}
    at_once, in_two = LocalStore(tmp_path / "at_once"), LocalStore(tmp_path / "in_two")
    write_world(with_repeats(build_world(batches=2, samples=3, first_batch=20), 1), at_once, crawl=EARLIER)
    write_world(with_repeats(build_world(batches=5, samples=14), 2), at_once)
    publish_variants(EARLIER, settings_of(1, **exact), at_once)
    shutil.copytree(at_once.root, in_two.root)
    expected = publish_variants(CRAWL, settings_of(100, **exact), at_once)
    found = publish_variants(CRAWL, settings_of(2, **exact), in_two)
    both = [{"duplicate_image", "duplicate_image_of_earlier_crawl"} & stats.dropped.keys() for stats in found]
    assert [len(reasons) for reasons in both] == [2, 2]
    assert [stats.dropped for stats in found] == [stats.dropped for stats in expected]
    assert expected[0].dropped["duplicate_image"] != expected[1].dropped["duplicate_image"]
    for folder in FOLDERS.values():
        assert rows_of(in_two, folder) == rows_of(at_once, folder)


def test_duplicates_are_not_decided_without_the_images_of_all_ranges(small: Store) -> None:
    settings, one = settings_of(2, variants=("research",), duplicates="exact"), ("research",)
    assert prepare_variants(CRAWL, settings, small) == 2
    ranges.hash_range(CRAWL, 1, 2, settings, small, one)
    with pytest.raises(InputError, match=r"the digests of range 2/2 are not there .* --hashes 2/2`"):
        publish_range(CRAWL, 1, 2, settings, small, one)
    ranges.hash_range(CRAWL, 2, 2, settings, small, one)
    publish_range(CRAWL, 1, 2, settings, small, one)
    write_scored(3, build_world(batches=4, samples=8).batches[3], small)
    with pytest.raises(InputError, match="its batches have changed since its images were looked at"):
        publish_range(CRAWL, 2, 2, settings, small, one)
    ranges.hash_range(CRAWL, 2, 2, settings, small, one)
    publish_range(CRAWL, 2, 2, settings, small, one)
    with pytest.raises(InputError, match=r"1/2 is not done .the images of other ranges have changed since"):
        finish_variants(CRAWL, settings, small)
    publish_range(CRAWL, 1, 2, settings, small, one)
    [stats] = finish_variants(CRAWL, settings, small)
    assert finish_variants(CRAWL, settings, small) == [stats], "nothing has changed"


def test_the_commands_of_a_crawl_in_ranges(small: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAION_ETL_STORE", str(small.root))
    monkeypatch.setenv("LAION_ETL_PUBLISH_BATCHES_PER_RANGE", "3")
    monkeypatch.setenv("LAION_ETL_PUBLISH_DUPLICATES", "near")

    def run(*options: str) -> Any:
        done = CliRunner().invoke(app, ["stage", "publish", "--crawl", CRAWL, *options, "--json"])
        return json.loads(done.stdout) if done.exit_code == 0 else (done.exit_code, str(done.exception))

    assert run("--prepare") == {"crawl": CRAWL, "stage": "publish", "ranges": ["1/2", "2/2"]}
    hashed = [run("--hashes", unit)["kept"] for unit in ("1/2", "2/2")]
    assert run("--compare")["stage"] == "publish"
    parts = [run("--range", unit) for unit in ("1/2", "2/2")]
    assert [part["range"] for part in parts] == ["1/2", "2/2"]
    assert [part["kept"] for part in parts] == hashed
    done = run("--finish")
    assert (done["kept"], done["unit"]) == (sum(hashed), f"laion/{CRAWL}")
    again = run("--prepare")
    assert (again["ranges"], again["fingerprint"]) == ([], done["fingerprint"])
    assert run("--range", "0/2")[1].startswith("invalid --range 0/2; expected I/N with I from 1 to N")
    assert run("--range", "1/2", "--finish")[0] == 2


def test_a_crawl_of_one_range_is_published_when_it_is_prepared(
    small: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAION_ETL_STORE", str(small.root))
    done = CliRunner().invoke(app, ["stage", "publish", "--crawl", CRAWL, "--prepare", "--json"])
    result = json.loads(done.stdout)
    assert (result["ranges"], result["unit"]) == ([], f"laion/{CRAWL}")
    assert small.list("publish") == []

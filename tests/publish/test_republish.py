"""A divided removal publishes crawls again in ranges; ranges that hold nothing of it are copied, not read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from typer.testing import CliRunner

from laion_etl.blocklists.removal_requests import Request
from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.dataset.locator import build
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish import prepare as prepare_module
from laion_etl.publish.stage import publish_variants
from laion_etl.publish.verify import verify_version
from laion_etl.removal import republish, work
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import finish, prepare, prepare_publications, remove, rewrite_range
from tests.publish.test_ranges import rows_of, settings_of
from tests.publish.test_removal import write_all
from tests.publish.world import CRAWL, build_world, changed

BOTH = ("laion", "laion-research-safe")
TODAY = settings_of(2)


class Counting(LocalStore):
    """A folder that remembers which scored files were read, by the number of the batch."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.scored: set[int] = set()

    def open(self, name: str) -> BinaryIO:
        if name.startswith("scored/") and name.endswith(".parquet"):
            self.scored.add(int(Path(name).stem))
        return super().open(name)


@pytest.fixture(scope="module")
def listed() -> Request:
    """Two samples of batch 2, which is in the second of three ranges, and one of batch 3."""
    batches = build_world(batches=6, samples=12).batches
    urls = [batches[2][1]["url"], batches[2][4]["url"], batches[3][0]["url"]]
    return read_list("\n".join(urls).encode(), "list")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crawl in three ranges of two batches, in two variants, with a locator."""
    store = LocalStore(tmp_path_factory.mktemp("published"))
    write_all(build_world(batches=6, samples=12), CRAWL, store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FEWEST_BATCHES", 6)
        publish_variants(CRAWL, TODAY, store)
    return store.root


@pytest.fixture
def store(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr(build, "FEWEST_BATCHES", 6)
    monkeypatch.setattr(work, "UNITS_PER_RANGE", 1)
    shutil.copytree(published, tmp_path / "store")
    store = Counting(tmp_path / "store")
    build.locate(CRAWL, store)  # the copies have other tags
    store.scored.clear()
    return store


def files(store: Store) -> dict[str, bytes]:
    """All files but the locator, and the record of how ranges are prepared, which says what is copied."""
    names = (name for name in store.list("") if not name.startswith("locator/"))
    return {name: store.read(name) for name in names if not name.endswith("/prepared.json")}


@pytest.fixture(scope="module")
def by_reading(
    published: Path, listed: Request, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The store after the same removal in one process that reads all batches."""
    root = tmp_path_factory.mktemp("by_reading") / "store"
    shutil.copytree(published, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FEWEST_BATCHES", 6)
        patch.setattr(prepare_module, "_former", lambda *_: None)
        build.locate(CRAWL, LocalStore(root))
        remove(listed, TODAY, LocalStore(root))
    return files(LocalStore(root))


def rewritten(listed: Request, store: Store) -> None:
    found = prepare(listed, TODAY, store)
    assert isinstance(found, work.Work)
    for number in range(found.ranges, 0, -1):
        rewrite_range(listed.id, number, found.ranges, TODAY, store)


def test_divided_or_not_the_bytes_are_those_of_reading_all_and_unchanged_ranges_are_not_read(
    store: Counting, listed: Request, by_reading: dict[str, bytes]
) -> None:
    rewritten(listed, store)
    found = prepare_publications(listed.id, TODAY, store)
    assert [(one.datasets, one.ranges) for one in found.listed] == [(tuple(sorted(BOTH, reverse=True)), 3)]
    store.scored.clear()
    for number in (3, 1, 2):
        republish.publish_part(listed.id, number, 3, TODAY, store)
        assert store.scored <= {2, 3}, "the locator reads what was rewritten"
    assert prepare_publications(listed.id, TODAY, store) == found, "repeated"
    done = finish(listed.id, TODAY, store)
    assert sorted(stats.unit for stats in done.published) == sorted(f"{name}/{CRAWL}.2" for name in BOTH)
    assert store.scored == {2, 3}
    assert files(store).keys() == by_reading.keys()
    found_files = {name: data for name, data in files(store).items() if name in by_reading}
    requests = [name for name in found_files if name.startswith("removals/")]
    assert [
        name for name in by_reading if found_files.get(name) != by_reading[name] and name not in requests
    ] == []
    assert [verify_version(name, "", store).problems for name in BOTH] == [[], []]
    assert build.locate(CRAWL, store)[:2] == (0, 0), "the ranges have located what they wrote"


def test_in_one_process_unchanged_ranges_are_not_read_either(
    store: Counting, listed: Request, by_reading: dict[str, bytes]
) -> None:
    remove(listed, TODAY, store)
    assert store.scored <= {2, 3}
    assert files(store) == by_reading


def shard_from_backup(store: Store, before: LocalStore) -> None:
    for name in (
        f"scored/{CRAWL}/{batch:09d}{end}" for batch in (2, 3) for end in (".parquet", "_stats.json")
    ):
        store.write(name, before.read(name))


def earlier_request(store: Store, before: LocalStore) -> None:
    other = Request({"md5": ("0" * 32,)}, crawls=(CRAWL,))
    store.write(other.name, other.to_json())


def file_gone(store: Store, before: LocalStore) -> None:
    gone = [name for name in store.list(f"dataset/laion/{CRAWL}") if name.endswith(".parquet")]
    assert len(gone) > 6
    for name in gone:
        store.delete(name)


@pytest.mark.parametrize("disturb", [shard_from_backup, earlier_request, file_gone])
def test_what_may_hold_something_is_read(
    store: Counting, published: Path, listed: Request, disturb: Callable[[Store, LocalStore], None]
) -> None:
    """A shard that came back from a backup, something of another request, a range whose files are gone."""
    rewritten(listed, store)
    disturb(store, LocalStore(published))
    prepare_publications(listed.id, TODAY, store)
    for number in (1, 2, 3):
        republish.publish_part(listed.id, number, 3, TODAY, store)
    finish(listed.id, TODAY, store)
    left = {
        row["URL"]
        for name, rows in rows_of(store, f"dataset/laion/{CRAWL}.2").items()
        for row in rows
        if "URL" in row
    }
    gone = {build_world(batches=6, samples=12).batches[2][row]["url"] for row in (1, 4)}
    assert len(left) > 40 and not left & gone
    assert store.scored == ({2, 3} if disturb is shard_from_backup else set(range(6)))


@pytest.fixture
def commands(store: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has commands use this store."""
    monkeypatch.setenv("LAION_ETL_STORE", str(store.root))
    monkeypatch.setenv("LAION_ETL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LAION_ETL_PUBLISH_BATCHES_PER_RANGE", "2")


@pytest.mark.usefixtures("commands")
def test_commands_in_order_and_what_is_missing_is_named(store: Counting, listed: Request) -> None:
    def result(command: str, *arguments: str) -> dict[str, Any]:
        words = ["dataset", command, "--request", listed.id, *arguments, "--json"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (done.output, done.exception)
        return dict(json.loads(done.stdout))

    found = prepare(listed, TODAY, store)
    with pytest.raises(InputError, match=r"the ranges 1/3, 2/3, 3/3 are not rewritten"):
        prepare_publications(listed.id, TODAY, store)
    with pytest.raises(InputError, match=r"that is not prepared; run .* republish --request \w+ --prepare"):
        republish.publish_part(listed.id, 1, 3, TODAY, store)
    assert isinstance(found, work.Work)
    for number in (1, 2, 3):
        result("remove", "--range", f"{number}/3")
    prepared = result("republish", "--prepare")
    assert (prepared["ranges"], prepared["duplicates"]) == (["1/3", "2/3", "3/3"], False)
    assert result("republish", "--range", "2/3")["done"] == 1
    with pytest.raises(
        InputError, match=r"the ranges 1/3, 3/3 are not published; run `laion-etl dataset republish"
    ):
        finish(listed.id, TODAY, store)
    with pytest.raises(InputError, match="it has 3 ranges; take those that"):
        republish.publish_part(listed.id, 1, 2, TODAY, store)
    for one in ("1/3", "3/3"):
        result("republish", "--range", one)
    assert len(result("remove", "--finish", "--purge")["published"]) == 2
    assert store.list("removing") == [f"removing/{listed.id}/finished.json"]
    assert [verify_version(name, "", store).problems for name in BOTH] == [[], []]


@pytest.mark.usefixtures("commands")
def test_what_cannot_be_prepared_is_named_and_an_error_unless_allowed(
    store: Counting, listed: Request
) -> None:
    rewritten(listed, store)
    name = f"dataset/laion-research-safe/{CRAWL}/manifest.json"
    whole = store.read(name)
    store.write(name, whole.replace(b'"rows"', b'"row"', 1))
    command = ["dataset", "republish", "--request", listed.id, "--prepare", "--json"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code != 0
    assert "cannot prepare 1 crawl of removal" in str(refused.exception)
    assert f"{name}: its SHA-256 is not the one in versions.json" in str(refused.exception)
    allowed = CliRunner().invoke(app, [*command, "--allow-failures"])
    assert allowed.exit_code == 0, allowed.exception
    found = json.loads(allowed.stdout)
    assert found["ranges"] == ["1/3", "2/3", "3/3"]
    assert [name in cause for cause in found["left_out"]] == [True]
    store.write(name, whole)
    assert json.loads(CliRunner().invoke(app, command).stdout)["left_out"] == []
    shutil.rmtree(store.root / "scored")
    refused = CliRunner().invoke(app, command)
    assert f"cannot prepare 1 crawl of removal {listed.id}: {CRAWL} (laion" in str(refused.exception)


def test_duplicates_are_left_out_again(
    tmp_path: Path, listed: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which pair of an image is the best one is found among all ranges, so nothing is copied."""
    monkeypatch.setattr(work, "UNITS_PER_RANGE", 1)
    store = Counting(tmp_path)
    write_all(build_world(batches=6, samples=12), CRAWL, store)
    publish_variants(CRAWL, changed(TODAY, duplicates="near", variants=("research",)), store)
    rewritten(listed, store)
    found = prepare_publications(listed.id, TODAY, store)
    assert found.duplicates
    with pytest.raises(InputError, match="its batches have changed since its images were looked at"):
        republish.publish_part(listed.id, 1, 3, TODAY, store)
    for number in (1, 2, 3):
        assert republish.hash_part(listed.id, number, 3, TODAY, store) == 1
    republish.compare_all(listed.id, TODAY, store)
    for number in (1, 2, 3):
        republish.publish_part(listed.id, number, 3, TODAY, store)
    finish(listed.id, TODAY, store)
    assert verify_version("laion", "", store).problems == []

"""Removal of all copies of an image, and the signed receipt of a removal."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.dataset.manifest import current_manifest
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import LocalStore
from laion_etl.publish.stage import publish_dataset
from laion_etl.removal.image_of import record_images, with_images
from laion_etl.removal.lists import read_lines
from laion_etl.settings import Settings
from tests.publish.test_ranges import rows_of
from tests.publish.test_removal import write_all
from tests.publish.world import CRAWL, Row, World, build_world

PDQ = int("a5" * 32, 16)


@pytest.fixture(scope="module")
def world() -> World:
    """Four samples of one image: the first, a copy of its file, one near by PDQ, and a lone other one."""
    made = build_world(batches=1, samples=20)
    first, equal, near, other = made.kept[0], made.kept[3], made.kept[6], made.kept[8]
    first["pdq"], near["pdq"], other["pdq"] = (
        f"{PDQ:064x}",
        f"{PDQ ^ 0b111:064x}",
        f"{~PDQ & 2**256 - 1:064x}",
    )
    for row in (first, near, other):
        row["pdq_quality"] = 100
    equal["sha256"] = first["sha256"]
    other["url"] = first["url"] + "/below.jpg"
    return made


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    store = LocalStore(tmp_path_factory.mktemp("full"))
    write_all(world, CRAWL, store)
    publish_dataset(CRAWL, Settings(), store)
    return store.root


@pytest.fixture
def store(tmp_path: Path, full: Path) -> LocalStore:
    shutil.copytree(full, tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def run(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LAION_ETL_STORE", str(store.root))
    monkeypatch.setenv("LAION_ETL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("LAION_ETL_DATABASE_URL", raising=False)

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["dataset", *arguments], env={"COLUMNS": "400"})

    return command


def write_list(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return str(tmp_path / "list.txt")


def published_keys(store: LocalStore, version: str) -> set[str]:
    rows = rows_of(store, f"dataset/laion/{version}")
    return {
        row["key"] for subset in ("laion-en", "laion-multi", "laion-nolang") for row in rows.get(subset, ())
    }


def copies(world: World) -> list[Row]:
    return [world.kept[0], world.kept[3], world.kept[6]]


def test_all_copies_of_an_image_are_removed_and_the_receipt_proves_it(
    run: Any, store: LocalStore, world: World, tmp_path: Path
) -> None:
    url = world.kept[0]["url"]
    listed = write_list(tmp_path, f"image-of:{url}", "# by mail", f"key:{world.kept[10]['key']}")
    before = {name: store.read(name) for name in store.list("")}
    tried = run("remove", "--list", listed, "--dry-run")
    assert f"line 1: image-of:{url}: 3 pairs" in tried.output
    assert {name: store.read(name) for name in store.list("")} == before
    early = run("receipt", "write", "--list", listed, "--out", str(tmp_path / "early.json"))
    assert "it was not removed from" in str(early.exception)

    assert run("remove", "--list", listed).exit_code == 0
    again = run("remove", "--list", listed)
    assert again.exit_code == 0, "the image is known although no row has it any more"
    assert len(read_versions("laion", store).listed) == 2, "nothing is left to remove"
    gone = {row["key"] for row in (*copies(world), world.kept[10])}
    assert published_keys(store, f"{CRAWL}.2") == published_keys(store, CRAWL) - gone
    assert not [name for name in store.list("") if url.encode() in store.read(name) and "removal" in name]

    out = tmp_path / "receipt.json"
    assert run("receipt", "write", "--list", listed, "--out", str(out), "--line", "1").exit_code == 0
    receipt = json.loads(out.read_text())
    assert receipt["lines"] == [{"line": 1, "asked": f"image-of:{url}", "pairs": 3}]
    old, new = read_versions("laion", store).listed
    [dataset] = receipt["datasets"]
    assert dataset == {
        "name": "laion",
        "before": {"version": CRAWL, "manifest_sha256": old.manifest.sha256},
        "after": {"version": f"{CRAWL}.2", "manifest_sha256": new.manifest.sha256},
        "still_has_it": [CRAWL],
    }
    manifest = current_manifest("laion", store)
    assert manifest is not None
    assert receipt["request"] in manifest.parts[0].removals
    assert (tmp_path / "data/receipt-key.pem").stat().st_mode & 0o777 == 0o600

    checked = run("receipt", "check", str(out))
    assert checked.exit_code == 0
    assert f"last version with it {CRAWL}, first without it {CRAWL}.2" in checked.output
    out.write_text(json.dumps(receipt))
    (tmp_path / "data/receipt-key.pem").rename(tmp_path / "elsewhere.pem")
    assert "give the public key of who sent" in str(run("receipt", "check", str(out)).exception)
    assert run("receipt", "check", str(out), "--key", receipt["public_key"]).exit_code == 0
    assert "not by" in str(run("receipt", "check", str(out), "--key", "00" * 32).exception)
    out.write_text(json.dumps(receipt).replace('"pairs": 3', '"pairs": 4'))
    assert "its signature is not that of its content" in str(run("receipt", "check", str(out)).exception)
    out.write_text("[]")
    assert "it is not a receipt of a removal" in str(run("receipt", "check", str(out)).exception)
    second = run("receipt", "write", "--list", listed, "--out", str(out), "--line", "2")
    assert "its line 2 names nothing" in str(second.exception)


def test_an_unfinished_removal_has_no_receipt(
    run: Any, store: LocalStore, world: World, tmp_path: Path
) -> None:
    """Nothing of the crawl is published, so no version shows that something is left."""
    for name in store.list("dataset"):
        store.delete(name)
    [name] = [name for name in store.list("shards") if name.endswith(".parquet")]
    whole = store.read(name)
    listed = write_list(tmp_path, world.kept[0]["url"])
    receipt = ("receipt", "write", "--list", listed, "--out", str(tmp_path / "receipt.json"))
    assert run("remove", "--list", listed).exit_code == 0
    assert run(*receipt).exit_code == 0
    store.write(name, whole[:-9])
    assert "all else is removed" in str(run("remove", "--list", listed).exception)
    assert "it is not finished" in str(run(*receipt).exception)
    store.write(name, whole)
    assert run("remove", "--list", listed).exit_code == 0
    assert run(*receipt).exit_code == 0
    missing = run(*receipt[:-1], str(tmp_path / "no/receipt.json"))
    assert "cannot write" in str(missing.exception) and "give another file as --out" in str(missing.exception)


def test_the_image_of_a_url_is_not_that_of_a_longer_url(store: LocalStore, world: World) -> None:
    listed = with_images(read_lines(f"image-of:{world.kept[0]['url']}".encode(), "list"), store)
    [line] = listed.lines
    assert line.rules == {"sha256": {world.kept[0]["sha256"]}, "pdq": {world.kept[0]["pdq"]}}
    record_images(listed, store)
    for name in (*store.list("shards"), *store.list("scored")):
        store.delete(name)
    assert with_images(read_lines(f"image-of:{world.kept[0]['url']}".encode(), "list"), store) == listed


def test_an_image_is_looked_up_in_the_files_that_can_be_read(
    store: LocalStore, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    listed = read_lines(f"image-of:{world.kept[0]['url']}".encode(), "list")
    [scored] = [name for name in store.list("scored") if name.endswith(".parquet")]
    store.write(scored, store.read(scored)[:-100])
    [line] = with_images(listed, store).lines
    assert line.rules["sha256"] == {world.kept[0]["sha256"]}  # of the shard
    assert scored in caplog.text


def test_the_image_of_an_unknown_url_is_a_miss(run: Any, tmp_path: Path) -> None:
    done = run("remove", "--list", write_list(tmp_path, "image-of:https://a.example/no.jpg"))
    assert "line 1 (image-of:https://a.example/no.jpg) match nothing" in str(done.exception)


@pytest.mark.parametrize(
    "value", ["a.example", "a.example/x.jpg", "https://a.example/", "https://a.example/x/"]
)
def test_what_is_not_the_url_of_an_image_has_no_copies(value: str) -> None:
    with pytest.raises(
        InputError, match=r"list line 1: .* is not the URL of an image; write it with https://"
    ):
        read_lines(f"image-of:{value}".encode(), "list")

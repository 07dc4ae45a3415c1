"""`laion-etl dataset push` against a local server that speaks the part of the Hub's API that it uses."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from laion_etl.cli import app
from laion_etl.core.errors import DamagedFileError, InputError, OutageError, RefusedError
from laion_etl.dataset.manifest import current_manifest
from laion_etl.io.storage import LocalStore
from laion_etl.publish import push_plan
from laion_etl.publish.push import Hub
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.removal.lists import read_list
from laion_etl.removal.stage import remove
from laion_etl.settings import Settings
from tests.publish.fake_hub import TOKEN, FakeHub, serve
from tests.publish.world import CRAWL, build_world, write_world

FILES_OF_A_COMMIT = 10


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """huggingface_hub reads its environment once, when it is imported: another test may have done that."""
    from huggingface_hub import constants

    with serve(FakeHub()) as made:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(push_plan, "_MAX_FILES", FILES_OF_A_COMMIT)
        yield made


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("pushed"))
    write_world(build_world(batches=2, samples=15), store)
    publish_dataset(CRAWL, Settings(), store)
    return store


def push(store: LocalStore, *options: str) -> Result:
    return CliRunner().invoke(
        app, ["dataset", "push", "me/laion", *options], env={"LAION_ETL_STORE": str(store.root)}
    )


def said(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_push_that_was_interrupted_goes_on_and_the_copy_matches_its_manifest(
    hub: FakeHub, published: LocalStore, tmp_path: Path
) -> None:
    planned = said(push(published, "--dry-run", "--json"))
    assert (hub.private, hub.tried_commits) == (None, 0)
    hub.failing_commits = {2}
    interrupted = push(published)
    assert isinstance(interrupted.exception, OutageError)
    assert "run the same command again to continue" in str(interrupted.exception)
    assert "README.md" not in hub.files, "the card makes a version visible: it goes last"
    resumed = said(push(published, "--json"))
    assert resumed["unchanged"] == FILES_OF_A_COMMIT
    assert sorted(resumed["sent"]) == sorted(set(planned["sent"]) - set(hub.commits[0]))
    assert set(hub.uploads.values()) == {1}, "a large file that was uploaded is not sent again"
    assert hub.private
    assert {"README.md", "croissant.json", "LICENSE.md", "versions.json"} <= set(hub.commits[-1])
    copy = LocalStore(tmp_path)
    for path, data in hub.files.items():
        copy.write(f"dataset/laion/{path}", data)
    copy.write("dataset/laion/.gitattributes", b"*.parquet filter=lfs")  # the Hub makes it
    assert verify_version("laion", "", copy).problems == []
    again = said(push(published, "--json"))
    assert (again["sent"], again["deleted"], again["unchanged"]) == ([], [], len(hub.files))
    assert len(hub.commits) == 2 + len(planned["sent"]) // FILES_OF_A_COMMIT


def test_removed_rows_are_taken_out_of_the_copy(hub: FakeHub, tmp_path: Path) -> None:
    store, world = LocalStore(tmp_path), build_world(batches=1, samples=12)
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    assert push(store, "--public").exit_code == 0
    assert hub.private is False
    hub.files["notes.txt"] = b"by hand"
    victim = world.kept[0]
    remove(read_list(victim["url"].encode(), "list"), Settings(), store)
    result = push(store)
    assert result.exit_code == 0, result.output
    manifest = current_manifest("laion", store)
    assert manifest is not None
    assert {path.partition("/")[0] for path in hub.files if "/" in path} == {manifest.release.version}
    assert "notes.txt" in hub.files
    from tests.publish.test_joined_samples import table_of

    rows = [table_of(f"dataset/laion/{path}", store) for path in hub.files if "laion-en/" in path]
    assert rows
    assert victim["key"] not in [key for table in rows for key in table["key"].to_pylist()]


def test_what_cannot_be_pushed_is_refused_in_one_line_without_the_token(
    hub: FakeHub, published: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = push(LocalStore(tmp_path)).exception
    assert isinstance(empty, InputError)
    assert "nothing is published" in str(empty)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    wrong = push(published)
    assert isinstance(wrong.exception, RefusedError)
    assert "the Hub answers 401; check the name, and set HF_TOKEN" in str(wrong.exception)
    assert "hf_wrong" not in str(wrong.exception) + wrong.output
    monkeypatch.delenv("HF_TOKEN")
    assert isinstance(push(published).exception, RefusedError)
    assert hub.private is None


def test_a_hub_that_does_not_answer_is_one_warning_and_an_error(
    published: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    waited: list[float] = []
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=waited.append))
    with socket.socket() as unused:  # bound, and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        for _ in range(2):
            caplog.clear()
            assert isinstance(push(published, "--dry-run").exception, OutageError)
            [line] = caplog.messages
            assert line.startswith("the Hub is not available, trying again: ")
            assert "refused" in line
    assert len(waited) > 4


def test_a_damaged_file_is_not_pushed(hub: FakeHub, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write_world(build_world(batches=1, samples=4), store)
    publish_dataset(CRAWL, Settings(), store)
    name = f"dataset/laion/{CRAWL}/laion-en/part-00000.parquet"
    store.write(name, store.read(name)[:-1] + b"X")
    assert isinstance(push(store).exception, DamagedFileError)
    assert hub.files == {}


def test_an_error_does_not_show_the_signature_of_an_upload() -> None:
    error = OSError(
        "upload failed? 500 for url: https://s3.example/lfs/ab?X-Amz-Signature=f00d&X-Amz=1 (id 7)"
    )
    assert Hub._cause(error) == "upload failed? 500 for url: https://s3.example/lfs/ab (id 7)"

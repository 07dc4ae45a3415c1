"""publish that ends by SIGKILL while it writes a file: one whole version or the other is visible."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from laion_etl.core.stage_stats import Output
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import Guard, LocalStore, NewFile, S3Store, Store, open_store
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.settings import Settings
from tests.publish.figures import small_figures
from tests.publish.world import CRAWL, build_world, changed, write_world

pytestmark = pytest.mark.slow

OTHER = changed(Settings(), rows_per_file=15, subsets=(("red", "TEXT LIKE '%red%'"),))


_PROCESSES = multiprocessing.get_context("forkserver")  # which imports this module once
_PROCESSES.set_forkserver_preload([__name__])


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    with small_figures():
        yield


def publish_killed_at(store_uri: str, write: int) -> int | None:
    """The exit code of a process that publishes and kills itself in the middle of its n-th file."""
    process = _PROCESSES.Process(target=_publish, args=(dict(os.environ), store_uri, write))
    process.start()
    process.join(120)
    return process.exitcode


def _publish(environment: dict[str, str], store_uri: str, fatal: int) -> None:
    os.environ.update(environment)  # of the test, which may have begun after the process that forks
    store = open_store(store_uri)
    kind, count = type(store), 0
    create = kind.create

    @contextmanager
    def counted(self: Store, name: str, guard: Guard | None = None) -> Iterator[NewFile]:
        nonlocal count
        count += 1
        mine = count
        with create(self, name, guard) as file:
            if mine == fatal:
                file.write(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            yield file

    def swapped(self: Store, name: str, data: bytes, etag: str | None) -> Output:
        nonlocal count
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return swap(self, name, data, etag)

    kind.create = counted  # type: ignore[method-assign]
    if kind is S3Store:  # swapping a folder is a `create`, too
        swap, kind.swap = kind.swap, swapped  # type: ignore[method-assign]
    with small_figures():
        publish_dataset(CRAWL, OTHER, store)


def dataset(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.list("dataset")}


def check_one_version_is_visible(store: Store, old: dict[str, bytes], new: dict[str, bytes]) -> str:
    """The visible version is the old or the new one, to the byte, and verify finds no problems."""
    current = read_versions("laion", store).current
    assert current is not None
    expected = old if current.version == CRAWL else new
    found = dataset(store)
    folder = f"dataset/laion/{current.version}/"
    assert {name: found[name] for name in found if name.startswith(folder)} == {
        name: data for name, data in expected.items() if name.startswith(folder)
    }
    assert found["dataset/laion/README.md"] in (
        old["dataset/laion/README.md"],
        new["dataset/laion/README.md"],
    )
    problems = verify_version("laion", "", store).problems
    at_the_root = ["dataset/laion/README.md", "dataset/laion/croissant.json"]
    assert [one.file for one in problems] in ([], at_the_root)
    return current.version


@pytest.mark.parametrize(("kind", "step"), [("local", 4), ("s3", 30)])
def test_after_a_kill_at_any_write_one_whole_version_is_visible(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, step: int
) -> None:
    calm = LocalStore(tmp_path / "calm")
    write_world(build_world(batches=2, samples=30), calm)
    publish_dataset(CRAWL, Settings(), calm)
    old = dataset(calm)
    before = {name: calm.read(name) for name in calm.list("")}
    publish_dataset(CRAWL, OTHER, calm)
    new = dataset(calm)
    store = LocalStore(tmp_path / "killed") if kind == "local" else request.getfixturevalue("s3_store")
    for name, data in before.items():
        store.write(name, data)
    writes = len(new.keys() - old.keys()) + 2  # and versions.json, README.md; croissant.json would follow
    seen = []
    for write in [*range(1, writes - 1, step), writes - 1, writes]:
        assert publish_killed_at(store.uri(), write) == -signal.SIGKILL
        seen.append(check_one_version_is_visible(store, old, new))
        if write == writes:
            assert seen[-1] == f"{CRAWL}.2"
    assert set(seen[:-1]) == {CRAWL}
    publish_dataset(CRAWL, OTHER, open_store(store.uri()) if kind == "s3" else store)
    assert dataset(store) == new
    assert verify_version("laion", "", store).problems == []

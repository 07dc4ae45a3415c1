"""A full disk, or one that is read-only, ends a stage with one line; nothing half-written is left.

With more space, or once it can be written, the same command continues; no batch has lost an attempt.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from laion_etl.core.errors import StorageError, StoreOutageError, StoreRefusedError
from laion_etl.core.outages import Outages
from laion_etl.database.connection import Database
from laion_etl.download.hashes import Digests
from laion_etl.download.images import StoredImage
from laion_etl.download.shards import ShardWriter
from laion_etl.io.storage import LocalStore
from laion_etl.settings import Settings
from tests.faults.test_outages import FakeTime, planned, states, worker_of
from tests.parse.wat_files import image, page_record, write_wat
from tests.score.test_worker import World, park, three_batches
from tests.test_cli import laion_etl, one_line_error

pytestmark = pytest.mark.slow


def mount(folder: Path, kib: int) -> None:
    """A file system of that size, or with that size from now on; skips the test where that is not allowed."""
    options = f"size={kib}k" + (",remount" if os.path.ismount(folder) else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False)
    if not os.path.ismount(folder):
        pytest.skip("mounting a small file system needs root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(kib)` mounts a file system of that size, or changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(kib: int) -> Path:
        mount(folder, kib)
        return folder

    yield mounted
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def read_only(folder: Path, *, now: bool) -> None:
    option = "remount,ro" if now else "remount,rw"
    subprocess.run(["mount", "-o", option, str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk is full; return it."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4_096)
    return filler


def complete_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def a_wat(folder: Path) -> str:
    """Pairs enough for some hundred kilobytes of parquet: texts that do not compress."""
    links = [image(f"{n}.jpg", os.urandom(200).hex()) for n in range(2_000)]
    return write_wat(folder / "a.wat.gz", [page_record("https://e.org/", links)])


def test_parse_on_a_full_disk(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    wat = a_wat(tmp_path)
    store = small_disk(100)
    arguments = ("stage", "parse", "--crawl", "C", "--partition", "0", wat)
    done = laion_etl(tmp_path, *arguments, STORE=str(store))
    assert done.returncode == 75
    assert "the disk is full" in one_line_error(done)
    assert [path for path in store.rglob("*") if path.is_file()] == []
    small_disk(10_000)
    assert laion_etl(tmp_path, *arguments, STORE=str(store)).returncode == 0


def test_output_to_a_full_disk_ends_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "laion_etl", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 75
    assert done.stderr.startswith("error: cannot write the output")
    assert done.stderr.count("\n") == 1


def test_the_temporary_file_of_a_batch_on_a_full_disk() -> None:
    image = StoredImage(b"x" * 100_000, "jpg", 1, 1, 1, 1, None, None, None)
    full = Path("/dev/full").open("r+b")  # noqa: SIM115 - closing it would try to write again
    with pytest.raises(StorageError, match="the disk is full"):
        ShardWriter(0, [{}], full).add_image(0, image, Digests("", ""))
    with contextlib.suppress(OSError):
        full.close()


def test_the_embedded_postgres_on_a_full_disk(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    wat = a_wat(tmp_path)
    assert laion_etl(tmp_path, "stage", "parse", "--crawl", "C", "--partition", "0", wat).returncode == 0
    done = laion_etl(
        tmp_path,
        "stage",
        "load",
        "--crawl",
        "C",
        "--partition",
        "0",
        STORE=str(tmp_path / "data"),
        DATA_DIR=str(small_disk(1_000)),
    )
    assert done.returncode == 75
    message = one_line_error(done)
    assert "the embedded Postgres" in message
    assert "No space left on device" in message


def test_download_to_a_full_disk(
    small_disk: Callable[[int], Path], settings: Settings, database: Database
) -> None:
    disk, time = small_disk(2_000), FakeTime()
    store = LocalStore(disk / "store")
    planned(store, settings, database, batches=1)
    filler = fill(disk)
    with pytest.raises(StoreOutageError, match=r"cannot write .*: the disk is full; free space") as ended:
        worker_of(store, settings, database, time).run()
    assert ended.value.exit_code == 75
    assert states(database) == [("ready", 0, 1)]
    assert complete_files(store.root / "shards") == []
    filler.unlink()
    assert len(worker_of(store, settings, database, time).run()) == 1
    assert states(database) == [("downloaded", 1, 1)]


def test_download_to_a_read_only_disk(
    small_disk: Callable[[int], Path], settings: Settings, database: Database
) -> None:
    disk, time = small_disk(2_000), FakeTime()
    store = LocalStore(disk / "store")
    planned(store, settings, database, batches=1)
    read_only(disk, now=True)
    with pytest.raises(StoreRefusedError, match=r"cannot write .*: the file system is read-only") as ended:
        worker_of(store, settings, database, time).run()
    assert (ended.value.exit_code, time.now_s) == (2, 0)  # it does not pass: a setting is wrong
    assert states(database) == [("ready", 0, 1)]
    read_only(disk, now=False)
    assert len(worker_of(store, settings, database, time).run()) == 1
    assert states(database) == [("downloaded", 1, 1)]


@pytest.fixture
def scoring(small_disk: Callable[[int], Path], settings: Settings, database: Database) -> World:
    made = three_batches(settings, LocalStore(small_disk(4_000) / "store"), database)
    park(made, 3)
    return made


def disk_of(scoring: World) -> Path:
    return Path(scoring.store.uri()).parent


def test_score_to_a_full_disk(scoring: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outages, "pause", give_up)
    filler = fill(disk_of(scoring))
    before = scoring.states()
    with pytest.raises(StoreOutageError, match=r"cannot write .*: the disk is full; free space") as ended:
        scoring.worker().run()
    assert ended.value.exit_code == 75
    assert scoring.states() == before
    assert complete_files(Path(scoring.store.uri()) / "scored") == []
    filler.unlink()
    assert len(scoring.worker().run()) == 2
    assert scoring.states() == [(1, "scored", 1), (2, "scored", 1), before[2]]


def give_up(_: Outages, error: Exception, __: float = 0.0) -> None:
    raise error


def test_score_to_a_read_only_disk(scoring: World) -> None:
    before = scoring.states()
    read_only(disk_of(scoring), now=True)
    with pytest.raises(StoreRefusedError, match=r"cannot write .*: the file system is read-only") as ended:
        scoring.worker().run()
    assert ended.value.exit_code == 2
    assert scoring.states() == before
    read_only(disk_of(scoring), now=False)
    assert len(scoring.worker().run()) == 2
    assert scoring.states() == [(1, "scored", 1), (2, "scored", 1), before[2]]

"""Loaders and the server are killed, the network breaks, the disk fills up, and in the end nothing is lost:
no pair is missing or stored twice, no batch is finished twice."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from laion_etl.core.schemas import pair_id, partition_name
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.load import crawl_number
from laion_etl.database.queue import BatchQueue
from laion_etl.io.storage import LocalStore
from laion_etl.settings import CoreSettings, DatabaseSettings, Settings
from tests.database.pairs import Pair, numbered_pairs, write_pairs
from tests.database.pg_server import lay_out, server_of, start_keeper
from tests.database.server import quick_place
from tests.database.wire import Network
from tests.faults.test_full_disk import mount
from tests.forks import Fork, piped
from tests.preloaded_commands import command_server
from tests.shared_folder import SharedFolder
from tests.test_cli import laion_etl

pytestmark = pytest.mark.slow

PAIRS = 20_000
_MID_COPY = 400_000  # bytes; each of two connections has a megabyte to send


@dataclass(frozen=True)
class Site:
    """A store and a database that is reached through a network that may break."""

    folder: Path
    network: Network
    database: str

    @property
    def url(self) -> str:
        """Straight to the server."""
        return f"postgresql://postgres@/{self.database}?host={self.network.socket_dir}"

    def write(self, pairs: list[Pair], partition: int = 0) -> None:
        write_pairs(LocalStore(self.folder), "C", partition, pairs)

    def start(self, partition: int = 0, **settings: str) -> Fork:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LAION_ETL_")}
        environment |= {
            "LAION_ETL_STORE": str(self.folder),
            "LAION_ETL_DATABASE_URL": self.network.url(self.database),
            **{f"LAION_ETL_{name}": value for name, value in settings.items()},
        }
        arguments = ["-m", "laion_etl", "stage", "load", "--crawl", "C", "--partition", str(partition)]
        server = command_server(SharedFolder.of_this_run(), environment)
        return piped(server, arguments, environment, self.folder)

    def load(self, partition: int = 0) -> None:
        self.finished(self.start(partition))

    def finished(self, loader: Fork) -> None:
        output = loader.finished()
        assert loader.returncode == 0, output

    def kill(self, loader: Fork) -> None:
        """Until its server processes have noticed."""
        loader.kill()
        loader.finished()
        self.settle()

    def settle(self) -> None:
        """No connection is left."""
        self.network.hold_after(None)
        self.network.cut()
        with psycopg.connect(self.url, autocommit=True) as connection:
            wait_for(
                lambda: (
                    connection.execute(
                        "select 1 from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
                        [self.database],
                    ).fetchone()
                    is None
                )
            )

    def urls(self) -> list[str]:
        """Image URLs in table pair, each as often as it is there."""
        with psycopg.connect(self.url) as connection:
            return [url for (url,) in connection.execute("select url from pair order by url").fetchall()]

    def loaded(self) -> list[tuple[int, int]]:
        """Partitions that count as loaded, with their pairs."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(
                "select partition, (stats ->> 'kept')::integer from partition "
                "where fingerprint <> '' order by 1"
            ).fetchall()

    def check(self, *partitions: list[Pair]) -> None:
        """Exactly these pairs are there; the partitions have none in common."""
        assert self.urls() == sorted(url for pairs in partitions for url, _ in pairs)
        assert self.loaded() == [(number, len(pairs)) for number, pairs in enumerate(partitions)]
        for number, pairs in enumerate(partitions):
            stats = LocalStore(self.folder).read_stats(f"load/C/{partition_name(number)}.json")
            assert (stats.input, stats.kept) == (len(pairs), len(pairs))


def wait_for(happened: Callable[[], bool], seconds: float = 1200) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextmanager
def site_on(socket_dir: Path, folder: Path) -> Iterator[Site]:
    name = f"faults_{uuid4().hex}"
    EmbeddedServer(socket_dir).url(name)
    with Network(socket_dir) as network:
        yield Site(folder, network, name)


@pytest.fixture
def site(postgres: EmbeddedServer, tmp_path: Path) -> Iterator[Site]:
    with site_on(postgres.socket_dir, tmp_path) as site:
        yield site


def test_a_loader_killed_in_the_middle_of_a_copy(site: Site) -> None:
    pairs = numbered_pairs(0, PAIRS)
    site.write(pairs)
    site.network.hold_after(_MID_COPY)
    process = site.start()
    assert site.network.held.wait(240)
    site.kill(process)
    assert site.loaded() == []
    site.load()
    site.check(pairs)


def test_a_loader_killed_when_its_rows_are_in(site: Site) -> None:
    """All its ranges are committed, the partition is not."""
    pairs = numbered_pairs(0, PAIRS)
    site.write(pairs)
    with open_database(Settings(core=CoreSettings(database_url=site.url))) as database:
        holder = database.connection
        process = site.start()
        with holder.transaction():
            wait_for(lambda: holder.execute("select from partition for no key update").fetchone() is not None)
            wait_for(lambda: len(site.urls()) == PAIRS)
            process.kill()
            process.finished()
    site.settle()
    assert site.loaded() == []
    site.write(numbered_pairs(PAIRS, PAIRS + 100), 1)
    site.load(1)
    site.load()
    site.check(pairs, numbered_pairs(PAIRS, PAIRS + 100))


def test_a_loader_killed_while_it_corrects_a_partition(site: Site) -> None:
    """Each range has the old version or the new one, and none counts until all have the new one."""
    before, after = numbered_pairs(0, PAIRS), numbered_pairs(100, PAIRS + 100)
    site.write(before)
    site.load()
    site.write(after)
    site.network.hold_after(_MID_COPY)
    process = site.start()
    assert site.network.held.wait(240)
    site.kill(process)
    assert site.loaded() == []
    urls = set(site.urls())
    stored = by_range([pair for pair in {*before, *after} if pair[0] in urls])
    versions = zip(by_range(before), by_range(after), strict=True)
    assert all(rows in version for rows, version in zip(stored, versions, strict=True))
    site.load()
    site.check(after)


def by_range(pairs: list[Pair]) -> list[set[Pair]]:
    """The pairs of each key range."""
    ranges: list[set[Pair]] = [set() for _ in range(64)]
    for pair in pairs:
        ranges[pair_id(*pair)[0] // 4].add(pair)
    return ranges


@pytest.mark.parametrize("after", [2_000, _MID_COPY])
def test_the_network_breaks_and_the_loader_goes_on(site: Site, after: int) -> None:
    pairs = numbered_pairs(0, PAIRS)
    site.write(pairs)
    site.network.hold_after(after)
    process = site.start()
    assert site.network.held.wait(240)
    site.network.hold_after(None)
    site.network.cut()
    site.finished(process)
    site.check(pairs)


def short_folder() -> Path:
    """Unix sockets have short names only."""
    return quick_place() / f"laion-pg-{uuid4().hex[:8]}"


class OwnServer:
    """A separate server, in a process that is killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        lay_out(SharedFolder.of_this_run(), folder)
        self._keeper = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        keeper = start_keeper(self._folder)
        self.socket_dir = server_of(keeper).socket_dir
        return keeper

    def kill(self) -> None:
        """All its processes at once, as when the machine loses power."""
        pid = int((self._folder / "postgres" / "postmaster.pid").read_text().split()[0])
        for process in [pid, *children(pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._keeper.kill()
        self._keeper.communicate()
        wait_for(lambda: not Path(f"/proc/{pid}").exists())

    def start(self) -> None:
        self._keeper = self._start()

    def stop(self) -> None:
        self._keeper.communicate("")


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    folder = short_folder()
    server = OwnServer(folder)
    yield server
    server.stop()
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_the_server_killed_in_the_middle_of_a_load(own_server: OwnServer, tmp_path: Path) -> None:
    """A loader waits for it to come back and continues; pairs loaded before are still there."""
    first, second = numbered_pairs(0, PAIRS), numbered_pairs(PAIRS, 2 * PAIRS)
    with site_on(own_server.socket_dir, tmp_path) as site:
        site.write(first)
        site.load()
        site.write(second, 1)
        site.network.hold_after(_MID_COPY)
        process = site.start(1, DATABASE_RETRY_FOR_S="240")
        assert site.network.held.wait(240)
        own_server.kill()
        site.network.hold_after(None)
        time.sleep(1)
        assert process.poll() is None
        own_server.start()
        site.network.socket_dir = own_server.socket_dir
        site.finished(process)
        site.check(first, second)


def test_a_server_that_stays_away_ends_the_load_with_one_line(own_server: OwnServer, tmp_path: Path) -> None:
    pairs = numbered_pairs(0, PAIRS)
    with site_on(own_server.socket_dir, tmp_path) as site:
        site.write(pairs)
        site.network.hold_after(_MID_COPY)
        process = site.start(DATABASE_RETRY_FOR_S="1")
        assert site.network.held.wait(240)
        own_server.kill()
        site.network.hold_after(None)
        output = process.finished()
        assert process.returncode == 75
        assert "Traceback" not in output
        assert "error: cannot connect to Postgres at 127.0.0.1" in output.splitlines()[-1]
        own_server.start()
        site.network.socket_dir = own_server.socket_dir
        site.load()
        site.check(pairs)


def test_the_server_killed_while_workers_claim(own_server: OwnServer, tmp_path: Path) -> None:
    batches, workers = 400, 6
    with site_on(own_server.socket_dir, tmp_path) as site:
        settings = Settings(
            core=CoreSettings(data_dir=str(tmp_path), database_url=site.network.url(site.database)),
            database=replace(DatabaseSettings(), retry_for_s=240),
        )
        with open_database(settings) as database:
            database.connection.execute("insert into crawl (crawl) values ('C')")
            database.connection.execute(
                "insert into batch (batch, crawl_no, pairs, file) "
                "select n, 1, 1, %s from generate_series(1, %s) as n",
                [Jsonb(asdict(Output("no file", 0, ""))), batches],
            )
            crawl_no = crawl_number(database.connection, "C")
        completed: Counter[int] = Counter()
        claims: Counter[tuple[int, int]] = Counter()
        lock = threading.Lock()

        def work() -> None:
            database = Database(settings.core.database_url, settings.database)
            queue = BatchQueue(database, crawl_no, lease_s=600, max_attempts=1)
            while (claim := queue.claim()) is not None:
                with lock:
                    claims[claim.batch, claim.token] += 1
                if queue.complete(claim, StageStats("download", "C", str(claim.batch), "f", 1, 1)):
                    with lock:
                        completed[claim.batch] += 1
            database.close()

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for share in (4, 2):
            wait_for(lambda share=share: completed.total() > batches // share - batches // 8)  # type: ignore[misc]
            own_server.kill()
            site.network.cut()
            own_server.start()
            site.network.socket_dir = own_server.socket_dir
        for thread in threads:
            thread.join(240)
        assert completed == Counter(range(1, batches + 1))
        assert set(claims.values()) == {1}
        with psycopg.connect(site.url) as connection:
            rows = connection.execute(
                "select state::text, attempts + download_attempts, count(*) from batch group by 1, 2"
            ).fetchall()
        assert rows == [("downloaded", 1, batches)]


def test_a_disk_that_fills_up_during_a_load(tmp_path: Path) -> None:
    """The embedded server on a small file system; with more room, the next load completes."""
    folder = short_folder()
    folder.mkdir()
    pairs = [(f"https://img.example/{n}.jpg", f"{n} {os.urandom(1_000).hex()}") for n in range(30_000)]
    small = [("https://img.example/first.jpg", "the first")]

    def load(partition: int) -> "subprocess.CompletedProcess[str]":
        arguments = ("stage", "load", "--crawl", "C", "--partition", str(partition))
        places = {"STORE": str(tmp_path), "DATA_DIR": str(folder)}
        return laion_etl(tmp_path, *arguments, **places, DATABASE_RETRY_FOR_S="2")

    try:
        mount(folder, 110 * 1024)
        write_pairs(LocalStore(tmp_path), "C", 0, small)
        assert load(0).returncode == 0
        write_pairs(LocalStore(tmp_path), "C", 1, pairs)
        done = load(1)
        assert done.returncode == 75, done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        assert "disk" in done.stderr.lower() or "No space left" in done.stderr
        mount(folder, 600 * 1024)
        done = load(1)
        assert done.returncode == 0, done.stderr
        settings = Settings(core=CoreSettings(data_dir=str(folder), store=str(tmp_path)))
        with open_database(settings) as database:
            found = database.connection.execute("select url from pair order by url").fetchall()
        assert [url for (url,) in found] == sorted(url for url, _ in small + pairs)
    finally:
        subprocess.run(["umount", str(folder)], check=False)
        folder.rmdir()

"""The embedded server starts after any end of the last one: still stopping, killed, or in a long recovery."""

import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

import psutil
import psycopg
import pytest
from psycopg.pq import PGconn, Ping

from laion_etl.core.errors import DatabaseError
from laion_etl.database import embedded_lifecycle as postmasters
from laion_etl.database.embedded import running_server
from laion_etl.database.embedded_lifecycle import postmaster
from laion_etl.database.postgres_programs import PostgresPrograms
from tests.database.pg_server import lay_out, server_of, start_keeper
from tests.database.server import quick_place
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.slow

_PR_SET_CHILD_SUBREAPER = 36


class Kept:
    """A server whose keeper is killed, so that nothing stops it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "postgres"
        keeper = start_keeper(folder)
        self.url = server_of(keeper).url("kept")
        keeper.kill()
        keeper.communicate()
        with psycopg.connect(self.url) as connection:
            connection.execute("create table kept as select 1 as row")
        found = postmaster(self.folder)
        assert found is not None
        self.process = found.process

    def stop_when_alone(self) -> None:
        """A smart shutdown: it lasts as long as a client is connected."""
        self.process.send_signal(signal.SIGTERM)
        while (found := postmaster(self.folder)) is None or found.status != "stopping":
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        while not over(self.process):
            time.sleep(0.001)


@pytest.fixture
def empty_folder() -> Iterator[Path]:
    """Short, for Unix sockets have short names only."""
    folder = Path(tempfile.mkdtemp(prefix="laion-pg-", dir=quick_place()))
    yield folder
    for process in postmasters._processes(folder / "postgres"):
        with suppress(psutil.NoSuchProcess):  # they end with the first
            process.kill()
    rmtree(folder)


@pytest.fixture
def folder(empty_folder: Path, shared: SharedFolder) -> Path:
    """With a database in it."""
    lay_out(shared, empty_folder)
    return empty_folder


@pytest.fixture
def kept(folder: Path) -> Kept:
    return Kept(folder)


def over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def rows(folder: Path) -> list[tuple[int]]:
    """What another start of the server finds."""
    with running_server(folder) as server, psycopg.connect(server.url("kept")) as connection:
        return connection.execute("select * from kept").fetchall()


def test_a_server_that_still_stops_is_waited_for(folder: Path, kept: Kept) -> None:
    client = psycopg.connect(kept.url)
    kept.stop_when_alone()
    threading.Timer(1, client.close).start()
    assert rows(folder) == [(1,)]
    assert over(kept.process)


def test_a_server_that_never_stops_is_ended(
    folder: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postmasters, "STOPPING_S", 0.5)
    monkeypatch.setattr(postmasters, "_LOG_AFTER_S", 0.2)
    with psycopg.connect(kept.url):
        kept.stop_when_alone()
        assert rows(folder) == [(1,)]
    assert "is stopping; waiting for it" in caplog.text


def test_a_killed_server_starts_again_at_once(folder: Path, kept: Kept) -> None:
    """Its other processes hold its memory for a moment longer."""
    kept.kill()
    assert rows(folder) == [(1,)]
    assert postmaster(kept.folder) is None, "its killed keeper does not count as a user"


def test_a_server_whose_folder_was_deleted_is_ended(
    folder: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later it would remove the socket of the new one."""
    monkeypatch.setattr(postmasters, "_KILLED_S", 0.2)
    rmtree(kept.folder)
    with running_server(folder) as server:
        assert over(kept.process)
        assert server.url("kept")


def test_a_start_that_fails_names_the_cause(folder: Path, kept: Kept) -> None:
    kept.kill()
    (kept.folder / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(DatabaseError, match=r'cannot start .*: configuration file ".*" contains errors'):
        rows(folder)


def test_a_database_whose_creation_was_killed_is_created_anew(empty_folder: Path) -> None:
    programs = PostgresPrograms(empty_folder / "postgres")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, hard))
    try:
        with pytest.raises(subprocess.CalledProcessError) as killed:
            programs.initdb({})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert killed.value.returncode == -signal.SIGXFSZ
    assert (programs.folder / "PG_VERSION").exists()
    with running_server(empty_folder) as server:
        PGconn.connect(server.maintenance_url.encode()).finish()
    assert not list(empty_folder.glob("*.begun"))


@pytest.mark.parametrize("name", ["18/docker/PG_VERSION", "log"])
def test_what_others_have_put_into_the_data_folder_is_not_deleted(name: str, empty_folder: Path) -> None:
    """A folder of Docker's Postgres has its database deeper; one that a server was started in has its log."""
    programs = PostgresPrograms(empty_folder / "postgres")
    file = programs.folder / name
    file.parent.mkdir(parents=True)
    file.write_text("of another program")
    if name == "log":
        (empty_folder / "postgres.begun").touch()
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            programs.initdb({})
        assert "exists but is not empty" in refused.value.stderr
    assert file.read_text() == "of another program"


def test_a_killed_server_that_was_not_reaped(folder: Path) -> None:
    """As in a container whose process 1 does not reap the children of others."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        kept = Kept(folder)
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)
    kept.kill()
    try:
        assert rows(folder) == [(1,)]
        assert kept.process.status() == psutil.STATUS_ZOMBIE
    finally:
        os.waitpid(kept.process.pid, 0)


def test_the_process_number_of_a_killed_server_is_taken_by_another(folder: Path, kept: Kept) -> None:
    kept.kill()
    for file in (kept.folder / "postmaster.pid", kept.folder / ".s.PGSQL.5432.lock"):
        _, *lines = file.read_text().splitlines()
        file.write_text("\n".join([str(os.getpid()), *lines]) + "\n")
    assert rows(folder) == [(1,)]


def test_a_slow_recovery_is_waited_for(folder: Path, kept: Kept) -> None:
    """From an archive that answers after 3 s, once."""
    kept.process.send_signal(signal.SIGINT)
    psutil.wait_procs([kept.process], timeout=240)
    archive = folder / "archive"
    archive.mkdir()
    archive.chmod(0o777)
    asked = archive / "asked"
    with (folder / "postgres" / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = 'test -e {asked} || {{ touch {asked}; sleep 3; }}; false'\n")
    (folder / "postgres" / "recovery.signal").touch()
    begun = time.monotonic()
    assert rows(folder) == [(1,)]
    assert asked.exists()
    assert time.monotonic() - begun > 3


def test_a_server_that_recovers_from_a_crash_ends_all_the_same(folder: Path) -> None:
    """One of its processes is killed, as by the kernel for memory, and the command that used it ends."""
    with running_server(folder) as server, psycopg.connect(server.url("kept")) as connection:
        connection.execute("create table kept as select 1 as row")
        connection.commit()
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select pg_sleep(10)")
    assert postmaster(folder / "postgres") is None
    assert "is shut down" in (folder / "postgres" / "log").read_text()
    assert rows(folder) == [(1,)]


@pytest.mark.parametrize(
    ("stat", "ends"),
    [
        ("20353 (postgres) S 1 1 1 0 -1 4194624 97", False),
        ("20353 (postgres: a) (b) R 1 1 1 0 -1 4194624 97", False),
        ("20353 (postgres) R 1 1 1 0 -1 4227084 97", True),  # its files are closed, and it is not dead yet
        ("20353 (postgres) Z 1 1 1 0 -1 4227084 97", True),
    ],
)
def test_a_killed_process_counts_as_lost_before_it_is_dead(stat: str, ends: bool) -> None:
    assert postmasters.is_ending(stat) is ends


def test_the_server_is_not_stopped_while_one_of_its_processes_is_dying(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the processor is busy, clients of a killed process lose their connections before it is dead, and
    the process that was to refuse another one is ended before it has."""
    checks, stops, unready = list[bool](), list[int](), [Ping.REJECT, Ping.NO_RESPONSE]
    stop = postmasters.stop

    def ends_later(stat: str) -> bool:
        checks.append(len(checks) < 3)
        return checks[-1]

    def record(programs: PostgresPrograms) -> None:
        stops.append(len(checks))
        stop(programs)

    class Connection(PGconn):
        @classmethod
        def ping(cls, conninfo: bytes) -> Ping:
            return unready.pop() if unready else super().ping(conninfo)

    monkeypatch.setattr(postmasters, "stop", record)
    with running_server(folder) as server:
        assert server.url("kept")
        monkeypatch.setattr(postmasters, "is_ending", ends_later)
        monkeypatch.setattr(postmasters, "PGconn", Connection)
    assert checks[:4] == [True, True, True, False]
    assert stops == [len(checks)]
    assert unready == []


def test_many_start_it_at_once(empty_folder: Path) -> None:
    keepers = [start_keeper(empty_folder) for _ in range(4)]
    [url] = {server_of(keeper).url("kept") for keeper in keepers}
    with psycopg.connect(url) as connection:
        waiting = connection.execute("select name from pg_settings where pending_restart").fetchall()
        assert waiting == [], "memory and log are sized from the first start on"
    for keeper in keepers:
        keeper.communicate("", timeout=240)
        assert keeper.returncode == 0
    assert postmaster(empty_folder / "postgres") is None

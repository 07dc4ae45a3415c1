"""Who reaches the embedded server: its own OS user and root, even where its socket is in a shared folder."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import psutil
import psycopg
import pytest

from laion_etl.core.errors import DatabaseError
from laion_etl.database.embedded import EmbeddedServer, running_server
from laion_etl.database.embedded_lifecycle import postmaster
from laion_etl.database.postgres_programs import PostgresPrograms
from laion_etl.database.server_user import ServerUser, let_through
from laion_etl.database.socket_folder import make_private, socket_folder
from tests.database.server import quick_place

_OTHER_USER = 65534  # an OS user that owns nothing
_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs several OS users")
_OURS = ServerUser("ours", os.geteuid(), os.getegid())


@dataclass(frozen=True, slots=True)
class Running:
    """A server with a data folder that is too long for a socket, which trusted everyone before."""

    server: EmbeddedServer
    top: Path  # mode 0700
    database: Path


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    top = Path(tempfile.mkdtemp(prefix="laion-access-", dir=quick_place()))
    data = top / ("long-" * 20) / "data"
    database = data / "postgres"
    data.mkdir(parents=True)
    PostgresPrograms(database).initdb({})
    (database / "pg_hba.conf").write_text("local all all trust\n")
    with running_server(data) as server:
        yield Running(server, top, database)
    assert not server.socket_dir.exists()
    rmtree(top)


def login_as_other_user(url: str) -> str:
    """Log in from a process of another OS user; returns the error, empty if there is none."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        error = ""
        try:
            os.setgroups([])
            os.setgid(_OTHER_USER)
            os.setuid(_OTHER_USER)
            psycopg.connect(url).close()
        except BaseException as raised:  # noqa: BLE001 - this process must not run the other tests
            error = str(raised)
        os.write(write_end, error.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        error = answer.read()
    os.waitpid(child, 0)
    return error


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.slow
def test_a_socket_outside_the_data_folder_is_private(running: Running) -> None:
    folder = running.server.socket_dir
    assert running.database not in (folder, *folder.parents)
    assert mode(folder) == 0o700
    assert mode(folder / ".s.PGSQL.5432") == 0o700
    assert folder.stat().st_uid == running.database.stat().st_uid


@pytest.mark.slow
@_as_root
def test_another_os_user_does_not_reach_the_socket(running: Running) -> None:
    assert "Permission denied" in login_as_other_user(running.server.maintenance_url)


@pytest.mark.slow
@_as_root
def test_another_os_user_who_reaches_the_socket_is_refused(running: Running) -> None:
    """Also by databases of earlier versions, which trusted everyone."""
    folder = running.server.socket_dir
    folder.chmod(0o755)
    (folder / ".s.PGSQL.5432").chmod(0o777)
    try:
        assert "Peer authentication failed" in login_as_other_user(running.server.maintenance_url)
    finally:
        folder.chmod(0o700)


@pytest.mark.slow
@_as_root
def test_the_server_has_no_group_of_root(running: Running) -> None:
    found = postmaster(running.database)
    assert found is not None
    own = running.database.stat()
    assert set(found.process.gids()) == {own.st_gid}
    assert _groups(found.process) == []


def _groups(process: psutil.Process) -> list[str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("Groups:")).split()[1:]


@pytest.mark.slow
@_as_root
def test_folders_above_the_data_stay_closed_to_others(running: Running) -> None:
    assert mode(running.top) & 0o007 == 0


@_as_root
def test_a_folder_that_only_its_owner_can_enter_lets_the_server_through_only(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    user = ServerUser("server", 4_999, 4_999)
    let_through(closed / "data", user)
    before = os.getxattr(closed, "system.posix_acl_access")
    let_through(closed / "data", user)
    assert os.getxattr(closed, "system.posix_acl_access") == before
    assert mode(closed) == 0o710, "the group bits are now the mask of the list"
    assert enters(closed, 4_999)
    assert not enters(closed, _OTHER_USER)


def enters(folder: Path, uid: int) -> bool:
    """Whether an OS user may change into a folder; the folders above it are not asked."""
    descriptor = os.open(folder, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.fchdir(descriptor)
        except OSError:
            os._exit(1)
        os._exit(0)
    os.close(descriptor)
    return os.waitpid(child, 0)[1] == 0


@_as_root
def test_where_only_all_users_could_be_let_in_the_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "setxattr", unsupported)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(DatabaseError, match=rf"cannot start .*cannot enter {closed} \(keep .*; fix that"),
        running_server(closed / "data"),
    ):
        pass
    assert mode(closed) == 0o700


def test_a_link_in_place_of_the_socket_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "socket").symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="is not a folder of yours"):
        make_private(tmp_path / "socket", _OURS)


@_as_root
def test_a_socket_folder_that_another_user_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "socket").mkdir()
    os.chown(tmp_path / "socket", _OTHER_USER, _OTHER_USER)
    with pytest.raises(PermissionError, match="belongs to another user"):
        make_private(tmp_path / "socket", _OURS)


def test_a_socket_folder_that_others_could_replace_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match=f"other users can replace .* in {tmp_path}"):
        make_private(tmp_path / "socket", _OURS)
    tmp_path.chmod(0o1777)
    make_private(tmp_path / "socket", _OURS)
    assert mode(tmp_path / "socket") == 0o700


def test_a_long_temporary_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert socket_folder(long).parent == Path("/tmp").resolve()  # noqa: S108 - the place to be expected

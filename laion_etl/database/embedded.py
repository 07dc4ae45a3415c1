"""Runs a real Postgres 18 from a wheel, for laptops, demos and tests: nothing to install, no accounts.

Its files are in `<data folder>/postgres`; it listens on a Unix socket only. Several processes may use it at
once; it stops when the last of them ends.
"""

import fcntl
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from laion_etl.core.errors import DatabaseError, DatabaseOutageError, DatabaseRefusedError
from laion_etl.core.host_resources import machine_memory_bytes
from laion_etl.core.outages import is_outage
from laion_etl.core.programs import ending
from laion_etl.io.file_locks import folder_lock

if TYPE_CHECKING:
    from laion_etl.database.postgres_programs import PostgresPrograms

# A quarter of the memory, so that the index stays in it; few checkpoints, because after each one the first
# change to a page writes the whole page to the log. See docs/scaling-postgres.md.
_TUNING = {
    "shared_buffers": f"{max(128, min(8192, machine_memory_bytes() // 2**22))}MB",
    "min_wal_size": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "jit": "off",
}
_LOG_BYTES = 100_000
_DISK_ERROR = re.compile(r"(?:PANIC|FATAL|ERROR): +(.*(?:No space left on device|Input/output error).*)")
_FATAL = re.compile(r"(?:FATAL|PANIC): +")
_CAUSE = re.compile(r"No space left|could not|Permission denied")


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server, reached through its socket folder."""

    socket_dir: Path

    def url(self, database: str, driver: str = "") -> str:
        """Returns the URL of a database, created when missing; `driver`: for SQLAlchemy, as 'psycopg2'."""
        self._ensure(database)
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres:@/{database}?host={self.socket_dir}"

    @property
    def maintenance_url(self) -> str:
        return f"postgresql://postgres:@/postgres?host={self.socket_dir}"

    def _ensure(self, database: str) -> None:
        with psycopg.connect(self.maintenance_url, autocommit=True) as connection:
            known = connection.execute("select 1 from pg_database where datname = %s", [database])
            if known.fetchone() is not None:
                return
            try:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return  # another process has created it


def _tune(server: EmbeddedServer) -> None:
    """Writes settings for bulk loads unless they are set, as they are in a new folder.

    In one of an earlier version shared_buffers applies from the next start on.
    """
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        rows = connection.execute(
            "select name, setting from pg_file_settings where name = any (%s) order by seqno", [[*_TUNING]]
        )
        if dict(rows.fetchall()) == _TUNING:
            return
        for name, value in _TUNING.items():
            connection.execute(
                sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
        connection.execute("select pg_reload_conf()")


@contextmanager
def running_server(data_dir: Path) -> Iterator[EmbeddedServer]:
    """Runs the server of a data folder: starts it if needed, stops it when its last user leaves.

    Raises DatabaseError with the cause from the server's log when it does not start.
    """
    from laion_etl.database.embedded_lifecycle import wait_for_recovery
    from laion_etl.database.postgres_programs import PostgresPrograms

    folder = data_dir.resolve() / "postgres"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        programs = PostgresPrograms(folder)
    except (ImportError, OSError) as error:
        raise _cannot_start(folder, error, _text(error)) from error
    with _using(programs) as socket_dir:
        running = EmbeddedServer(socket_dir)
        try:
            _tune(running)
            yield running
        finally:
            wait_for_recovery(folder, running.maintenance_url)


@contextmanager
def _using(programs: "PostgresPrograms") -> Iterator[Path]:
    """Keeps the server running; yields the folder of its socket.

    Each user holds a shared lock of one file, which ends with the user's process, however that ends. The user
    who can lock the file alone is the last.
    """
    from laion_etl.database.embedded_lifecycle import stop

    with ExitStack() as stack:
        with folder_lock(programs.folder.parent):
            socket_dir = _start(programs)
            users = stack.enter_context((programs.folder / ".users.lock").open("a"))
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield socket_dir
        finally:
            with folder_lock(programs.folder.parent), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stop(programs)


def _start(programs: "PostgresPrograms") -> Path:
    """Starts the server unless it is ready, and waits for it; returns the folder of its socket."""
    from laion_etl.database.embedded_lifecycle import RECOVERY_S, postmaster, settle

    folder = programs.folder
    settle(folder)
    log_start = programs.log.stat().st_size if programs.log.exists() else 0
    try:
        if postmaster(folder) is None:
            programs.initdb(_TUNING)
            programs.start(RECOVERY_S)
        found = postmaster(folder)
    except (subprocess.SubprocessError, OSError, RuntimeError) as error:
        raise _cannot_start(folder, error, _cause(error, programs.log, log_start)) from error
    if found is None or found.socket_dir is None:
        raise DatabaseError(
            "cannot use the embedded Postgres: there are no Unix sockets here; set LAION_ETL_DATABASE_URL"
        )
    return found.socket_dir


def _cannot_start(folder: Path, error: Exception, cause: str) -> DatabaseError:
    stays = isinstance(error, OSError) and not is_outage(error)
    return (DatabaseRefusedError if stays else DatabaseOutageError)(
        f"cannot start the embedded Postgres in {folder}: {cause}; "
        "fix that, or set LAION_ETL_DATABASE_URL to your own server"
    )


def _cause(error: Exception, log: Path, log_start: int) -> str:
    """Returns why a start failed, from what the server wrote to its log or initdb to stderr."""
    if not isinstance(error, subprocess.CalledProcessError):
        return _text(error)
    if log.exists():
        with log.open("rb") as file:
            file.seek(log_start)
            for line in reversed(file.read().decode(errors="replace").splitlines()):
                if found := _FATAL.search(line):
                    return line[found.end() :]
    written: list[str] = error.stderr.strip().splitlines()
    for line in written:
        if found := _FATAL.search(line):
            return line[found.end() :]
    program = f"{Path(error.cmd[0]).name} ended with {ending(error.returncode)}"
    return next((line for line in written if _CAUSE.search(line)), written[-1] if written else program)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def exists(data_dir: Path) -> bool:
    """Whether a data folder has a database."""
    return (data_dir / "postgres" / "PG_VERSION").exists()


@contextmanager
def with_log_cause(data_dir: Path) -> Iterator[None]:
    """Adds the server's own cause to a DatabaseError: on a full disk it ends without a message to clients."""
    log = data_dir.absolute() / "postgres" / "log"
    start = log.stat().st_size if log.exists() else 0
    try:
        yield
    except DatabaseError as error:
        if not log.exists():
            raise
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _LOG_BYTES))
            log_lines = _DISK_ERROR.findall(file.read().decode(errors="replace"))
        if not log_lines or log_lines[-1] in str(error):
            raise
        raise type(error)(f"{error}; the server's log says: {log_lines[-1]}") from error

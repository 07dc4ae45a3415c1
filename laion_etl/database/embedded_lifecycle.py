"""Waits for, ends and cleans up the processes of an embedded Postgres that is starting or stopping.

pg_ctl expects a server that is ready, or none at all. A server asked to stop during recovery may never stop
(seen with 18.4), and after a kill `postmaster.pid` names a process that is gone, or a different one.
"""

import logging
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from psycopg.pq import PGconn, Ping

from laion_etl.core.errors import DatabaseOutageError
from laion_etl.database.postgres_programs import PostgresPrograms

STOP_S = 60.0  # for the last checkpoint
STOPPING_S = STOP_S + 15.0  # the process that stops it is given time to end it
RECOVERY_S = 1_800.0
RECOVERY_GRACE_S = 60.0
_KILLED_S = 10.0  # what the processes of a killed server may take to notice
_LOG_AFTER_S = 3.0
_POLL_S = 0.05
_PF_EXITING = 0x4  # include/linux/sched.h
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The server's main process; `status` as the server writes it: starting, ready or stopping."""

    process: psutil.Process
    status: str
    socket_dir: Path | None


def postmaster(folder: Path) -> Postmaster | None:
    """Returns the running server of a database folder, or None.

    postmaster.pid: https://www.postgresql.org/docs/18/storage-file-layout.html
    """
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        if not _is_of(process, folder):
            return None
    except (OSError, IndexError, ValueError, psutil.Error):
        return None
    socket_dir = Path(lines[4]) if len(lines) > 4 and lines[4] else None
    return Postmaster(process, lines[7].strip() if len(lines) > 7 else "starting", socket_dir)


def settle(folder: Path) -> None:
    """Waits until the folder's server is ready, or gone with all its processes and lock files.

    A server that does not stop within STOPPING_S is killed; like a power cut this loses nothing that was
    committed. Raises DatabaseError when recovery takes longer than RECOVERY_S.
    """
    since_s, logged = dict[str, float](), False
    while True:
        found = postmaster(folder)
        if found is not None and found.status not in ("starting", "stopping"):
            return
        left = [found.process] if found is not None else _processes(folder)
        if not left:
            _clear(folder)
            return
        status = found.status if found is not None else "without its main process"
        now_s = time.monotonic()
        waited_s = now_s - since_s.setdefault(status, now_s)
        if waited_s > {"starting": RECOVERY_S, "stopping": STOPPING_S}.get(status, _KILLED_S):
            if status == "starting":
                raise DatabaseOutageError(
                    f"cannot use the embedded Postgres in {folder}: it is still recovering after "
                    f"{waited_s:.0f} s; try again later"
                )
            _end(left)
        if waited_s > _LOG_AFTER_S and not logged:
            logged = True
            _log.warning("the embedded Postgres in %s is %s; waiting for it", folder, status)
        time.sleep(_POLL_S)


def stop(programs: PostgresPrograms) -> None:
    """Stops the server if it runs; kills it when it has not stopped after STOP_S."""
    if postmaster(programs.folder) is None:
        return
    try:
        programs.stop(STOP_S)
    except subprocess.CalledProcessError:
        _log.warning("the embedded Postgres in %s does not stop; killing it", programs.folder)
        _end(_processes(programs.folder))


def wait_for_recovery(folder: Path, url: str) -> None:
    """Waits for at most RECOVERY_GRACE_S until the server has recovered from a crash of one of its processes.

    To be called before the server is stopped: Postgres 18.4 never stops if asked to during recovery. While it
    ends its other processes it ends those, too, that were to refuse a connection: no answer at all means that
    it is not ready, as a refusal does.
    """
    end_s = time.monotonic() + RECOVERY_GRACE_S
    while time.monotonic() < end_s and postmaster(folder) is not None:
        if not _has_lost_a_process(folder) and PGconn.ping(url.encode()) == Ping.OK:
            return
        time.sleep(_POLL_S)


def _has_lost_a_process(folder: Path) -> bool:
    """Whether a process of the server has died and the main one has not noticed yet."""
    found = postmaster(folder)
    if found is None:
        return False
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        children = found.process.children()
        return any(is_ending(Path(f"/proc/{child.pid}/stat").read_text()) for child in children)
    return True  # a process ended during the check: check again


def is_ending(stat: str) -> bool:
    """Whether a process is dying or dead and not yet waited for, by its /proc/PID/stat (man 5 proc).

    A killed process first closes its files, whose other ends notice at once, and becomes a zombie later:
    where the processor is busy a third of them were still running then, for up to 60 ms. All had the flag
    PF_EXITING.
    """
    state, *fields = stat.rpartition(")")[2].split()
    return state in ("Z", "X") or bool(int(fields[5]) & _PF_EXITING)


def _is_of(process: psutil.Process, folder: Path) -> bool:
    """Whether a process belongs to the server of a folder: all of them work in it.

    A server whose folder was deleted counts: at its end it would remove the socket of the next server there.
    """
    return (
        process.name() == "postgres"
        and process.status() != psutil.STATUS_ZOMBIE
        and Path(process.cwd().removesuffix(" (deleted)")) == folder.resolve()
    )


def _processes(folder: Path) -> list[psutil.Process]:
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_of(process, folder):
                left.append(process)
    return left


def _clear(folder: Path) -> None:
    """Removes the lock files of a server that is gone. The next server does so only if their process number
    is free; it may be taken after a restart, or in a container whose process 1 does not reap zombies."""
    try:
        number, _, _, port, socket_dir, *_ = (folder / "postmaster.pid").read_text().splitlines()
    except (OSError, ValueError):
        return
    lock = Path(socket_dir) / f".s.PGSQL.{port}.lock"
    with suppress(OSError):
        if lock.read_text().split()[0] == number:
            lock.unlink()
    (folder / "postmaster.pid").unlink(missing_ok=True)


def _end(processes: list[psutil.Process]) -> None:
    """Ends processes by an immediate shutdown, then kills those that are left."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGQUIT)
    for process in psutil.wait_procs(processes, timeout=_KILLED_S)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()

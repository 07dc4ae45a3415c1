"""The processes of an embedded Postgres that comes or goes: waited for, ended, or told from what they left.

The library that starts the server expects one that is ready or none at all. A server that recovers after a
power cut takes longer than its ten seconds; one that is asked to stop in the middle of a recovery may never
do it (seen with 18.4); and after a kill `postmaster.pid` names a process that is no more, or another one.
"""

import logging
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from psycopg.pq import PGconn, Ping

from laion_etl.core.errors import DatabaseError

STOPPING_S = 75.0  # whoever stops a server waits 60 s for its last checkpoint and kills it then
RECOVERY_S = 1_800.0
CALM_S = 60.0
_KILLED_S = 10.0  # what the processes of a killed server may take to notice
_SAID_AFTER_S = 3.0
_POLL_S = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The server's first process; `status` as the server writes it: starting, ready or stopping."""

    process: psutil.Process
    status: str


def postmaster(folder: Path) -> Postmaster | None:
    """The running server of a database folder, or None.

    https://www.postgresql.org/docs/18/storage-file-layout.html says what is in postmaster.pid.
    """
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        if not _is_of(process, folder):
            return None
    except (OSError, IndexError, ValueError, psutil.Error):
        return None
    return Postmaster(process, lines[7].strip() if len(lines) > 7 else "starting")


def settle(folder: Path) -> None:
    """Returns when the folder's server is ready, or gone with all its processes and lock files.

    A server that does not stop within STOPPING_S is ended as by a power cut, which loses nothing that was
    committed. Raises DatabaseError where a recovery takes longer than RECOVERY_S.
    """
    since_s, said = dict[str, float](), False
    while True:
        found = postmaster(folder)
        if found is not None and found.status not in ("starting", "stopping"):
            return
        left = [found.process] if found is not None else _processes(folder)
        if not left:
            _clear(folder)
            return
        status = found.status if found is not None else "without its first process"
        now_s = time.monotonic()
        waited_s = now_s - since_s.setdefault(status, now_s)
        if waited_s > {"starting": RECOVERY_S, "stopping": STOPPING_S}.get(status, _KILLED_S):
            if status == "starting":
                raise DatabaseError(
                    f"the embedded Postgres in {folder} still recovers after {waited_s:.0f} s"
                )
            _end(left)
        if waited_s > _SAID_AFTER_S and not said:
            said = True
            _log.warning("the embedded Postgres in %s is %s; waiting for it", folder, status)
        time.sleep(_POLL_S)


def let_recover(folder: Path, url: str) -> None:
    """Before the server is left: from a crash of one of its processes, if that takes no longer than CALM_S.

    Postgres 18.4 never ends when it is asked to while it recovers.
    """
    end_s = time.monotonic() + CALM_S
    while time.monotonic() < end_s:
        if not _has_lost_a_process(folder) and PGconn.ping(url.encode()) != Ping.REJECT:
            return
        time.sleep(_POLL_S)


def _has_lost_a_process(folder: Path) -> bool:
    """Whether a process of the server has died and the first one has not noticed yet."""
    found = postmaster(folder)
    if found is None:
        return False
    with suppress(psutil.NoSuchProcess):
        return any(child.status() == psutil.STATUS_ZOMBIE for child in found.process.children())
    return True  # one has gone while it was looked at: look again


def _is_of(process: psutil.Process, folder: Path) -> bool:
    """Every process of a server works in its folder."""
    return (
        process.name() == "postgres"
        and process.status() != psutil.STATUS_ZOMBIE
        and Path(process.cwd()) == folder.resolve()
    )


def _processes(folder: Path) -> list[psutil.Process]:
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_of(process, folder):
                left.append(process)
    return left


def _clear(folder: Path) -> None:
    """Removes lock files of a server that is gone. The next one does it where their process number is free;
    it may be taken after a restart, and in a container whose first process buries no others."""
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
    """By an immediate shutdown, or a kill where even that does not help."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGQUIT)
    for process in psutil.wait_procs(processes, timeout=_KILLED_S)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()

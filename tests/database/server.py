"""An embedded server that runs while stdin is open; its socket folder is the first line of stdout.

    python -m tests.database.server FOLDER [--short-lived]

Short-lived: nothing there needs to survive a power cut, many tests may be connected at once, and its files
are in memory where there is room.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import psutil

from laion_etl.database.embedded import EmbeddedServer, running_server
from tests.database.pg_server import lay_out
from tests.shared_folder import SharedFolder

# A worker of autovacuum for each of hundreds of databases every minute would take as long as many tests. A
# new database makes two checkpoints, each of which looks at all shared buffers.
_SHORT_LIVED = (
    "fsync = off",
    "autovacuum = off",
    "max_connections = 400",
    "shared_buffers = '256MB'",
    "min_wal_size = '128MB'",
)
_MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it have names of their own
_ROOM = 8 << 30  # databases of a whole run take less than half of it


def quick_place() -> Path:
    """Where to put files of a server: the 600 of a database take 0.3 s of CPU time on a disk, 0.03 in memory.

    A container has a few megabytes of memory there.
    """
    if _MEMORY.is_dir():
        room = min(shutil.disk_usage(_MEMORY).free, psutil.virtual_memory().available)
        if room > _ROOM:
            return _MEMORY
    return Path(tempfile.gettempdir())


def _make_short_lived(folder: Path) -> None:
    with (folder / "postgres" / "postgresql.conf").open("a") as file:
        file.writelines(f"{setting}\n" for setting in _SHORT_LIVED)


def _until_stdin_ends(server: EmbeddedServer) -> None:
    print(server.socket_dir, flush=True)
    sys.stdin.read()


def main() -> None:
    if sys.argv[2:] == ["--short-lived"]:
        with tempfile.TemporaryDirectory(prefix="laion-tests-pg-", dir=quick_place()) as place:
            lay_out(SharedFolder.of_this_run(), Path(place))
            _make_short_lived(Path(place))
            with running_server(Path(place)) as server:
                _until_stdin_ends(server)
    else:
        with running_server(Path(sys.argv[1])) as server:
            _until_stdin_ends(server)


if __name__ == "__main__":
    main()

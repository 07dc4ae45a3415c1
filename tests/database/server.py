"""An embedded server that runs while stdin is open; its socket folder is the first line of stdout.

    python -m tests.database.server FOLDER [--short-lived]

Short-lived: nothing there needs to survive a power cut, and many tests may be connected at once.
"""

import sys
from pathlib import Path

import psycopg

from laion_etl.database.embedded import running_server

# A worker of autovacuum for each of hundreds of databases every minute would take as long as many tests.
_SHORT_LIVED = ("fsync = off", "autovacuum = off", "max_connections = 400")


def _make_short_lived(folder: Path) -> None:
    """In effect from the next start on."""
    with (
        running_server(folder) as server,
        psycopg.connect(server.maintenance_url, autocommit=True) as connection,
    ):
        for setting in _SHORT_LIVED:
            connection.execute(f"alter system set {setting}")  # type: ignore[arg-type]


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["--short-lived"]:
        _make_short_lived(folder)
    with running_server(folder) as server:
        print(server.socket_dir, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

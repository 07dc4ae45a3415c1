"""A process that keeps an embedded server running, to be killed or stopped."""

import subprocess
import sys
from pathlib import Path

from laion_etl.database.embedded import EmbeddedServer, running_server
from tests.shared_folder import SharedFolder

ROOT = Path(__file__).parents[2]


def lay_out(shared: SharedFolder, folder: Path) -> None:
    """Makes the folder of a server as the first start leaves it: a copy, because initdb takes a second of CPU
    time."""

    def started_once(place: Path) -> Path:
        with running_server(place):
            pass
        (place / "postgres" / "log").unlink()
        return place

    made = shared.once("pgdata", started_once)
    folder.mkdir(exist_ok=True)
    subprocess.run(["cp", "--archive", f"{made}/.", str(folder)], check=True)


def start_keeper(folder: Path) -> "subprocess.Popen[str]":
    """Ends, and lets the server stop, when its stdin does."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.database.server", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def server_of(keeper: "subprocess.Popen[str]") -> EmbeddedServer:
    """Returns its server, once that is ready."""
    assert keeper.stdout is not None
    line = keeper.stdout.readline().strip()
    assert line, keeper.communicate()[1]
    return EmbeddedServer(Path(line))

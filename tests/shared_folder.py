"""What a test run makes once and all its worker processes (pytest-xdist) use.

The first process of a run makes a folder and hands its name to the workers it starts. The first worker that
needs a thing makes it there, under a lock, and the others take what that left: a server's address, a crawl.
Servers are processes of their own, so that they outlive the worker that happened to start them; they end when
the first process of the run does, however it ends: its end of the pipe `alive` closes.
"""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock

Made = TypeVar("Made")
ROOT = Path(__file__).parents[1]
_STOPPED_WITHIN_S = 240
_FOLDER = "TESTS_SHARED_FOLDER"


@dataclass(frozen=True)
class SharedFolder:
    """The folder of a run; its path is short, as names of Unix sockets are limited."""

    folder: Path

    @classmethod
    def of_this_run(cls) -> "SharedFolder":
        """For what is no fixture."""
        return cls(Path(os.environ[_FOLDER]))

    def once(self, name: str, make: Callable[[Path], Made]) -> Made:
        """What `make` returned in the first process that asked; it gets a folder for what it writes."""
        result = self.folder / f"{name}.pickle"
        with FileLock(self.folder / f"{name}.lock"):
            if not result.exists():
                place = self.folder / name
                shutil.rmtree(place, ignore_errors=True)  # of one that failed
                place.mkdir()
                made = make(place)
                result.write_bytes(pickle.dumps(made))
            found: Made = pickle.loads(result.read_bytes())  # noqa: S301 - our own
            return found

    def start_server(
        self, module: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """The first line that `python -m module folder` prints: where the server it runs is found.

        It has to end when its stdin does. Without an environment it has this process's.
        """
        with (self.folder / "alive").open("rb") as alive, (folder / "errors.log").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder), *options],
                cwd=ROOT,
                env=environment,
                stdin=alive,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the tests, which still need it when they end
            )
        (self.folder / f"{process.pid}.server").touch()
        assert process.stdout is not None
        place = process.stdout.readline().strip()
        assert place, (folder / "errors.log").read_text()
        return place


class FirstProcess:
    """The process of a run that starts its workers, or does all the work: it owns the folder."""

    def __init__(self) -> None:
        self.shared = SharedFolder(Path(tempfile.mkdtemp(prefix="laion-tests-", dir="/tmp")))
        os.environ[_FOLDER] = str(self.shared.folder)
        os.mkfifo(self.shared.folder / "alive")
        self._alive = os.open(self.shared.folder / "alive", os.O_RDWR)

    @property
    def temporary_files(self) -> Path:
        """Where `tmp_path` is. Pytest's own place for it is one for all its runs, and each that begins keeps
        other users out of it, also the one under which an embedded Postgres runs."""
        return self.shared.folder / "tmp"

    def end(self) -> None:
        """Lets the servers stop, waits for them and removes the folder."""
        os.close(self._alive)
        for file in self.shared.folder.glob("*.server"):
            _wait(int(file.stem))
        shutil.rmtree(self.shared.folder, ignore_errors=True)


def shared_folder(config: Any) -> SharedFolder:
    """Of this run, in its first process and in its workers."""
    if hasattr(config, "workerinput"):
        return SharedFolder(Path(config.workerinput["shared_folder"]))
    shared: SharedFolder = config.first_process.shared
    return shared


def _wait(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        process.wait(_STOPPED_WITHIN_S)
    except psutil.NoSuchProcess:
        return

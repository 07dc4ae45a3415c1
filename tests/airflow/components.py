"""Airflow's components as forks of the process that has imported Airflow (preloaded.py).

As processes of their own, four components import for twelve seconds of CPU time. Two of the demo's tests have
them like that.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from laion_etl.core.errors import DemoError
from laion_etl.demo.services import end_marked
from tests.forks import Fork

# A command of a task may have left the process group and the tree of its component; its environment stays.
_MARK = "AIRFLOW_HOME"


@dataclass(slots=True)
class Components:
    """`with Components(...)` kills everything that was started, with all descendants."""

    server: str
    environment: Mapping[str, str]
    folder: Path  # working folder of the components, and the place of their logs
    _running: dict[str, tuple[Sequence[str], Fork]] = field(default_factory=dict)

    def __enter__(self) -> "Components":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._running:
            self.kill(name)
        end_marked(_MARK, self.environment[_MARK])

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Starts `airflow ARGUMENTS`, or restarts it after it has ended."""
        with self._log(name).open("ab") as log:
            output = (log.fileno(), log.fileno())
            command = ["-m", "airflow", *arguments]
            self._running[name] = (
                arguments,
                Fork(self.server, command, self.environment, self.folder, output),
            )

    def check(self) -> None:
        """Raises DemoError, with its log, when a component has ended."""
        for name, (_, fork) in self._running.items():
            if (code := fork.poll()) is not None:
                raise DemoError(
                    f"{name} ended with exit code {code}; its log:\n{self._log(name).read_text()}"
                )

    def descendants(self, name: str) -> list[psutil.Process]:
        """The child processes of a component, and theirs."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._running[name][1].pid).children(recursive=True)
        return []

    def kill(self, name: str) -> None:
        """SIGKILL for a component and all its descendants, as when its machine is lost."""
        _, fork = self._running[name]
        descendants = self.descendants(name)
        fork.kill()
        for process in descendants:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ProcessLookupError):
            os.killpg(fork.pid, signal.SIGKILL)
        fork.wait()

    def restart(self, name: str) -> None:
        """Restarts a component that was killed, as a cluster does."""
        self.start(name, self._running[name][0])

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

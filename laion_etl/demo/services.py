"""Child processes of the demo: each in its own process group, logging to a file, watched and stopped.

Nothing survives the `with` block: a process that does not end when asked is killed, and so are processes that
the children started in other groups, as Airflow's tasks are.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from laion_etl.core.errors import DemoError

_CLEAN_END_S = 8.0
_HARD_END_S = 3.0
_POLL_S = 0.1
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Service:
    """A child process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(slots=True)
class Services:
    """`with Services(...) as services:` ends every started process, however the block ends.

    `env_marker` names the variable of `environment` whose value only these processes and their children have.
    """

    environment: Mapping[str, str]
    folder: Path  # working folder of the children
    logs: Path
    env_marker: str
    _running: list[Service] = field(default_factory=list)

    def __enter__(self) -> "Services":
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _uninterrupted():
            self._stop()

    def start(self, name: str, command: Sequence[str]) -> Service:
        """Starts a command that runs until the end of the block."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command),
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        service = Service(name, process, log)
        self._running.append(service)
        return service

    def run(self, name: str, command: Sequence[str], timeout_s: float) -> None:
        """Runs a command to its end; raises DemoError when it fails or takes too long."""
        service = self.start(name, command)
        try:
            code = service.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"{name} did not end within {timeout_s:g} s; {_excerpt(service)}") from error
        if code != 0:
            raise DemoError(f"{name} failed with exit code {code}; {_excerpt(service)}")
        self._running.remove(service)

    def check(self) -> None:
        """Raises DemoError, with the end of its log, when a service has died."""
        for service in self._running:
            if (code := service.process.poll()) is not None:
                raise DemoError(f"{service.name} ended with exit code {code}; {_excerpt(service)}")

    def _stop(self) -> None:
        owned = [process for service in self._running for process in _tree(service.process.pid)]
        for service in reversed(self._running):
            _signal_group(service, signal.SIGINT)
        deadline = time.monotonic() + _CLEAN_END_S
        while time.monotonic() < deadline and any(s.process.poll() is None for s in self._running):
            time.sleep(_POLL_S)
        for service in self._running:
            _signal_group(service, signal.SIGKILL)
            service.process.wait()
        _end([*owned, *marked_processes(self.env_marker, self.environment[self.env_marker])])
        self._running.clear()


def marked_processes(variable: str, value: str) -> list[psutil.Process]:
    """Processes whose environment has this value, except this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append(process)
    return found


def end_marked(variable: str, value: str) -> None:
    """Ends processes that an earlier, killed demo may have left running."""
    _end(marked_processes(variable, value))


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _end(processes: Sequence[psutil.Process]) -> None:
    """Terminates, then kills; psutil knows a process by id and start time, so no other one is affected."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, _HARD_END_S)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, _HARD_END_S)


def _signal_group(service: Service, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the group is already empty
        os.killpg(service.process.pid, number)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C in the block: a second one must not leave half of the services running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _excerpt(service: Service) -> str:
    lines = service.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([f"the end of {service.log}:", *lines])

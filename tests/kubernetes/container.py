"""A process that stands for a container: its output as the kubelet keeps it, and its end."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.forks import Fork


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line, without its line end, and when it came."""

    when: datetime
    text: bytes

    @property
    def stamped(self) -> bytes:
        """With its time in RFC 3339 and nanoseconds, as `timestamps=true` has it."""
        return self.when.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + self.text


def started(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> "subprocess.Popen[bytes] | Fork":
    """A command in a process group of its own. Raises OSError when it cannot be run."""
    return subprocess.Popen(
        list(command),
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


Start = Callable[[Sequence[str], Mapping[str, str], Path], "subprocess.Popen[bytes] | Fork"]


class Container:
    """Started at once, in a process group of its own. Raises OSError when the command cannot be run."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        start: Start = started,
    ) -> None:
        self._told = threading.Condition()
        self._lines: list[LogLine] = []
        self._silent = False
        self._process = start(command, environment, folder)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code as a container runtime gives it: 137 for SIGKILL. Raises TimeoutExpired."""
        code = self._process.wait(timeout_s)
        self.kill()  # a container ends with its first process, even if others still run
        self._reader.join()
        return code if code >= 0 else 128 - code

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the first process; SIGKILL to all of them when the time is over."""
        self._process.terminate()
        too_late = threading.Timer(grace_s, self.kill)
        too_late.daemon = True
        too_late.start()

    def signal(self, number: int) -> bool:
        """Sends a signal to all processes; False if the container has ended."""
        if not self.is_running():
            return False
        os.killpg(self._process.pid, number)
        return True

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def says(self, text: str) -> bool:
        """Waits until the output has had this text; False when it ended without it."""
        wanted = text.encode()
        return any(wanted in line.text for line in self.follow())

    def lines(self) -> list[LogLine]:
        """What it has written so far."""
        with self._told:
            return list(self._lines)

    def follow(self) -> Iterator[LogLine]:
        """All lines from the first, to the end of the output."""
        seen = 0
        while True:
            with self._told:
                self._told.wait_for(lambda: len(self._lines) > seen or self._silent)  # noqa: B023
                new, ended = self._lines[seen:], self._silent
            yield from new
            seen += len(new)
            if ended and not new:
                return

    def _read(self) -> None:
        for raw in self._process.stdout or ():
            with self._told:
                self._lines.append(LogLine(datetime.now(UTC), raw.rstrip(b"\n")))
                self._told.notify_all()
        with self._told:
            self._silent = True
            self._told.notify_all()

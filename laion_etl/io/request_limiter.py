"""Spaces out the requests that all processes of a machine send to one server.

The time of the last request is the modification time of a file, and the process that waits for the next one
holds the lock of that file meanwhile. So nothing has to be cleaned up after a killed process: the kernel
releases its lock, and no turn was reserved for it. flock() has no effect on some network file systems; there,
as in separate pods, each machine has its own limit.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

_NOTE = b"The modification time of this file is that of the last request.\n"

_log = logging.getLogger(__name__)


class RequestLimiter:
    """At most `per_s` requests a second of all processes with the same file; 0 for any number."""

    def __init__(
        self,
        path: Path,
        per_s: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._interval_s = 1 / per_s if per_s else 0.0
        self._clock = clock
        self._sleep = sleep
        self._last = 0.0  # where the file cannot be used

    def wait(self) -> None:
        """Returns when the next request may be sent."""
        if not self._interval_s:
            return
        try:
            self._wait_with_others()
        except OSError as error:  # a full disk, or a file of another user, whose time cannot be set
            if not self._last:
                _log.warning(
                    "cannot use %s: %s; the limit of requests holds for this process only", self._path, error
                )
            self._last = self._next_turn(self._last)

    def _wait_with_others(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            if not status.st_size:
                os.write(descriptor, _NOTE)
            turn = self._next_turn(status.st_mtime if status.st_size else 0.0)
            os.utime(descriptor, (turn, turn))
        finally:
            os.close(descriptor)

    def _next_turn(self, last: float) -> float:
        """Waits for the next turn and returns its time; a clock that was set back costs one interval."""
        delay = min(self._interval_s, last + self._interval_s - self._clock())
        if delay > 0:
            self._sleep(delay)
        return self._clock()

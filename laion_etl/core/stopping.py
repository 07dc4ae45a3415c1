"""Graceful shutdown of download and score workers: the request, and the exceptions that end their work."""

import time

from laion_etl.core.errors import Stopped


class LeaseLost(Exception):  # noqa: N818 - a signal between a worker and what it runs
    """Another worker has taken the batch over: its result counts, and nothing may be written any more."""


class TimeIsUp(Stopped):
    """The grace period after a shutdown request is over."""


class Stop:
    """A graceful-shutdown request (SIGTERM): the current batch may finish within `grace_s`."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._requested_at: float | None = None

    @property
    def requested(self) -> bool:
        return self._requested_at is not None

    def request(self) -> None:
        if self._requested_at is None:
            self._requested_at = time.monotonic()

    def check(self) -> None:
        """Raises if the grace period is over."""
        if self._requested_at is not None and time.monotonic() - self._requested_at > self._grace_s:
            raise TimeIsUp("stopped; run the same command again to continue")

"""Time limits of one request: a single cancel scope whose deadline moves from step to step."""

import math
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.http_head import bad_response
from laion_etl.download.link_failed import LinkFailed
from laion_etl.settings import DownloadSettings

# Of Retry-After; sixteen digits of a number are more than enough. Possessive, so that a head full of
# digits or blanks takes linear time.
_NUMBER = re.compile(
    r"\+?0*+([0-9]{1,16}+|(?<=0))[0-9]*+(?:\.[0-9]*+)?\s*+"
    r"(s(?:ec|econd)?s?|m(?:in|inute)?s?|h(?:r|our)?s?|)(?:;.*)?",
    re.IGNORECASE | re.ASCII,
)
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3_600}
_UNMOVED = 0.01  # of a limit: trio takes longer to move a deadline than to receive a packet
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)  # how a connection ends unexpectedly


class RequestDeadline:
    """Limits the time of each step of one request, and of all steps together to `total_s`."""

    def __init__(self, settings: DownloadSettings, total_s: float) -> None:
        self.answered_at = 0.0
        self._settings = settings
        self._end = trio.current_time() + total_s
        self._scope = trio.CancelScope()
        self._step = "total"

    @property
    def spent_s(self) -> float:
        return self._settings.timeout_s - (self._end - trio.current_time())

    @property
    def expired(self) -> bool:
        """Whether the server was too slow."""
        return self._scope.cancelled_caught

    def waiting_for_answer(self) -> None:
        self.answered_at = 0.0
        self._limit("first byte", self._settings.first_byte_timeout_s)

    def answering(self) -> None:
        now = trio.current_time()
        if not self.answered_at:
            self.answered_at = now
        self._limit("idle", self._settings.idle_timeout_s)

    def _limit(self, step: str, seconds: float) -> None:
        until = trio.current_time() + seconds
        self._step = step if until < self._end else "total"
        deadline = min(until, self._end)
        if not 0 <= deadline - self._scope.deadline <= seconds * _UNMOVED:
            self._scope.deadline = deadline

    @contextmanager
    def enforce(self) -> Iterator[None]:
        """Enforces the limits on the steps within; timeouts and socket errors are raised as LinkFailed."""
        self._scope = trio.CancelScope(deadline=min(self._end, self._scope.deadline))
        try:
            with self._scope:
                yield
                return
        except BROKEN as error:
            raise bad_response("connection broken") from error
        raise LinkFailed(DownloadStatus.TIMEOUT, self._step)

    @contextmanager
    def step(self, status: DownloadStatus, message: str, seconds: float) -> Iterator[None]:
        """Limits one step to its own time; its timeout is raised as LinkFailed with this status."""
        with trio.move_on_at(min(trio.current_time() + seconds, self._end)):
            yield
            return
        raise LinkFailed(status, message)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock: waiting for our own resources is not the server's fault."""
        before = trio.current_time()
        deadline, self._scope.deadline = self._scope.deadline, math.inf
        try:
            yield
        finally:
            waited = trio.current_time() - before
            self._end += waited
            self._scope.deadline = deadline + waited


def retry_after_s(values: Iterable[str]) -> float | None:
    """Returns the longest wait of Retry-After headers (RFC 9110, 10.2.3); None if they name none.

    What is not written by the rules counts where it is plain: `120.5`, `120s`, `2 minutes`, `60, 120`.
    """
    waits = [wait_s for value in values if (wait_s := _wait_s(value.strip("\"' \t"))) is not None]
    return max(waits, default=None)


def _wait_s(value: str) -> float | None:
    if parts := [found for part in value.split(",") if (found := _NUMBER.fullmatch(part.strip("\"' ")))]:
        return max(float(found[1] or 0) * _UNITS_S[found[2][:1].lower()] for found in parts)
    try:
        if date := parsedate_tz(value):
            return max(0.0, mktime_tz(date) - time.time())
        iso = datetime.fromisoformat(value)
        return max(0.0, iso.replace(tzinfo=iso.tzinfo or UTC).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

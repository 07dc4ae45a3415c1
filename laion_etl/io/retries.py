"""How often, and for how long, requests to a remote server are repeated.

Common Crawl throttles clients by 403, 429 and 503 for minutes at a time; a partition has a hundred files,
so giving up soon on one of them loses much work. Delays double from attempt to attempt and are random by
half, so that workers that were refused together do not come back together.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from laion_etl.core.errors import InputError
from laion_etl.io.request_limiter import RequestLimiter

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 60.0
_WORTH_A_LINE_S = 2.0

_log = logging.getLogger(__name__)


class TryAgainError(Exception):
    """A request failed in a way that passes: a busy server, a broken connection.

    `retry_after_s`: how long the server asks to wait. `unreachable`: there was no answer at all.
    """

    def __init__(self, cause: str, retry_after_s: float = 0, unreachable: bool = False) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits for one remote file: seconds without progress after which it is given up.

    `unreachable_s` is the limit for servers that have not answered yet at all, which may be a wrong address.
    `limiter` spaces out the requests, repeated ones as well.
    """

    max_s: float = 2.0
    unreachable_s: float = 2.0
    limiter: RequestLimiter | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random


DEFAULT_POLICY = RetryPolicy()


class Retries:
    """The attempts of reading one file."""

    def __init__(self, uri: str, policy: RetryPolicy) -> None:
        self._uri = uri
        self._policy = policy
        self._has_answered = False
        self._attempts = 0
        self._failing_since = 0.0

    def succeeded(self) -> None:
        """There was progress: what failed before no longer counts."""
        self._has_answered = True
        self._attempts = 0

    def before_request(self) -> None:
        """Waits until a request may be sent."""
        if self._policy.limiter is not None:
            self._policy.limiter.wait()

    def wait(self, failure: TryAgainError, advice: str) -> None:
        """Waits until it is time for the next attempt. Raises InputError if there is none left."""
        policy = self._policy
        if not self._attempts:
            self._failing_since = policy.clock()
        backoff = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**self._attempts)
        delay = max(failure.retry_after_s, backoff / 2) + backoff / 2 * policy.random()
        self._attempts += 1
        self._has_answered = self._has_answered or not failure.unreachable
        limit = policy.max_s if self._has_answered else policy.unreachable_s
        if policy.clock() - self._failing_since + delay > limit:
            asked = f" and asks to wait {failure.retry_after_s:,.0f} s" if failure.retry_after_s else ""
            raise InputError(
                f"cannot read {self._uri}: {failure}{asked}, {_times(self._attempts)} within {limit:,.0f} s; "
                f"{advice}"
            ) from failure.__cause__
        if delay >= _WORTH_A_LINE_S:
            _log.warning("cannot read %s yet: %s; trying again in %.0f s", self._uri, failure, delay)
        policy.sleep(delay)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"

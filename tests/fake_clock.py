"""A clock that only sleeping moves."""

from pathlib import Path

from laion_etl.io.request_limiter import RequestLimiter
from laion_etl.io.retries import RetryPolicy


class FakeClock:
    """`slept` has the seconds of each call of `sleep`."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def policy(self, max_s: float, limiter: RequestLimiter | None = None) -> RetryPolicy:
        """The policy of a crawl source, by this clock; delays are the longest of their range."""
        return RetryPolicy(max_s, max_s, limiter, clock=self.time, sleep=self.sleep, random=lambda: 1.0)

    def limiter(self, path: Path, per_s: float) -> RequestLimiter:
        return RequestLimiter(path, per_s, clock=self.time, sleep=self.sleep)

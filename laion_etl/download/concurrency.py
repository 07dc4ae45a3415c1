"""Adapts the number of links in flight to the network and the CPU, like TCP's AIMD.

It starts low, grows while the limit is reached and the event loop is on time, and shrinks when the event loop
is late (the CPU is the bottleneck) or when servers that used to answer time out (the network is). Until it
shrinks for the first time it doubles (slow start), with samples twice as often: links to slow servers that
had to wait for a place would be what a batch waits for at its end. Decoder back-pressure is separate:
BatchDownloader starts few links while the decode queue is long, and none while it is full
(`batch_downloader.py`).
"""

import resource
from dataclasses import dataclass

from laion_etl.core.errors import SettingsError

_START, _MIN, _MAX = 256, 16, 2_048
_SAMPLE_S, _FIRST_SAMPLE_S = 0.5, 0.25
_FIRST_GROWTH, _GROWTH, _CUT = 2.0, 1.3, 0.7
_LATE_S, _FIRST_LATE_S = 0.1, 0.25  # the second in slow start: hundreds of links start at once
_TIMEOUT_SHARE = 0.3
_ENOUGH_LINKS = 20  # for a share of timeouts to mean something
_DESCRIPTORS_KEPT = 256  # for everything except connections
_PER_LINK = 2  # connections: two addresses of a host may be tried side by side
_DESCRIPTORS_LEAST = 96  # what a worker with one decoder needs besides connections, and some more


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What happened since the previous sample."""

    late_s: float  # how much later than scheduled the event loop woke up
    full: bool  # the limit kept links from starting
    answered: int
    timeouts: int  # only those of servers that had answered before


class AdaptiveConcurrency:
    """`limit` links may be in flight; `update` adapts it, unless a fixed number was given.

    Raises SettingsError if this process may not open enough files.
    """

    def __init__(self, fixed: int = 0) -> None:
        descriptors = _descriptors(max(_MAX, fixed))
        _check(descriptors, fixed or _MIN)
        self._max = max(_MIN, min(_MAX, (descriptors - _DESCRIPTORS_KEPT) // _PER_LINK))
        self.limit = fixed or min(_START, self._max)
        self.peak = self.limit
        self._fixed = bool(fixed)
        self._growth = _FIRST_GROWTH

    @property
    def sample_s(self) -> float:
        """Seconds until the next sample is due."""
        return _FIRST_SAMPLE_S if self._is_slow_start and self.limit < self._max else _SAMPLE_S

    @property
    def _is_slow_start(self) -> bool:
        return self._growth == _FIRST_GROWTH and not self._fixed

    def update(self, sample: LoadSample) -> None:
        if self._fixed:
            return
        links = sample.answered + sample.timeouts
        crowded = links >= _ENOUGH_LINKS and sample.timeouts > _TIMEOUT_SHARE * links
        late = sample.late_s > (_FIRST_LATE_S if self._is_slow_start else _LATE_S)
        if late or crowded:
            self.limit = max(_MIN, int(self.limit * _CUT))
            self._growth = _GROWTH
        elif sample.full:
            self.limit = min(self._max, int(self.limit * self._growth) + 1)
        self.peak = max(self.peak, self.limit)


def _descriptors(links: int) -> int:
    """Returns how many files this process may open, after raising the soft limit as far as useful."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _PER_LINK * links + _DESCRIPTORS_KEPT
    if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _check(descriptors: int, links: int) -> None:
    needed = _PER_LINK * links + _DESCRIPTORS_LEAST
    if descriptors < needed:
        raise SettingsError(
            f"cannot download {links} links at a time: this process may open only {descriptors} files; raise "
            f"the limit to {needed} or more (ulimit -n), or lower LAION_ETL_DOWNLOAD_CONNECTIONS"
        )

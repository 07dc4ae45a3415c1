"""How many links are in flight: as many as the network and the cores take, found out while working.

Few at first, more while all of them are in use and the event loop is on time, fewer when it is late (the
cores are the limit) or when servers that used to answer begin to time out (the network is). A full queue of
images before the decoders is no matter of this limit: nothing new is begun then (`stage.py`).
"""

import resource
from dataclasses import dataclass

_START, _MIN, _MAX = 128, 16, 2_048
_GROWTH, _CUT = 1.3, 0.7
_LATE_S = 0.1
_TIMEOUT_SHARE = 0.3
_ENOUGH_LINKS = 20  # to judge a share by
_DESCRIPTORS_KEPT = 256  # for anything but connections


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What happened since the last look."""

    late_s: float  # how much later than asked for the event loop came back
    full: bool  # more would have been begun
    answered: int
    timeouts: int  # of servers that had answered before


class AdaptiveConcurrency:
    """`limit` links may be in flight; `tick` adapts it. A fixed number stays what it is."""

    def __init__(self, fixed: int = 0) -> None:
        self.limit = fixed or _START
        self.peak = self.limit
        self._fixed = bool(fixed)
        self._max = max(_MIN, min(_MAX, (_descriptors() - _DESCRIPTORS_KEPT) // 2))

    def update(self, sample: LoadSample) -> None:
        if self._fixed:
            return
        links = sample.answered + sample.timeouts
        crowded = links >= _ENOUGH_LINKS and sample.timeouts > _TIMEOUT_SHARE * links
        if sample.late_s > _LATE_S or crowded:
            self.limit = max(_MIN, int(self.limit * _CUT))
        elif sample.full:
            self.limit = min(self._max, int(self.limit * _GROWTH) + 1)
        self.peak = max(self.peak, self.limit)


def _descriptors() -> int:
    """Open files this process may have, raised as far as it may raise them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MAX + _DESCRIPTORS_KEPT
    if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft

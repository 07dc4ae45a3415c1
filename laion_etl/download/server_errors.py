"""Errors that are all that an origin answers: it is asked less and less often, then no more in this batch."""

import math
from dataclasses import dataclass

from laion_etl.download.http_head import is_passing

_MOST = 20  # in a row, after which an origin is given up
_TOO_MANY_REQUESTS = 429
_LIMITED_S = 60.0  # for how long 429 has to be all that comes: many servers count requests by the minute
_BUSY = frozenset({_TOO_MANY_REQUESTS, 503})
_BUSY_WAIT_S = 1.0  # also where the server asks for less; doubles while the origin is busy
_MAX_DOUBLINGS = 10


@dataclass(slots=True)
class ServerErrors:
    """The errors in a row of one origin: 5xx, 429 and the like. `now` is trio time."""

    count: int = 0
    _since: float = 0.0
    _pauses: int = 0
    _paused_until: float = -math.inf

    def add(self, answer: int, now: float) -> None:
        """Counts an answer, 0 if there was none; one that is no such error ends the row."""
        if answer < 500 and not is_passing(answer):
            self.count = 0
            return
        if not self.count:
            self._since, self._pauses = now, 0
        self.count += 1

    def are_lasting(self, answer: int, now: float) -> bool:
        """Whether the origin is given up with this answer."""
        return self.count >= _MOST and (answer != _TOO_MANY_REQUESTS or now - self._since >= _LIMITED_S)

    def pause_s(self, answer: int, now: float, longest_s: float) -> float:
        """Returns for how long a busy host is left alone; answers during a pause do not make it longer."""
        if answer not in _BUSY:
            return 0.0
        if now >= self._paused_until:
            wait_s = min(_BUSY_WAIT_S * 2**self._pauses, max(_BUSY_WAIT_S, longest_s))
            self._pauses = min(self._pauses + 1, _MAX_DOUBLINGS)
            self._paused_until = now + wait_s
        return self._paused_until - now

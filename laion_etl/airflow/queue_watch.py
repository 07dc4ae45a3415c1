"""Progress lines for the log of a task that waits for a queue, and when the queue counts as stalled."""

from collections import deque
from dataclasses import dataclass, field

from laion_etl.airflow.restarts import in_words
from laion_etl.core.consumers import QueueState
from laion_etl.core.quantities import quantity

_RATE_OVER_S = 1_800.0


@dataclass(slots=True)
class QueueWatch:
    """Follows a queue from periodic readings; times are seconds of any clock.

    A queue is stalled when no batch has finished for `stalled_after_s`, whatever the reason: there are no
    workers, each of them fails, or the queue itself cannot be read.
    """

    stalled_after_s: float
    began: float
    _ended: deque[tuple[float, int]] = field(default_factory=deque)
    _progress_at: float = field(init=False)
    _was_reported: bool = False

    def __post_init__(self) -> None:
        self._progress_at = self.began

    def see(self, state: QueueState, now: float) -> None:
        """Record a reading."""
        ended = state.finished + state.parked
        if self._ended and ended != self._ended[-1][1]:
            self._progress_at, self._was_reported = now, False
        self._ended.append((now, ended))
        while now - self._ended[0][0] > _RATE_OVER_S and len(self._ended) > 2:
            self._ended.popleft()

    def line(self, state: QueueState) -> str:
        """Return the line to log."""
        text = (
            f"{quantity(state.open, 'batch', 'batches')} to do, {state.at_work:,} of them at work; "
            f"{state.finished:,} finished, {state.parked:,} parked"
        )
        if (rate := self.per_hour) > 0:
            text += f"; {rate:,.0f} an hour, about {in_words(state.open / rate * 3_600)} left"
        return text

    @property
    def per_hour(self) -> float:
        """Batches finished per hour, over the last half hour."""
        if not self._ended:
            return 0.0
        (first_at, first), (last_at, last) = self._ended[0], self._ended[-1]
        return 3_600 * (last - first) / (last_at - first_at) if last_at > first_at else 0.0

    def has_stalled(self, now: float) -> bool:
        """Whether the queue has just stalled: true once per stall."""
        if self._was_reported or now - self._progress_at < self.stalled_after_s:
            return False
        self._was_reported = True
        return True

    def silent_s(self, now: float) -> float:
        """Return the seconds since the last batch finished."""
        return now - self._progress_at

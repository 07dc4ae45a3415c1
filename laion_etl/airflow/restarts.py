"""How often a command or a pod is started again within one try of its task, and after what wait.

Airflow counts a try whenever a task fails, and retries are few: they are for failures of the work itself. A
pod that is preempted, a cluster whose quota is used up or a store that is down says nothing about the work,
and at the size of a crawl each of them happens many times a day. So such a task starts again within its try,
with limits of its own; only when those are reached does it fail.

Airflow's own rescheduling (AirflowRescheduleException) was refused: a rescheduled task begins anew and knows
neither how often that has happened nor which of its pods is still being watched.
"""

import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from laion_etl.core.errors import OUTAGE_EXIT_CODE, Stopped
from laion_etl.core.quantities import quantity

DAY_S = 86_400.0
_HOUR_S = 3_600.0
_LONGEST_DELAY_S = 600.0

# Exit codes of commands that ended early but cleanly, and go on where they ended when started again. The last
# two are those of a process and of a container that got SIGTERM before they could handle it.
ASKED_TO_END = frozenset({Stopped.exit_code, -signal.SIGTERM, 128 + signal.SIGTERM})
RESUMABLE = ASKED_TO_END | {OUTAGE_EXIT_CODE}


class LimitReachedError(Exception):
    """A try has used up its restarts, or its time to wait; the message says which, and the setting."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """What one try has spent so far. Moments are seconds of its own clock, `now_s`.

    `started_at`: its restarts of the last 24 hours. `waited_s`: all its waits, which do not count against its
    execution timeout; `worked_s`: for how long its pods have been watched. `refused_since` and `refusals`: of
    the pod that the cluster refuses to create now.
    """

    started_at: tuple[float, ...] = ()
    waited_s: float = 0.0
    refused_since: float | None = None
    refusals: int = 0
    worked_s: float = 0.0

    @property
    def now_s(self) -> float:
        """The sum of what was measured in this try, which moves between machines with clocks of their own."""
        return self.waited_s + self.worked_s

    @property
    def refused_s(self) -> float:
        """For how long the cluster has refused the pod."""
        return 0.0 if self.refused_since is None else self.now_s - self.refused_since

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any] | None) -> "Restarts":
        """Return what `to_plain` gave; without it, that of a new try."""
        return replace(cls(**plain), started_at=tuple(plain["started_at"])) if plain else cls()

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON: it travels with Airflow's trigger while the task is deferred."""
        return {
            "started_at": list(self.started_at),
            "waited_s": self.waited_s,
            "refused_since": self.refused_since,
            "refusals": self.refusals,
            "worked_s": self.worked_s,
        }

    def another(self, now: float, limit: int) -> "Restarts":
        """Return it with one more restart. Raises LimitReachedError after `limit` of them within 24 hours."""
        if limit == 0:
            raise LimitReachedError("restarts within a try are turned off (LAION_ETL_TASK_RESTARTS is 0)")
        recent = tuple(moment for moment in self.started_at if moment > now - DAY_S)
        if len(recent) >= limit:
            raise LimitReachedError(
                f"it was started again {quantity(len(recent), 'time')} within 24 hours, the limit of "
                "LAION_ETL_TASK_RESTARTS"
            )
        return replace(self, started_at=(*recent, now))

    def refused(self, now: float, limit_s: float) -> "Restarts":
        """Return it with one more refusal. Raises LimitReachedError when the first is `limit_s` ago."""
        since = now if self.refused_since is None else self.refused_since
        if now - since >= limit_s:
            raise LimitReachedError(
                f"that has lasted for {in_words(now - since)}, "
                "the limit of LAION_ETL_KUBERNETES_CREATE_TIMEOUT_S"
            )
        return replace(self, refused_since=since, refusals=self.refusals + 1)

    def accepted(self) -> "Restarts":
        """Return it without refusals: the cluster has the pod."""
        return replace(self, refused_since=None, refusals=0)

    def waited(self, seconds: float) -> "Restarts":
        """Return it after a wait."""
        return replace(self, waited_s=self.waited_s + seconds)

    def worked(self, seconds: float) -> "Restarts":
        """Return it after a pod was watched for a time."""
        return replace(self, worked_s=self.worked_s + seconds)

    def restart_delay_s(self, first_s: float) -> float:
        """Return the wait before the newest restart: longer, the more of them there were within an hour."""
        last_hour = [moment for moment in self.started_at if moment > self.started_at[-1] - _HOUR_S]
        return _jittered(first_s, len(last_hour))

    def refusal_delay_s(self, first_s: float) -> float:
        """Return the wait before the pod is requested again."""
        return _jittered(first_s, self.refusals)


def _jittered(first_s: float, count: int) -> float:
    """Double with each, up to ten minutes; vary it by half, so that pods do not come all at once."""
    return random.uniform(0.5, 1.5) * min(first_s * 2.0 ** min(count - 1, 32), _LONGEST_DELAY_S)  # noqa: S311


def in_words(seconds: float) -> str:
    """Return a duration for a log: 42 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * _HOUR_S else f"{seconds / _HOUR_S:.1f} h"

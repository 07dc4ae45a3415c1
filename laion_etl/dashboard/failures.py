"""What is broken now: failures listed in the store and batches parked in Postgres, grouped by cause."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from laion_etl.alerts import Alert, unresolved_names
from laion_etl.core.causes import cause_of
from laion_etl.core.errors import StorageError
from laion_etl.io.storage import Store

_MOST_READ = 400
_MOST_CAUSES = 40
_UNITS_SHOWN = 12
_PARTITION = re.compile(r"partition (\d{1,9})")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A unit that failed or is late, as its alert says; `unit` is like 'partition 3', `at` ISO 8601."""

    kind: str
    stage: str
    unit: str
    reason: str
    at: str
    run: str
    attempt: int
    log_url: str
    command: str
    task: str


@dataclass(frozen=True, slots=True)
class Affected:
    """A unit with a cause, and the run and task in which it failed: the page asks Airflow about that."""

    unit: str
    run: str
    task: str
    at: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures of one stage that differ in numbers only; `units` has the latest of them first."""

    kind: str
    stage: str
    reason: str
    count: int
    units: tuple[Affected, ...]
    last_at: str


@dataclass(slots=True)
class TroubleCache:
    """What is unresolved of a crawl; a file is read again when it changes. For one thread."""

    crawl: str
    _kept: dict[str, tuple[str, Trouble | None]] = field(default_factory=dict)

    def troubles(self, store: Store) -> list[Trouble]:
        """The newest first. Raises StorageError."""
        marks = store.etags(unresolved_names(self.crawl), ".json")
        wanted = [name for name, mark in marks.items() if self._kept.get(name, ("",))[0] != mark]
        for name in self._kept.keys() - marks.keys():
            del self._kept[name]
        for name in wanted[:_MOST_READ]:
            self._kept[name] = (marks[name], _read(name, store))
        known = [trouble for _, trouble in self._kept.values() if trouble is not None]
        return sorted(known, key=lambda trouble: trouble.at, reverse=True)


def causes(troubles: Iterable[Trouble]) -> list[dict[str, Any]]:
    """Failures before what is late, the most frequent cause first, as plain JSON values."""
    groups: dict[tuple[str, str, str], list[Trouble]] = {}
    for trouble in troubles:
        key = (trouble.kind, trouble.stage, cause_of(trouble.reason))
        groups.setdefault(key, []).append(trouble)
    found = [_cause(group) for group in groups.values()]
    found.sort(key=lambda cause: (cause.kind, -cause.count, cause.stage, cause.reason))
    return [asdict(cause) for cause in found[:_MOST_CAUSES]]


def failed_partitions(troubles: Iterable[Trouble]) -> set[tuple[str, int]]:
    """Stage and number of the partitions that have failed."""
    found = (
        (trouble, _PARTITION.fullmatch(trouble.unit)) for trouble in troubles if trouble.kind == "failed"
    )
    return {(trouble.stage, int(match[1])) for trouble, match in found if match}


def parked_batch(batch: int, attempts: int, error: str, since: datetime) -> Trouble:
    """A batch that was given up."""
    at = since.isoformat(timespec="seconds")
    return Trouble("failed", "download", f"batch {batch}", error, at, "", attempts, "", "", "")


def _cause(group: list[Trouble]) -> Cause:
    latest = sorted(group, key=lambda trouble: trouble.at, reverse=True)
    first = latest[0]
    units = tuple(Affected(one.unit, one.run, one.task, one.at) for one in latest[:_UNITS_SHOWN])
    return Cause(first.kind, first.stage, first.reason, len(group), units, first.at)


def _read(name: str, store: Store) -> Trouble | None:
    """None for a file that cannot be read, or was removed since it was listed."""
    try:
        document = json.loads(store.read(name))
        alert = Alert.from_plain(document).cleaned()
        at = str(document["at"])
    except (ValueError, KeyError, TypeError, AttributeError, StorageError):
        return None
    return Trouble(
        alert.kind.value, alert.stage, alert.unit, alert.reason, at, alert.run,
        alert.attempt, alert.log_url, alert.command, alert.task,
    )  # fmt: skip

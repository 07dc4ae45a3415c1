"""What failed: alerts kept in the store, and batches parked in Postgres, brought together by their cause."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from laion_etl.causes import cause_of
from laion_etl.errors import StorageError
from laion_etl.status import Failure
from laion_etl.storage import Store

_MOST_ALERTS = 400
_MOST_CAUSES = 40
_UNITS_SHOWN = 12
_MOST_CHARS = 600
_PARTITION = re.compile(r"partition (\d{1,9})")
_KINDS = ("failed", "late")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A task that failed or is late, as an alert tells it; `unit` is like 'partition 3'."""

    kind: str
    stage: str
    unit: str
    reason: str
    at: str
    run: str
    attempt: int
    log_url: str
    command: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures of one stage that differ in numbers only."""

    kind: str
    stage: str
    reason: str
    count: int
    units: tuple[str, ...]
    last_at: str


@dataclass(slots=True)
class AlertCache:
    """The latest alerts of a crawl, each read once: they are written once. For one thread."""

    crawl: str
    _kept: dict[str, tuple[str, Trouble | None]] = field(default_factory=dict)

    def troubles(self, store: Store) -> list[Trouble]:
        """The newest first. Raises StorageError."""
        marks = store.marks(f"alerts/{self.crawl}", ".json")
        wanted = [name for name, mark in marks.items() if self._kept.get(name, ("",))[0] != mark]
        for name in self._kept.keys() - marks.keys():
            del self._kept[name]
        for name in wanted[:_MOST_ALERTS]:
            self._kept[name] = (marks[name], _read(name, store))
        known = [trouble for _, trouble in self._kept.values() if trouble is not None]
        return sorted(known, key=lambda trouble: trouble.at, reverse=True)


def causes(troubles: Iterable[Trouble], parked: Iterable[Failure]) -> list[dict[str, Any]]:
    """The most frequent causes first, as plain JSON values."""
    groups: dict[tuple[str, str, str], list[Trouble]] = {}
    for trouble in (*troubles, *map(_of_batch, parked)):
        groups.setdefault((trouble.kind, trouble.stage, cause_of(trouble.reason)), []).append(trouble)
    found = [_cause(group) for group in groups.values()]
    found.sort(key=lambda cause: (-cause.count, cause.stage, cause.reason))
    return [asdict(cause) for cause in found[:_MOST_CAUSES]]


def failed_partitions(troubles: Iterable[Trouble]) -> set[tuple[str, int]]:
    """Stage and number of the partitions that alerts name."""
    found = (
        (trouble, _PARTITION.fullmatch(trouble.unit)) for trouble in troubles if trouble.kind == "failed"
    )
    return {(trouble.stage, int(match[1])) for trouble, match in found if match}


def _cause(group: list[Trouble]) -> Cause:
    first = group[0]
    units = tuple(dict.fromkeys(trouble.unit for trouble in group if trouble.unit))
    last = max(trouble.at for trouble in group)
    return Cause(first.kind, first.stage, first.reason, len(group), units[:_UNITS_SHOWN], last)


def _of_batch(failure: Failure) -> Trouble:
    return Trouble(
        "failed", "download", f"batch {failure.batch}", (failure.error or "")[:_MOST_CHARS], "", "",
        failure.attempts, "", "",
    )  # fmt: skip


def _read(name: str, store: Store) -> Trouble | None:
    """None for what is no failure (digests) and for what can't be read: the alert itself went out anyhow."""
    try:
        document = json.loads(store.read(name))
    except (ValueError, StorageError):
        return None
    if not isinstance(document, Mapping) or document.get("kind") not in _KINDS:
        return None
    words = ("kind", "stage", "unit", "reason", "at", "run")
    kind, stage, unit, reason, at, run = (str(document.get(word) or "")[:_MOST_CHARS] for word in words)
    attempt = document.get("attempt")
    log_url, command = (str(document.get(word) or "")[:_MOST_CHARS] for word in ("log_url", "command"))
    return Trouble(
        kind, stage, unit, reason, at, run, attempt if isinstance(attempt, int) else 0, log_url, command
    )

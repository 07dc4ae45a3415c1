"""Current failures: units listed in the store, and causes for which Postgres has batches parked."""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from laion_etl.alerts import Alert, unresolved_names
from laion_etl.core.causes import cause_of
from laion_etl.core.errors import StorageError
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.database.parked import ParkedCause
from laion_etl.io.storage import Store

_MAX_READ = 400  # at once: a page waits for them
_MAX_KEPT = 2_000
_READERS = 16
_MAX_CAUSES = 40
_UNITS_SHOWN = 12
_PARTITION = re.compile(r"partition (\d{1,9})")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failed or late unit, from its alert; `unit` is like 'partition 3', `at` ISO 8601."""

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
    """A unit with a cause, and the run and task in which it failed, which the page looks up in Airflow."""

    unit: str
    run: str
    task: str
    at: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures of one stage that differ only in numbers; `units` has the latest first."""

    kind: str
    stage: str
    reason: str
    count: int
    units: tuple[Affected, ...]
    last_at: str


@dataclass(slots=True)
class TroubleCache:
    """The unresolved units of a crawl; a file is reread when it changes. For one thread."""

    crawl: str
    _kept: dict[str, tuple[str, Trouble | None]] = field(default_factory=dict)

    def troubles(self, store: Store) -> list[Trouble]:
        """Return the unresolved units, newest first. Raises StorageError."""
        etags = dict(sorted(store.etags(unresolved_names(self.crawl), ".json").items())[:_MAX_KEPT])
        wanted = [name for name, etag in etags.items() if self._kept.get(name, ("",))[0] != etag]
        for name in self._kept.keys() - etags.keys():
            del self._kept[name]
        wanted = wanted[:_MAX_READ]
        with ThreadPoolExecutor(_READERS) as pool:
            for name, found in zip(wanted, pool.map(lambda name: _read(name, store), wanted), strict=True):
                self._kept[name] = (etags[name], found)
        known = [trouble for _, trouble in self._kept.values() if trouble is not None]
        return sorted(known, key=lambda trouble: trouble.at, reverse=True)


def causes(troubles: Iterable[Trouble], parked: Iterable[ParkedCause] = ()) -> list[dict[str, Any]]:
    """Group by cause: failures before late units, most frequent cause first, as plain JSON values.

    Parked batches are grouped by Postgres; all are counted, and the latest of each cause named.
    """
    groups: dict[tuple[str, str, str], list[Trouble]] = {}
    for trouble in troubles:
        key = (trouble.kind, trouble.stage, cause_of(trouble.reason))
        groups.setdefault(key, []).append(trouble)
    found = [*(_cause(group) for group in groups.values()), *map(_cause_of_batches, parked)]
    found.sort(key=lambda cause: (cause.kind, -cause.count, cause.stage, cause.reason))
    return [asdict(cause) for cause in found[:_MAX_CAUSES]]


def failed_partitions(troubles: Iterable[Trouble]) -> set[tuple[str, int]]:
    """Return stage and number of the failed partitions."""
    found = (
        (trouble, _PARTITION.fullmatch(trouble.unit)) for trouble in troubles if trouble.kind == "failed"
    )
    return {(trouble.stage, int(match[1])) for trouble, match in found if match}


def _cause(group: list[Trouble]) -> Cause:
    latest = sorted(group, key=lambda trouble: trouble.at, reverse=True)
    first = latest[0]
    units = tuple(Affected(one.unit, one.run, one.task, one.at) for one in latest[:_UNITS_SHOWN])
    return Cause(first.kind, first.stage, first.reason, len(group), units, first.at)


def _cause_of_batches(parked: ParkedCause) -> Cause:
    units = tuple(
        Affected(f"batch {batch}", "", "", at.isoformat(timespec="seconds"))
        for batch, at in zip(parked.batches, parked.times, strict=True)
    )
    last_at = parked.last_at.isoformat(timespec="seconds")
    return Cause("failed", "download", parked.reason, parked.count, units, last_at)


def _read(name: str, store: Store) -> Trouble | None:
    """Read one file; None if it cannot be read or was removed since it was listed."""
    try:
        document = parse_json(store.read(name))
        alert = Alert.from_plain(document).cleaned()
        if not all(isinstance(one, str) for one in (alert.stage, alert.unit, alert.run, alert.reason)):
            return None
        at = str(document["at"])
    except (*NOT_AS_EXPECTED, StorageError):
        return None
    return Trouble(
        alert.kind.value, alert.stage, alert.unit, alert.reason, at, alert.run,
        alert.attempt, alert.log_url, alert.command, alert.task,
    )  # fmt: skip

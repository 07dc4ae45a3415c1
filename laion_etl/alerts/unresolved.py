"""Units that are failed or late right now: one small file per unit in the store, removed once it succeeds.

    unresolved/<crawl>/<stage>/<unit>.<failed or late>.json

The alerts of a crawl list everything that ever went wrong; finding what is still broken would mean comparing
all of them with all results. Here a failure writes one file, the unit's next success removes it, and a
listing is only as long as the number of broken units.

Partitions are the same in every run, so a success in any run counts. Download workers and score groups are
renumbered in each run: their files also carry the run, and the first success of the stage in a later run
removes what earlier runs left.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from laion_etl.alerts.alert import Alert, Kind
from laion_etl.core.stage_stats import fingerprint
from laion_etl.io.storage import Store

FOLDER = "unresolved"
_STATES = (Kind.FAILED, Kind.LATE)
_NAME = re.compile(rf"{FOLDER}/([^/]+)/[^/]+/[^/]+\.(failed|late)\.json\Z")


@dataclass(frozen=True, slots=True)
class Unit:
    """The piece of work that a task of a run does. `index` is the task's map index, -1 if unmapped."""

    crawl: str
    run: str
    stage: str
    unit: str
    index: int = -1

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{self.crawl}/{self.stage or 'run'}"

    @property
    def key(self) -> str:
        return _key(self.run, self.unit)

    def resolves(self, key: str) -> bool:
        """Whether the success of this unit resolves the file with this key in the folder of its stage."""
        of_run = key.startswith("run-")
        other_run = of_run and not key.startswith(f"run-{fingerprint(self.run)}-")
        # A killed process leaves no label: its unit is known only by its index.
        return other_run or key in (self.key, _key(self.run, f"[{self.index}]"))


def note(alert: Alert, record: Mapping[str, Any], store: Store) -> None:
    """List the unit of a failed or late alert; other alerts change nothing. Raises StorageError."""
    if alert.kind not in _STATES:
        return
    unit = Unit(alert.crawl, alert.run, alert.stage, alert.unit)
    stem = f"{unit.folder}/{unit.key}"
    store.write(f"{stem}.{alert.kind.value}.json", json.dumps(dict(record), ensure_ascii=False).encode())
    if alert.kind is Kind.FAILED:
        store.delete(f"{stem}.{Kind.LATE.value}.json")


def resolve(unit: Unit, store: Store) -> None:
    """Remove a unit that has succeeded from the list. Raises StorageError."""
    for name in store.list(unit.folder):
        if unit.resolves(name.rpartition("/")[2].partition(".")[0]):
            store.delete(name)


def unresolved_names(crawl: str) -> str:
    """Return the folder of a crawl's unresolved units."""
    return f"{FOLDER}/{crawl}"


def failed_crawls(names: Iterable[str]) -> set[str]:
    """Return the crawls with a failed unit, given the names below the folder."""
    found = (_NAME.match(name) for name in names)
    return {match[1] for match in found if match and match[2] == Kind.FAILED.value}


def _key(run: str, unit: str) -> str:
    if not unit or unit.startswith("partition "):
        return f"unit-{fingerprint(unit)}"
    return f"run-{fingerprint(run)}-{fingerprint(unit)}"

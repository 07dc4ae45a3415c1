"""What is broken or late at the moment: a small file in the store for each unit, gone once the unit succeeds.

    unresolved/<crawl>/<stage>/<unit>.<failed or late>.json

The alerts of a crawl say what ever went wrong; to know from them what still is, one would have to compare all
of them with all results. Here a failure writes one name, the unit's next success removes it, and a listing is
as long as the trouble is large.

Partitions are the same in every run, so a success in any run counts. Download workers and score groups are
numbered anew in each run: their files also carry the run, and the first success of the stage in a later run
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
    """A piece of work: what a task of a run does. `index` is the task's map index, -1 without one."""

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
        """Whether the success of this unit resolves what a file of its stage, by its key, is about."""
        of_run = key.startswith("run-")
        other_run = of_run and not key.startswith(f"run-{fingerprint(self.run)}-")
        # A process that is killed leaves no label: its unit is known by its index only.
        return other_run or key in (self.key, _key(self.run, f"[{self.index}]"))


def note(alert: Alert, record: Mapping[str, Any], store: Store) -> None:
    """List what a failed or late alert is about; other alerts change nothing. Raises StorageError."""
    if alert.kind not in _STATES:
        return
    unit = Unit(alert.crawl, alert.run, alert.stage, alert.unit)
    stem = f"{unit.folder}/{unit.key}"
    store.write(f"{stem}.{alert.kind.value}.json", json.dumps(dict(record), ensure_ascii=False).encode())
    if alert.kind is Kind.FAILED:
        store.delete(f"{stem}.{Kind.LATE.value}.json")


def resolve(unit: Unit, store: Store) -> None:
    """Take a unit that has succeeded off the list. Raises StorageError."""
    for name in store.list(unit.folder):
        if unit.resolves(name.rpartition("/")[2].partition(".")[0]):
            store.delete(name)


def unresolved_names(crawl: str) -> str:
    """The folder of what is unresolved of a crawl."""
    return f"{FOLDER}/{crawl}"


def failed_crawls(names: Iterable[str]) -> set[str]:
    """The crawls of which something has failed, by the names below the folder."""
    found = (_NAME.match(name) for name in names)
    return {match[1] for match in found if match and match[2] == Kind.FAILED.value}


def _key(run: str, unit: str) -> str:
    if not unit or unit.startswith("partition "):
        return f"unit-{fingerprint(unit)}"
    return f"run-{fingerprint(run)}-{fingerprint(unit)}"

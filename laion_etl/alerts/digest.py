"""The digest of a run: how it ended, what it published and where, and what is still broken."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from laion_etl.alerts.alert import Alert, Kind, page_about, run_folder, shortened
from laion_etl.core.one_line import one_line
from laion_etl.core.plain_json import parse_json
from laion_etl.core.quantities import quantity
from laion_etl.io.storage import Store, open_store
from laion_etl.settings import Settings

if TYPE_CHECKING:  # Airflow imports this whenever it parses the DAGs, which need no database
    from laion_etl.database.parked import ParkedCause

# Tasks in the order in which the data flows; tasks that only pass numbers on are shown if they failed.
_ORDER = (
    *(
        "estimate",
        "discover",
        "parse",
        "load",
        "plan",
        "plan_range",
        "workers",
        "score_workers",
        "download",
        "shards",
        "score",
    ),
    *("publish", "publish_hashes", "publish_compare", "publish_range", "publish_finish"),
)
_HELPERS = ("estimate", "workers", "score_workers", "shards")
# Skipped for crawls that need only one range.
_OPTIONAL = ("plan_range", "publish_hashes", "publish_compare", "publish_range", "publish_finish")
_NOT_COUNTED = ("digest", "verdict")
_FAILED = ("failed", "upstream_failed")
_WORDS = {"success": "done", "upstream_failed": "not run, because an earlier task failed"}
_UNITS_SHOWN = 5
_CAUSES_SHOWN = 5
_READERS = 16  # small files: reading them is mostly waiting


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What Airflow knows about a run at its end.

    `states` maps tasks, such as `partition.parse_7`, to Airflow's names of states; `published` is what the
    publishing task returned (rows, version, dataset, report), `estimate` the result of a dry run. `parked`:
    why batches of the crawl are parked in Postgres.
    """

    crawl: str
    run: str
    states: Mapping[str, str]
    url: str = ""
    published: Mapping[str, Any] = field(default_factory=dict)
    estimate: Mapping[str, Any] = field(default_factory=dict)
    parked: "tuple[ParkedCause, ...]" = ()

    @property
    def failed(self) -> bool:
        return any(self.states[task] in _FAILED for task in self.tasks)

    @property
    def dry(self) -> bool:
        """A dry run skips everything after its estimate."""
        return not self.failed and self.states.get("estimate") == "skipped"

    @property
    def tasks(self) -> list[str]:
        """The tasks that do the work, in data-flow order."""
        found = [task for task in self.states if _stage(task) not in _NOT_COUNTED]
        return sorted(found, key=lambda task: (_place(_stage(task)), _index(task)))


def run_digest(end: RunEnd, settings: Settings) -> Alert:
    """Return the digest as an alert. Raises StorageError if the run's alerts cannot be read."""
    alerts = _kept(end.crawl, end.run, open_store(settings.store_uri))
    if end.dry:
        details = [*_places(end), *_estimate_lines(end.estimate)]
    else:
        details = [*_places(end), *_stage_lines(end), *_trouble_lines(end, alerts), *_parked_lines(end)]
    return Alert(
        Kind.DIGEST, end.crawl, end.run, run_url=end.url, outcome=_outcome(end), details=tuple(details)
    )


def _outcome(end: RunEnd) -> str:
    if end.dry:
        samples = end.estimate.get("samples")
        return "dry run" + (
            f", about {quantity(samples, 'sample')} expected" if isinstance(samples, int) else ""
        )
    rows = end.published.get("rows")
    published = f"{quantity(rows, 'row')} published" if isinstance(rows, int) else "nothing published"
    return f"{'failure' if end.failed else 'success'}, {published}"


def _places(end: RunEnd) -> Iterator[str]:
    for name in ("version", "dataset", "report"):
        if value := end.published.get(name):
            yield f"{name}: {value}"


def _estimate_lines(estimate: Mapping[str, Any]) -> Iterator[str]:
    if estimate:
        yield "estimate (nothing else was done):"
    for name, value in estimate.items():
        shown = f"{value:,}" if isinstance(value, int | float) else str(value)
        if name.endswith("_bytes") and isinstance(value, int | float):
            shown = f"{value / 1e9:,.2f} GB"
        yield f"  {name.removesuffix('_bytes').replace('_', ' ')}: {shown}"


def _stage_lines(end: RunEnd) -> Iterator[str]:
    yield "stages:"
    stages: dict[str, Counter[str]] = {}
    for task in end.tasks:
        stages.setdefault(_stage(task), Counter())[end.states[task]] += 1
    for stage, counts in stages.items():
        if stage in _HELPERS and not any(state in counts for state in _FAILED):
            continue
        if stage in _OPTIONAL and counts.keys() == {"skipped"}:
            continue
        total, done = counts.total(), counts.pop("success", 0)
        rest = [f"{count} {_WORDS.get(state, state)}" for state, count in sorted(counts.items())]
        yield f"  {stage}: " + ", ".join([f"{done} of {total} done", *rest])


def _trouble_lines(end: RunEnd, alerts: Iterable[Alert]) -> Iterator[str]:
    groups: dict[str, dict[str, Alert]] = {}
    fixed, late = set(), set()
    for alert in alerts:
        if alert.kind is Kind.LATE:
            late.add((alert.stage, alert.unit))
        elif end.states.get(alert.task) == "success":
            fixed.add(alert.task)
        else:
            groups.setdefault(alert.folder, {})[alert.unit] = alert
    unexplained = {task for task in end.tasks if end.states[task] == "failed"} - {
        alert.task for group in groups.values() for alert in group.values()
    }
    if groups or unexplained:
        yield "still broken:"
    for group in sorted(groups.values(), key=lambda group: _place(next(iter(group.values())).stage)):
        yield f"  {_affected(list(group.values()))}"
    if unexplained:
        shown = ", ".join(sorted(unexplained)[:_UNITS_SHOWN])
        yield f"  {len(unexplained)} without a reported cause ({shown}): see the run's page"
    if stages := [_stage(task) for task in end.tasks if end.states[task] == "failed"]:
        yield f"more: {', '.join(dict.fromkeys(map(page_about, stages)))}"
    if fixed:
        yield f"failed at first, fixed by a retry: {len(fixed)}"
    if late:
        yield f"late: {', '.join(' '.join(one).strip() for one in sorted(late)[:_UNITS_SHOWN])}"


def _parked_lines(end: RunEnd) -> Iterator[str]:
    if not end.parked:
        return
    total = sum(cause.count for cause in end.parked)
    repair = f"fix the cause, then run laion-etl db requeue --crawl {end.crawl}"
    yield f"batches parked: {total:,}; {repair}; more: {page_about('download')}"
    for cause in end.parked[:_CAUSES_SHOWN]:
        yield f"  {cause.count:,} x {shortened(one_line(cause.reason))}"
    if len(end.parked) > _CAUSES_SHOWN:
        yield f"  and {sum(cause.count for cause in end.parked[_CAUSES_SHOWN:]):,} by other causes"


def _affected(group: list[Alert]) -> str:
    """Format a group: `3 x parse (partition 0, partition 1, partition 2): cause`."""
    first = group[0]
    units = [alert.unit for alert in group if alert.unit]
    more = [f"{len(units) - _UNITS_SHOWN} more"] if len(units) > _UNITS_SHOWN else []
    shown = ", ".join([*units[:_UNITS_SHOWN], *more])
    return f"{len(group)} x {first.stage}{f' ({shown})' if shown else ''}: {first.reason}"


def _kept(crawl: str, run: str, store: Store) -> list[Alert]:
    """Read the task alerts of a run, in the order of their units."""
    names = store.list(run_folder(crawl, run))
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda name: Alert.from_plain(parse_json(store.read(name))), names))
    of_tasks = [alert for alert in found if alert.kind in (Kind.FAILED, Kind.LATE)]
    return sorted(of_tasks, key=lambda alert: (_place(alert.stage), len(alert.unit), alert.unit))


def _stage(task: str) -> str:
    return re.sub(r"_\d+\Z", "", task).rpartition(".")[2]


def _index(task: str) -> int:
    match = re.search(r"_(\d+)\Z", task)
    return int(match[1]) if match else -1


def _place(stage: str) -> int:
    return _ORDER.index(stage) if stage in _ORDER else len(_ORDER)

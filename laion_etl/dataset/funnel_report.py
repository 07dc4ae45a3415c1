"""The funnel of a whole crawl, added up from the stats files that every stage writes next to its output."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from rich.table import Table

from laion_etl.core.errors import DamagedFileError, NewerFormatError
from laion_etl.core.schemas import plan_stats_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.manifest import published_stats
from laion_etl.dataset.used_settings import Used, merged_used, used_of
from laion_etl.dataset.versions import NAME as VERSIONS
from laion_etl.io.storage import Store

# Stage, folder and name of its stats files, in the order the data flows.
STATS_FILES = (
    ("parse", "pairs/{crawl}", re.compile(r"part-\d+\.json\Z")),
    ("load", "load/{crawl}", re.compile(r"part-\d+\.json\Z")),
    ("plan", "batches/{crawl}", re.compile(r"_stats\.json\Z")),
    ("download", "shards/{crawl}", re.compile(r"\d+_stats\.json\Z")),
    ("score", "scored/{crawl}", re.compile(r"\d+_stats\.json\Z")),
)
STAGES = (*(stage for stage, _, _ in STATS_FILES), "publish")
_VERSIONS_DEPTH = 3  # dataset/<name>/versions.json
_READERS = 8  # stats files are small: reading them is mostly waiting, above all on S3
_REASONS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """One stage over all its finished units; `dropped` has the most frequent reason first."""

    stage: str
    units: int
    input: int
    kept: int
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        return self.units > 0

    @classmethod
    def summed(cls, stage: str, rows: Iterable["FunnelRow"]) -> "FunnelRow":
        """Return the sums of rows of a stage."""
        units = given = kept = 0
        dropped: Counter[str] = Counter()
        for row in rows:
            units, given, kept = units + row.units, given + row.input, kept + row.kept
            dropped.update(row.dropped)
        return cls(stage, units, given, kept, _ordered(dropped))


@dataclass(frozen=True, slots=True)
class CrawlFunnel:
    """Rows of all stages in order (`units` 0: not started), and where their counts do not add up.

    `records` counts WAT records on their way to pages; from `parse` on, the rows count image links.
    """

    crawl: str
    records: FunnelRow
    rows: tuple[FunnelRow, ...]
    problems: tuple[str, ...]

    def row(self, stage: str) -> FunnelRow:
        """Return the row of a stage. Raises KeyError for an unknown one."""
        return {row.stage: row for row in self.rows}[stage]

    @property
    def all_rows(self) -> tuple[FunnelRow, ...]:
        """The records, then the stages."""
        return (self.records, *self.rows)

    @property
    def started_rows(self) -> tuple[FunnelRow, ...]:
        return tuple(row for row in self.rows if row.started)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def as_table(self) -> Table:
        """Return the funnel for the terminal, with notes below it where counts do not add up."""
        return _table(self)


@dataclass(frozen=True, slots=True)
class CountedStage:
    """The row of a stage that was added up elsewhere, and an error message for each damaged stats file.

    `settings`: those that its units were made with.
    """

    row: FunnelRow
    problems: tuple[str, ...] = ()
    settings: Used = field(default_factory=dict)

    @classmethod
    def from_stats(cls, stage: str, found: Iterable[StageStats | str]) -> "CountedStage":
        """Add up stats; the others are error messages."""
        units = list(found)
        stats = [one for one in units if isinstance(one, StageStats)]
        problems = tuple(one for one in units if isinstance(one, str))
        return cls(_add_up(stage, stats), problems, merged_used(used_of(one.details) for one in stats))

    def merged(self, other: "CountedStage") -> "CountedStage":
        """Return the sums of two parts of the same stage."""
        row = FunnelRow.summed(self.row.stage, (self.row, other.row))
        settings = merged_used([self.settings, other.settings])
        return CountedStage(row, (*self.problems, *other.problems), settings)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "CountedStage":
        """Read what `to_plain` returned. Raises KeyError or TypeError."""
        return cls(FunnelRow(**plain["row"]), tuple(plain["problems"]), plain.get("settings", {}))


def crawl_funnel(
    store: Store,
    crawl: str,
    published: StageStats | None = None,
    counted: Mapping[str, CountedStage] | None = None,
) -> CrawlFunnel:
    """Adds up the stats of all stages of a crawl, finished or not.

    `published`: the stats of the publish stage when they are not in the store yet; without it, those of
    the current version of a dataset that holds this crawl, if any. `counted`: stages whose stats are not
    read, because they have been added up. A damaged stats file counts nothing and is one of the `problems`.
    Raises StorageError if the store cannot be read.
    """
    return crawl_funnel_and_settings(store, crawl, published, counted)[0]


def crawl_funnel_and_settings(
    store: Store,
    crawl: str,
    published: StageStats | None = None,
    counted: Mapping[str, CountedStage] | None = None,
) -> tuple[CrawlFunnel, Used]:
    """Return the funnel, see `crawl_funnel`, and the settings that the units of all stages were made with."""
    known = dict(counted or {})
    found = {
        stage: known[stage].problems if stage in known else _read(store, crawl, stage, folder, name)
        for stage, folder, name in STATS_FILES
    }
    stats = {stage: [one for one in units if isinstance(one, StageStats)] for stage, units in found.items()}
    damaged = [one for units in found.values() for one in units if isinstance(one, str)]
    published = published or _published(store, crawl)
    stats["publish"] = [published] if published else []
    funnel = _funnel(crawl, stats, {stage: one.row for stage, one in known.items()})
    used = merged_used(
        [
            *(one.settings for one in known.values()),
            *(used_of(one.details) for stage in STAGES[:-1] for one in stats[stage]),
        ]
    )
    return replace(funnel, problems=(*funnel.problems, *damaged)), used


def funnel_from_stats(crawl: str, stats: Mapping[str, Sequence[StageStats]]) -> CrawlFunnel:
    """Build the funnel from the stats of each stage's finished units."""
    return _funnel(crawl, stats, {})


def _funnel(
    crawl: str, stats: Mapping[str, Sequence[StageStats]], known: Mapping[str, FunnelRow]
) -> CrawlFunnel:
    rows = [known[stage] if stage in known else _add_up(stage, stats[stage]) for stage in STAGES]
    return make_funnel(crawl, _records(stats["parse"]), rows)


def make_funnel(
    crawl: str, records: FunnelRow, rows: Sequence[FunnelRow], problems: Iterable[str] = ()
) -> CrawlFunnel:
    """Build the funnel from its rows; `problems` are listed after those of the counts."""
    return CrawlFunnel(crawl, records, tuple(rows), (*_problems(rows), *problems))


def make_row(stage: str, units: int, total: int, kept: int, dropped: Mapping[str, int]) -> FunnelRow:
    """Build a row; `total` is the input of its units."""
    return FunnelRow(stage, units, total, kept, _ordered(dropped))


def _read(
    store: Store, crawl: str, stage: str, folder: str, pattern: re.Pattern[str]
) -> list[StageStats | str]:
    """Return the stats of a stage, and an error message in place of those that cannot be read."""

    def read(name: str) -> StageStats | str:
        try:
            return store.read_stats(name)
        except (DamagedFileError, NewerFormatError) as error:
            return str(error)

    folder = folder.format(crawl=crawl)
    if stage == "plan":  # one file, among those of all batches
        names = [name for name in (plan_stats_name(crawl),) if store.exists(name)]
    else:
        names = [name for name in store.list(folder) if pattern.match(name.removeprefix(f"{folder}/"))]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, names))


def _published(store: Store, crawl: str) -> StageStats | None:
    """Return a crawl's publish stats from the dataset with the most rows of it (research-safe has fewer)."""
    names = [name.split("/") for name in store.list("dataset") if name.endswith(f"/{VERSIONS}")]
    found = [published_stats(parts[1], crawl, store) for parts in names if len(parts) == _VERSIONS_DEPTH]
    return max((stats for stats in found if stats), key=lambda stats: stats.kept, default=None)


def _add_up(stage: str, stats: Sequence[StageStats]) -> FunnelRow:
    dropped: Counter[str] = Counter()
    for unit in stats:
        dropped.update(unit.dropped)
    return make_row(stage, len(stats), sum(s.input for s in stats), sum(s.kept for s in stats), dropped)


def _records(parsed: Sequence[StageStats]) -> FunnelRow:
    counts = [stats.details["records"] for stats in parsed if "records" in stats.details]
    dropped: Counter[str] = Counter()
    for count in counts:
        dropped.update(count["dropped"])
    total, kept = (sum(count[name] for count in counts) for name in ("input", "kept"))
    return make_row("records", len(counts), total, kept, dropped)


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {reason: count for reason, count in ordered if count}


def _problems(rows: Iterable[FunnelRow]) -> Iterable[str]:
    """Yield where a stage's kept differs from the next stage's input; a crawl in progress has some.

    A stage between two others that has no stats (`forget` deletes those of load) is not compared.
    """
    for before, after in pairwise(rows):
        if not (before.started and after.started):
            continue
        gap = before.kept - after.input
        if gap > 0:
            yield f"{gap:,} kept by {before.stage} have not been through {after.stage} yet"
        elif gap < 0:
            yield (
                f"{after.stage} has {-gap:,} more than {before.stage} kept; "
                f"{before.stage} is unfinished or files of an earlier run are left"
            )


def _table(funnel: CrawlFunnel) -> Table:
    table = Table(title=f"Funnel of {funnel.crawl}", caption="\n".join(funnel.problems) or None)
    table.add_column("stage")
    for heading in ("units", "in", "kept", "share"):
        table.add_column(heading, justify="right")
    table.add_column("dropped", overflow="fold")
    for row in funnel.all_rows:
        if row.started:
            counts = (f"{row.units:,}", f"{row.input:,}", f"{row.kept:,}", _share(row.kept, row.input))
            table.add_row(row.stage, *counts, _reasons(row.dropped))
        else:
            table.add_row(row.stage, "-", "-", "-", "-", "", style="dim")
    return table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _reasons(dropped: dict[str, int]) -> str:
    shown = [f"{reason} {count:,}" for reason, count in list(dropped.items())[:_REASONS_SHOWN]]
    rest = list(dropped.values())[_REASONS_SHOWN:]
    return ", ".join([*shown, f"{len(rest)} more {sum(rest):,}"] if rest else shown)

"""The counters of a crawl at work, from a bounded number of rows and files.

Postgres has those of load, plan and download, and of parse for loaded partitions (sql/010_progress.sql); the
store has a file per parsed partition, a record per group of the score stage, and the stats of what is
published. Nothing is read per batch. `crawl_funnel` (dataset/funnel_report.py) gives the same from the stats
files of all units, which takes a request for each.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from laion_etl.core.errors import DamagedFileError
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.dataset.funnel_report import CrawlFunnel, FunnelRow, make_funnel, make_row
from laion_etl.dataset.partition_stats import PartitionStats
from laion_etl.dataset.published import PublishedDatasets
from laion_etl.dataset.score_progress import ScoreProgress, read_score_progress
from laion_etl.io.storage import Store


@dataclass(frozen=True, slots=True)
class PartitionCounters:
    """A partition in Postgres. `planning`: it is in a round of planning that is not done; `parsed`: the
    counters of its parse, None if an earlier version loaded it."""

    number: int
    loading: bool  # or its load was interrupted
    planned: bool
    planning: bool
    pairs_in: int
    pairs_kept: int
    dropped: Mapping[str, int]
    parsed: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class DownloadCounters:
    """The batches of a crawl in Postgres; from `pairs_done` on, of those that are downloaded, from `samples`
    on of those that are scored."""

    batches: int
    pairs: int
    done: int
    pairs_done: int
    images: int
    bytes: int
    held_ms: int
    dropped: Mapping[str, int]
    scored: int
    samples: int
    samples_kept: int
    score_ms: int
    score_dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DatabaseCounters:
    """What Postgres has of a crawl."""

    partitions: tuple[PartitionCounters, ...]
    downloads: DownloadCounters

    @property
    def parsed(self) -> dict[int, Mapping[str, Any]]:
        """The counters of parse by partition, of those that are loaded."""
        return {one.number: one.parsed for one in self.partitions if one.parsed and not one.loading}


@dataclass(frozen=True, slots=True)
class StoreCounters:
    """What the store has of a crawl. `parsed`: numbers of parsed partitions; `parse_stats`: of those that
    Postgres has no counters of; `load_stats`: only read if Postgres is unavailable."""

    parsed: list[int]
    parse_stats: Mapping[int, StageStats]
    load_stats: Mapping[int, StageStats]
    score: ScoreProgress
    published: StageStats | None
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class ProgressReader:
    """Reads the counters of one crawl again and again; what has not changed is not read twice. For one
    thread."""

    crawl: str
    published: PublishedDatasets = field(default_factory=PublishedDatasets)
    parse: PartitionStats = field(init=False)
    _load: PartitionStats = field(init=False)

    def __post_init__(self) -> None:
        self.parse, self._load = PartitionStats(f"pairs/{self.crawl}"), PartitionStats(f"load/{self.crawl}")

    def database(self, database: Database) -> DatabaseCounters:
        """Read the counters in Postgres. Raises DatabaseError."""
        keys = {"crawl": self.crawl}
        (downloads,) = database.rows("status.downloads", keys)
        partitions = database.rows("status.partitions", keys)
        return DatabaseCounters(
            tuple(PartitionCounters(*row) for row in partitions), DownloadCounters(*downloads)
        )

    def store(self, store: Store, known: DatabaseCounters | None) -> StoreCounters:
        """Read the counters in the store; without those of Postgres, also those of load. Raises
        StorageError."""
        parsed, parse_stats = self.parse.numbers_and_stats(store, known.parsed if known else ())
        load_stats = self._load.numbers_and_stats(store)[1] if known is None else {}
        problems = [*self.parse.broken, *self._load.broken]
        try:
            score = read_score_progress(self.crawl, store)
        except DamagedFileError as error:
            score = ScoreProgress(damaged=(str(error),))
        try:
            published = self.published.stats(self.crawl, store)
        except DamagedFileError as error:
            published = None
            problems.append(str(error))
        return StoreCounters(parsed, parse_stats, load_stats, score, published, (*problems, *score.damaged))


def progress_funnel(crawl: str, known: DatabaseCounters | None, stored: StoreCounters | None) -> CrawlFunnel:
    """Build the funnel; a stage whose source is None has no units."""
    parse = _parse_counters(known, stored)
    rows = (
        make_row("parse", len(parse), *_summed((p["input"], p["kept"], p["dropped"]) for p in parse)),
        *_load_and_plan(known, stored),
        _download(known),
        _score(known, stored),
        _published(stored),
    )
    records = [one["records"] for one in parse if one.get("records")]
    summed = _summed((count["input"], count["kept"], count["dropped"]) for count in records)
    problems = stored.problems if stored else ()
    return make_funnel(crawl, make_row("records", len(records), *summed), rows, problems)


def _parse_counters(known: DatabaseCounters | None, stored: StoreCounters | None) -> list[Mapping[str, Any]]:
    in_postgres = known.parsed if known else {}
    if stored is None:
        return list(in_postgres.values())
    read = {
        number: {"input": s.input, "kept": s.kept, "dropped": s.dropped, "records": s.details.get("records")}
        for number, s in stored.parse_stats.items()
    }
    found = {**in_postgres, **read}
    return [found[number] for number in stored.parsed if number in found]


def _load_and_plan(known: DatabaseCounters | None, stored: StoreCounters | None) -> Iterable[FunnelRow]:
    if known is None:
        stats = stored.load_stats.values() if stored else ()
        counts = _summed((one.input, one.kept, one.dropped) for one in stats)
        return make_row("load", len(stats), *counts), make_row("plan", 0, 0, 0, {})
    loaded = [one for one in known.partitions if not one.loading]
    counts = _summed((one.pairs_in, one.pairs_kept, one.dropped) for one in loaded)
    planned = [one.pairs_kept for one in loaded if one.planned]
    in_batches = known.downloads.pairs
    # While a round of planning is open, only the pairs of its windows that are done have been through.
    is_open = any(one.planning for one in loaded)
    units = 1 if planned or in_batches else 0
    plan = make_row("plan", units, in_batches if is_open else sum(planned), in_batches, {})
    return make_row("load", len(loaded), *counts), plan


def _download(known: DatabaseCounters | None) -> FunnelRow:
    if known is None:
        return make_row("download", 0, 0, 0, {})
    found = known.downloads
    tried = found.images + sum(found.dropped.values())
    return make_row("download", found.done, tried, found.images, found.dropped)


def _score(known: DatabaseCounters | None, stored: StoreCounters | None) -> FunnelRow:
    """Of the queue, or of the groups' records where shards were scored without it.

    Records of more batches than are downloaded are of a plan that was forgotten since.
    """
    score = stored.score if stored else ScoreProgress()
    found = known.downloads if known else None
    if found and (found.scored >= score.units or (found.batches and found.done < score.units)):
        return make_row("score", found.scored, found.samples, found.samples_kept, found.score_dropped)
    return make_row("score", score.units, score.input, score.kept, score.dropped)


def _published(stored: StoreCounters | None) -> FunnelRow:
    stats = stored.published if stored else None
    return make_row("publish", *((1, stats.input, stats.kept, stats.dropped) if stats else (0, 0, 0, {})))


def _summed(counts: Iterable[tuple[int, int, Mapping[str, int]]]) -> tuple[int, int, Counter[str]]:
    """Add up input, kept and what was dropped by reason."""
    total, kept = 0, 0
    dropped: Counter[str] = Counter()
    for one_total, one_kept, one_dropped in counts:
        total, kept = total + one_total, kept + one_kept
        dropped.update(one_dropped)
    return total, kept, dropped

"""Estimates the output and cost of a crawl, or some of its WAT files, from what the store already has.

The estimate is proportional: run a few WAT files all the way to scored shards, and scale to the number of
files. The share of duplicates grows with the number of known pairs, so a whole crawl gives somewhat less.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from laion_etl.core.errors import DamagedFileError, InputError, NewerFormatError
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Store
from laion_etl.settings import KubernetesSettings, of_stage

_log = logging.getLogger(__name__)
_CRAWL = re.compile(r"(?:pairs|load|shards|scored)/([^/]+)/")
# CPU seconds of a WAT record with languages, and of an image scored by ViT-B/32 (benchmarks/RESULTS.md).
_PARSE_S = 170e-6
_SCORE_S = 0.19


@dataclass(frozen=True, slots=True)
class CrawlTotals:
    """Totals of a crawl over all units in the store; bytes are those of data files."""

    crawl: str
    wat_files: int
    records: int
    pairs: int
    new_pairs: int
    links: int
    fetched_bytes: int
    download_s: float
    images: int
    shard_bytes: int
    scored: int
    kept: int
    scored_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected totals of a number of WAT files; hours are those of one process (download: one worker)."""

    crawl: str
    wat_files: int
    by_wat_files: int
    by_crawl: str
    pairs: int
    links: int
    images: int
    samples: int
    fetched_bytes: int
    stored_bytes: int
    parse_hours: float
    download_hours: float
    score_hours: float

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def read_totals(crawl: str, store: Store) -> CrawlTotals:
    """Sum up a crawl in the store. Raises InputError if any of the stages has no output."""
    parsed, loaded = (list(_stats(f"{folder}/{crawl}", store)) for folder in ("pairs", "load"))
    shards, scored = (list(_stats(f"{folder}/{crawl}", store)) for folder in ("shards", "scored"))
    if not (parsed and loaded and shards and scored):
        raise InputError(
            f"cannot estimate from {crawl}: no WAT file of it has reached a scored shard; score some first"
        )
    networks = [stats.details.get("network", {}) for stats in shards]
    return CrawlTotals(
        crawl,
        wat_files=sum(int(stats.details["wat_files"]) for stats in parsed),
        records=sum(int(stats.details["records"]["input"]) for stats in parsed),
        pairs=sum(stats.kept for stats in parsed),
        new_pairs=sum(stats.kept for stats in loaded),
        links=sum(stats.input for stats in shards),
        fetched_bytes=sum(int(network.get("bytes", 0)) for network in networks),
        download_s=sum(float(network.get("seconds", 0)) for network in networks),
        images=sum(stats.kept for stats in shards),
        shard_bytes=_bytes(shards),
        scored=sum(stats.input for stats in scored),
        kept=sum(stats.kept for stats in scored),
        scored_bytes=_bytes(scored),
    )


def estimate(crawl: str, wat_files: int, store: Store) -> Estimate:
    """Estimate a number of WAT files of a crawl from its own results in the store, or from another crawl's.

    Raises InputError if the store has no results to start from.
    """
    for known in _known(crawl, store):
        try:
            return _scaled(crawl, wat_files, read_totals(known, store))
        except InputError:
            continue
    raise InputError(
        f"cannot estimate {crawl}: the store has no scored crawl; run two WAT files first (--wat-files 0:2, "
        "in Airflow the parameter wat_files)"
    )


def in_pods(found: Estimate, kubernetes: KubernetesSettings) -> dict[str, float]:
    """Return pod hours for the configured pod sizes, and their cost if prices are configured.

    A pod parses, or scores, in as many processes as it has cores. Scoring is estimated at CPU speed; GPUs
    take less time.
    """
    cores = {stage: _cores(of_stage(kubernetes.cpu, stage)) for stage in ("parse", "score")}
    score_hours = found.score_hours / cores["score"]
    hours = found.parse_hours / cores["parse"] + found.download_hours
    score_price = kubernetes.gpu_price_hour if kubernetes.gpus else kubernetes.price_hour
    cost = hours * kubernetes.price_hour + score_hours * score_price
    shown = {"pod_hours": round(hours + score_hours, 3)}
    return shown | ({"cost": round(cost, 2)} if cost else {})


def _cores(quantity: str) -> float:
    """Parse Kubernetes' notation of cores: 2, 0.5, 500m."""
    cores = float(quantity.removesuffix("m") or 1) / (1_000 if quantity.endswith("m") else 1)
    return max(cores, 0.001)


def _scaled(crawl: str, wat_files: int, totals: CrawlTotals) -> Estimate:
    factor = wat_files / totals.wat_files
    links = factor * totals.new_pairs
    fetched = links / max(1, totals.links)  # of what was planned, only a part may have been fetched so far
    images = fetched * totals.images
    judged = images / max(1, totals.scored)
    return Estimate(
        crawl=crawl,
        wat_files=wat_files,
        by_wat_files=totals.wat_files,
        by_crawl=totals.crawl,
        pairs=round(factor * totals.pairs),
        links=round(links),
        images=round(images),
        samples=round(judged * totals.kept),
        fetched_bytes=round(fetched * totals.fetched_bytes),
        stored_bytes=round(fetched * totals.shard_bytes + judged * totals.scored_bytes),
        parse_hours=round(factor * totals.records * _PARSE_S / 3_600, 3),
        download_hours=round(fetched * totals.download_s / 3_600, 3),
        score_hours=round(images * _SCORE_S / 3_600, 3),
    )


def _known(crawl: str, store: Store) -> list[str]:
    """Return crawls with scored shards: this one first, then the others, latest first."""
    names = {match[1] for name in store.list("scored") if (match := _CRAWL.match(name))}
    return sorted(names, key=lambda name: (name == crawl, name), reverse=True)


def _stats(folder: str, store: Store) -> Iterator[StageStats]:
    for name in store.list(folder):
        if name.endswith(".json"):
            try:
                yield store.read_stats(name)
            except (DamagedFileError, NewerFormatError) as error:
                _log.warning("the estimate leaves out a unit: %s", error)


def _bytes(units: list[StageStats]) -> int:
    return sum(output.bytes for stats in units for output in stats.outputs)

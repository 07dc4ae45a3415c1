"""Estimates the output and cost of a crawl, or some of its WAT files, from what the store already has.

The estimate is proportional: run a few WAT files all the way to scored shards, and scale to the number of
files. The share of duplicates grows with the number of known pairs, so a whole crawl gives somewhat less.
What the processes of these files used is in their usage records, and scaled likewise; without records (an
earlier version ran them) hours follow from the constants here.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from laion_etl.core.errors import DamagedFileError, InputError, NewerFormatError
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.usage import Usage
from laion_etl.io.storage import Store
from laion_etl.io.usage_records import UsageReader
from laion_etl.report.bill import Cost, cost_of
from laion_etl.settings import Settings, of_stage

_log = logging.getLogger(__name__)
_CRAWL = re.compile(r"(?:pairs|load|shards|scored)/([^/]+)/")
# CPU seconds of a WAT record with languages, and of an image scored by ViT-B/32 (benchmarks/RESULTS.md).
_PARSE_S = 170e-6
_SCORE_S = 0.19
_PRICED = ("parse", "download", "score")  # load, plan and publish take a hundredth of their hours


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
    usage: Mapping[str, Usage] = field(default_factory=dict)  # by stage, of all its processes


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected totals of a number of WAT files.

    Hours are those of one core that parses or scores, of one download worker, and of one GPU; `usage`: by
    stage, where it was recorded.
    """

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
    kept_bytes: int
    parse_hours: float
    download_hours: float
    score_hours: float
    gpu_hours: float = 0.0
    usage: Mapping[str, Usage] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "usage"}


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
        usage=_usage(crawl, store),
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


def estimated_costs(found: Estimate, settings: Settings) -> dict[str, Any]:
    """Return pod hours and US dollars, for pods of the configured sizes at the configured prices.

    A pod parses, or scores, in as many processes as it has cores. `cost` is what the run costs, with a NAT
    gateway and requests; storing its files, and taking the scored samples out of the cloud once, come on top.
    """
    prices, cores = settings.prices, {stage: _cores(settings, stage) for stage in _PRICED}
    pod_s = {
        "parse": found.parse_hours * 3_600 / cores["parse"],
        "download": found.download_hours * 3_600,
        "score": found.score_hours * 3_600 / cores["score"],
    }
    gpus = settings.kubernetes.gpus
    if found.gpu_hours:
        pod_s["score"] = found.gpu_hours * 3_600 / max(1, gpus)
    gpu_s = found.gpu_hours * 3_600 or pod_s["score"] * gpus  # without GPUs the sample took longer
    web = {"download": found.fetched_bytes}
    costs = {}
    for stage in _PRICED:
        recorded = found.usage.get(stage, Usage(web_bytes=web.get(stage, 0)))
        of_gpus = gpu_s if stage == "score" else 0.0
        used = replace(recorded, pod_s=pod_s[stage], core_s=pod_s[stage] * cores[stage], gpu_s=of_gpus)
        costs[stage] = cost_of(used, settings)
    total = sum(costs.values(), Cost())
    return {
        "pod_hours": round(sum(pod_s.values()) / 3_600, 3),
        **{f"cost_{stage}": round(cost.total, 2) for stage, cost in costs.items()},
        "cost": round(total.total, 2),
        "cost_nat_gateway": round(total.nat, 2),
        "cost_requests": round(total.requests, 2),
        "more_for_storage_a_month": round(found.stored_bytes / 1e9 * prices.store_gb_month, 2),
        "more_for_egress_once": round(found.kept_bytes / 1e9 * prices.egress_gb, 2),
    }


def _cores(settings: Settings, stage: str) -> float:
    """Parse Kubernetes' notation of cores: 2, 0.5, 500m."""
    quantity = of_stage(settings.kubernetes.cpu, stage)
    cores = float(quantity.removesuffix("m") or 1) / (1_000 if quantity.endswith("m") else 1)
    return max(cores, 0.001)


def _scaled(crawl: str, wat_files: int, totals: CrawlTotals) -> Estimate:
    factor = wat_files / totals.wat_files
    links = factor * totals.new_pairs
    fetched = links / max(1, totals.links)  # of what was planned, only a part may have been fetched so far
    images = fetched * totals.images
    judged = images / max(1, totals.scored)
    by_stage = {"parse": factor, "load": factor, "plan": factor, "download": fetched, "score": judged}
    usage = {stage: totals.usage[stage].scaled(by) for stage, by in by_stage.items() if stage in totals.usage}
    parse, score = (usage.get(stage, Usage()) for stage in ("parse", "score"))
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
        kept_bytes=round(judged * totals.scored_bytes),
        parse_hours=round((parse.cpu_s or factor * totals.records * _PARSE_S) / 3_600, 3),
        download_hours=round(fetched * totals.download_s / 3_600, 3),
        score_hours=round((score.cpu_s or images * _SCORE_S) / 3_600, 3),
        gpu_hours=round(score.gpu_s / 3_600, 3),
        usage=usage,
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


def _usage(crawl: str, store: Store) -> dict[str, Usage]:
    totals: dict[str, Usage] = {}
    for record in UsageReader(crawl).records(store):
        totals[record.stage] = totals.get(record.stage, Usage()) + record.usage
    return totals


def _bytes(units: list[StageStats]) -> int:
    return sum(output.bytes for stats in units for output in stats.outputs)

"""What a batch or crawl lost in download, by cause and host, and what would win back links.

Counts by reason are those of Postgres (a crawl: a few rows for each thousand batches) or of the batch's
stats. What they do not say, hosts and the messages of links, is read from the shards' parquet: of a crawl
from at most 16 batches, spread over it. Each batch has links of all hosts (a plan deals them by a hash), so a
sample of batches is one of links. Refused: counting hosts in the stats of each batch, which would make
Postgres add up millions of names, most of them seen once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.schemas import shard_stem
from laion_etl.database.connection import Database
from laion_etl.download.loss_causes import LossCause, cause_of, unused_proxy
from laion_etl.download.timings import slow_lookups
from laion_etl.io.storage import Store
from laion_etl.report.link_sample import HostLoss, LinkSample, Part, links_of, read_sample

_SAMPLED_BATCHES = 16
_FEWEST_PARTS = 4  # of which one can be unusual
_UNUSUAL_SHARE = 0.5  # of the usual share of links that are kept
_UNUSUAL_PARTS = 8
_ORDER = {status.value: place for place, status in enumerate(DownloadStatus)}  # as a link meets them


@dataclass(frozen=True, slots=True)
class CauseLoss:
    """Links lost for one cause. `would_win`: how many would give images with its remedy, judging by the links
    that got further; None if there is no remedy, or if no link got further."""

    cause: LossCause
    links: int
    would_win: int | None


@dataclass(frozen=True, slots=True)
class UnusualPart:
    """A part that kept far fewer links than most, and the cause that has grown most there."""

    part: Part
    cause: LossCause
    links: int


@dataclass(frozen=True, slots=True)
class LinkLosses:
    """The losses of a batch, or of a crawl so far; `batch` is None for a crawl."""

    crawl: str
    batch: int | None
    batches: int
    kept: int
    dropped: Mapping[str, int]
    causes: tuple[CauseLoss, ...]
    hosts: tuple[HostLoss, ...]
    sampled_batches: int
    sampled_links: int
    unusual: tuple[UnusualPart, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def links(self) -> int:
        return self.kept + sum(self.dropped.values())

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "crawl": self.crawl,
            "batch": self.batch,
            "batches": self.batches,
            "links": self.links,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "causes": [
                {
                    "cause": one.cause.name,
                    "links": one.links,
                    "sentence": one.cause.sentence,
                    "remedy": one.cause.remedy,
                    "would_win": one.would_win,
                    "is_sure": one.cause.is_sure,
                }
                for one in self.causes
            ],
            "sampled_batches": self.sampled_batches,
            "sampled_links": self.sampled_links,
            "hosts": [
                asdict(one) | {"causes": {cause.name: count for cause, count in one.causes}}
                for one in self.hosts
            ],
            "unusual": [
                {
                    "first": one.part.first,
                    "last": one.part.last,
                    "links": one.part.links,
                    "kept": one.part.kept,
                    "cause": one.cause.name,
                    "cause_links": one.links,
                }
                for one in self.unusual
            ],
            "notes": list(self.notes),
        }


def batch_losses(crawl: str, batch: int, store: Store) -> LinkLosses:
    """Return the losses of a batch. Raises InputError if it is not downloaded or its files are damaged."""
    stem = shard_stem(crawl, batch)
    try:
        stats = store.read_stats(f"{stem}_stats.json")
        sample = LinkSample()
        sample.add(batch, links_of(batch, crawl, store))
    except MissingFileError as error:
        raise InputError(
            f"cannot diagnose batch {batch} of {crawl}: {store.uri(stem)} has no stats or parquet; run "
            f"`laion-etl stage download --crawl {crawl} --batch {batch}`"
        ) from error
    except DamagedFileError as error:
        raise InputError(
            f"cannot diagnose batch {batch} of {crawl}: {error}; run "
            f"`laion-etl stage download --crawl {crawl} --batch {batch}`"
        ) from error
    latencies = stats.details.get("network", {}).get("latency_s", {})
    found = _losses(crawl, stats.kept, stats.dropped, 1, sample)
    return replace(found, batch=batch, notes=(*found.notes, *slow_lookups(latencies)))


def crawl_losses(crawl: str, store: Store, database: Database) -> LinkLosses:
    """Return the losses of the downloaded batches of a crawl. Raises InputError if there are none."""
    rows = database.rows("diagnose.thousands", {"crawl": crawl})
    parts = [Part(row[0] * 1_000, row[0] * 1_000 + 999, row[2], row[3]) for row in rows]
    if not parts:
        raise InputError(
            f"cannot diagnose {crawl}: it has no downloaded batch; run "
            f"`laion-etl stage download --crawl {crawl}` first"
        )
    chosen = _spread([row[0] for row in rows], _SAMPLED_BATCHES)
    keys = {"crawl": crawl, "thousands": chosen, "rows": -(-_SAMPLED_BATCHES // len(chosen))}
    downloaded = [row[0] for row in database.rows("diagnose.downloaded", keys)]
    batches = _spread(downloaded, _SAMPLED_BATCHES)  # as many of each thousand may be more in all
    sample = read_sample(batches, crawl, store)
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update(part.dropped)
    counted = _losses(crawl, sum(part.kept for part in parts), dropped, sum(row[1] for row in rows), sample)
    missing = len(batches) - len(sample.parts)
    notes = (f"{missing} shards of the sample could not be read and were left out",) if missing else ()
    of = parts if len(parts) >= _FEWEST_PARTS else sample.parts
    return replace(counted, unusual=tuple(_unusual(of, counted)), notes=counted.notes + notes)


def _losses(
    crawl: str, kept: int, dropped: Mapping[str, int], batches: int, sample: LinkSample
) -> LinkLosses:
    causes: Counter[LossCause] = Counter()
    wins: dict[LossCause, float | None] = {}
    for status, count in dropped.items():
        chance = _chance(status, kept, dropped)
        for cause, links in _divided(status, count, sample).items():
            causes[cause] += links
            if cause.remedy and chance is not None:
                wins[cause] = (wins.get(cause) or 0.0) + links * chance
    found = (
        CauseLoss(cause, links, round(win) if (win := wins.get(cause)) is not None else None)
        for cause, links in causes.most_common()
    )
    return LinkLosses(
        crawl,
        None,
        batches,
        kept,
        dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
        tuple(found),
        sample.worst_hosts(),
        len(sample.parts),
        sample.links,
        notes=(proxy,) if (proxy := unused_proxy(kept, dropped)) else (),
    )


def _chance(status: str, kept: int, dropped: Mapping[str, int]) -> float | None:
    """Return the share of images among the links that got further than this status; None if none did."""
    place = _ORDER.get(status, 0)
    later = sum(count for other, count in dropped.items() if _ORDER.get(other, 0) > place)
    return kept / (kept + later) if kept + later else None


def _divided(status: str, count: int, sample: LinkSample) -> Mapping[LossCause, int]:
    """Divide the links of a status among its causes as those of the sample."""
    seen = {cause: number for (other, cause), number in sample.causes.items() if other == status}
    if not seen:
        return {cause_of(status): count}
    total, left, found = sum(seen.values()), count, {}
    for cause, number in sorted(seen.items(), key=lambda item: item[1]):
        found[cause] = min(left, round(count * number / total))
        left -= found[cause]
    found[cause] += left  # of the most frequent one: the sum is right
    return found


def _unusual(parts: Sequence[Part], whole: LinkLosses) -> Iterator[UnusualPart]:
    if len(parts) < _FEWEST_PARTS:
        return
    usual = median(part.share for part in parts)
    odd = [part for part in parts if part.share < _UNUSUAL_SHARE * usual]
    for part in sorted(odd, key=lambda part: part.share)[:_UNUSUAL_PARTS]:
        growth = {
            status: count / part.links - whole.dropped.get(status, 0) / whole.links
            for status, count in part.dropped.items()
        }
        status = max(growth, key=lambda name: (growth[name], name))
        yield UnusualPart(part, cause_of(status), part.dropped[status])


def _spread(values: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the values, evenly spread."""
    if len(values) <= count:
        return list(values)
    return [values[place * len(values) // count] for place in range(count)]

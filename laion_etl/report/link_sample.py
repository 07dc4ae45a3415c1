"""The links of some batches, read from their shards' parquet: what became of them, by cause and host."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pyarrow as pa

from laion_etl.core.errors import DamagedFileError, MissingFileError
from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.ids import MAX_BATCH_PAIRS
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import shard_stem
from laion_etl.download.loss_causes import LossCause, cause_of
from laion_etl.io.storage import Store

_READERS = 4
_HOSTS = 12
_COLUMNS = ["url", "status", "error_message"]
_KEPT = DownloadStatus.SUCCESS.value


@dataclass(frozen=True, slots=True)
class HostLoss:
    """What the sample has of a host: its links, those kept, and the causes of the others, most frequent
    first."""

    host: str
    links: int
    kept: int
    causes: tuple[tuple[LossCause, int], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A thousand batches, or a single one: what became of its links."""

    first: int
    last: int
    kept: int
    dropped: Mapping[str, int]

    @property
    def links(self) -> int:
        return self.kept + sum(self.dropped.values())

    @property
    def share(self) -> float:
        return self.kept / self.links if self.links else 0.0


@dataclass(slots=True)
class LinkSample:
    """Links of some batches."""

    parts: list[Part] = field(default_factory=list)
    causes: Counter[tuple[str, LossCause]] = field(default_factory=Counter)  # by status
    hosts: Counter[tuple[str, LossCause | None]] = field(default_factory=Counter)  # None: kept

    def add(self, batch: int, links: pa.Table) -> None:
        counts: Counter[str] = Counter()
        for url, status, message in zip(*(links[name].to_pylist() for name in _COLUMNS), strict=True):
            counts[status] += 1
            cause = None if status == _KEPT else cause_of(status, message or "")
            self.hosts[_host(url), cause] += 1
            if cause is not None:
                self.causes[status, cause] += 1
        kept = counts.pop(_KEPT, 0)
        self.parts.append(Part(batch, batch, kept, counts))

    @property
    def links(self) -> int:
        return sum(part.links for part in self.parts)

    def worst_hosts(self) -> tuple[HostLoss, ...]:
        """Return the hosts that lost the most links."""
        lost: Counter[str] = Counter()
        for (host, cause), count in self.hosts.items():
            if cause is not None:
                lost[host] += count
        worst = sorted(lost, key=lambda host: (-lost[host], host))[:_HOSTS]
        found: dict[str, Counter[LossCause]] = {host: Counter() for host in worst}
        for (host, cause), count in self.hosts.items():
            if cause is not None and host in found:
                found[host][cause] += count
        return tuple(self._host_loss(host, found[host]) for host in worst)

    def _host_loss(self, host: str, causes: Counter[LossCause]) -> HostLoss:
        kept = self.hosts[host, None]
        return HostLoss(host, kept + causes.total(), kept, tuple(causes.most_common()))


def read_sample(batches: Iterable[int], crawl: str, store: Store) -> LinkSample:
    """Read the links of batches; those whose parquet is missing or damaged are left out."""

    def links(batch: int) -> pa.Table | None:
        try:
            return links_of(batch, crawl, store)
        except (MissingFileError, DamagedFileError):
            return None

    sample = LinkSample()
    chosen = list(batches)
    with ThreadPoolExecutor(_READERS) as pool:
        for batch, table in zip(chosen, pool.map(links, chosen), strict=True):
            if table is not None:
                sample.add(batch, table)
    return sample


def links_of(batch: int, crawl: str, store: Store) -> pa.Table:
    """Return URL, status and message of each link of a batch. Raises MissingFileError, DamagedFileError."""
    name = f"{shard_stem(crawl, batch)}.parquet"
    data = store.read(name)
    try:
        return BoundedParquet(io.BytesIO(data)).read(_COLUMNS, MAX_BATCH_PAIRS)
    except (pa.ArrowException, OSError) as error:  # OSError: a page that cannot be decoded
        cause = " ".join(str(error).split())  # on one line
        raise DamagedFileError(f"cannot read {store.uri(name)}: it is damaged ({cause})") from error


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""

"""Metrics of a running worker, written to a Prometheus text file or sent to a StatsD server."""

import time
from collections import Counter

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Histogram
from statsd.client.udp import Pipeline

from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.metrics import (
    DOWNLOAD_BYTES,
    DOWNLOAD_IN_FLIGHT,
    DOWNLOAD_LINKS,
    DOWNLOAD_SECONDS,
)
from laion_etl.io.statsd import Statsd

_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_FLUSH_S = 5.0

# Otherwise each counter has a series with the time at which it was made: nothing reads them here.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """Counters of one worker since it started. `flush` writes them at most every five seconds."""

    def __init__(self, file: str = "", statsd: str = "") -> None:
        self.in_flight = 0
        registry = self._registry = CollectorRegistry()
        self._links = prometheus_client.Counter(
            DOWNLOAD_LINKS.prometheus, DOWNLOAD_LINKS.meaning, DOWNLOAD_LINKS.labels, registry=registry
        )
        self._bytes = prometheus_client.Counter(
            DOWNLOAD_BYTES.prometheus, DOWNLOAD_BYTES.meaning, registry=registry
        )
        self._running = Gauge(DOWNLOAD_IN_FLIGHT.prometheus, DOWNLOAD_IN_FLIGHT.meaning, registry=registry)
        self._seconds = Histogram(
            DOWNLOAD_SECONDS.prometheus, DOWNLOAD_SECONDS.meaning, buckets=_BUCKETS_S, registry=registry
        )
        self._file = file
        self._statsd = Statsd(statsd) if statsd else None
        self._counted: Counter[str] = Counter()  # the same for StatsD, which wants what was added
        self._sent: Counter[str] = Counter()
        self._flushed = -_FLUSH_S

    def kept(self, size: int, seconds: float) -> None:
        self._count(DownloadStatus.SUCCESS)
        self._bytes.inc(size)
        self._counted[DOWNLOAD_BYTES.statsd] += size
        self._seconds.observe(seconds)

    def dropped(self, status: DownloadStatus) -> None:
        self._count(status)

    def flush(self, *, now: bool = False) -> None:
        """Replaces the file, and sends what was added since the last flush."""
        if not now and time.monotonic() - self._flushed < _FLUSH_S:
            return
        self._flushed = time.monotonic()
        if self._file:
            self._running.set(self.in_flight)
            prometheus_client.write_to_textfile(self._file, self._registry)
        if self._statsd is not None:
            counted = self._counted.copy()  # the event loop goes on counting
            added, self._sent = counted - self._sent, counted
            self._statsd.send(lambda pipeline: self._report(pipeline, added))

    def _count(self, status: DownloadStatus) -> None:
        self._links.labels(status.value).inc()
        self._counted[DOWNLOAD_LINKS.statsd.format(status=status.value)] += 1

    def _report(self, pipeline: Pipeline, added: Counter[str]) -> None:
        for name, count in sorted(added.items()):
            pipeline.incr(name, count)
        pipeline.gauge(DOWNLOAD_IN_FLIGHT.statsd, self.in_flight)

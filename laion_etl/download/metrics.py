"""Metrics of a running worker, written to a Prometheus text file or sent to a StatsD server."""

import bisect
import os
import time
from collections import Counter
from pathlib import Path

from laion_etl.core.funnel import DownloadStatus
from laion_etl.io.statsd import Statsd

_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_FLUSH_S = 5.0
_PREFIX = "laion_etl_download"


class Metrics:
    """Counters of one worker since it started. `flush` writes them at most every five seconds."""

    def __init__(self, file: str = "", statsd: str = "") -> None:
        self.in_flight = 0
        self._links: Counter[str] = Counter()
        self._bytes = 0
        self._buckets = [0] * (len(_BUCKETS_S) + 1)
        self._seconds = 0.0
        self._file = Path(file) if file else None
        self._statsd = Statsd(statsd) if statsd else None
        self._sent: Counter[str] = Counter()
        self._flushed = -_FLUSH_S

    def kept(self, size: int, seconds: float) -> None:
        self._links[DownloadStatus.SUCCESS.value] += 1
        self._bytes += size
        self._seconds += seconds
        self._buckets[bisect.bisect_left(_BUCKETS_S, seconds)] += 1

    def dropped(self, status: DownloadStatus) -> None:
        self._links[status.value] += 1

    def flush(self, *, now: bool = False) -> None:
        """Replaces the file, and sends what was added since the last flush."""
        if not now and time.monotonic() - self._flushed < _FLUSH_S:
            return
        self._flushed = time.monotonic()
        if self._file is not None:
            partial = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            partial.write_text(self.prometheus())
            partial.replace(self._file)
        if self._statsd is not None:
            self._statsd.send(self._added())

    def prometheus(self) -> str:
        """Returns all metrics in the Prometheus text format, version 0.0.4."""
        lines = [f"# HELP {_PREFIX}_links_total Links by outcome.", f"# TYPE {_PREFIX}_links_total counter"]
        lines += [f'{_PREFIX}_links_total{{status="{name}"}} {n}' for name, n in sorted(self._links.items())]
        lines += [
            f"# HELP {_PREFIX}_bytes_total Bytes of images kept.",
            f"# TYPE {_PREFIX}_bytes_total counter",
        ]
        lines += [f"{_PREFIX}_bytes_total {self._bytes}"]
        lines += [f"# HELP {_PREFIX}_in_flight Links in flight.", f"# TYPE {_PREFIX}_in_flight gauge"]
        lines += [f"{_PREFIX}_in_flight {self.in_flight}"]
        lines += [f"# HELP {_PREFIX}_seconds Time on the network of images kept, seconds."]
        lines += [f"# TYPE {_PREFIX}_seconds histogram"]
        below = 0
        for edge, count in zip((*map(str, _BUCKETS_S), "+Inf"), self._buckets, strict=True):
            below += count
            lines.append(f'{_PREFIX}_seconds_bucket{{le="{edge}"}} {below}')
        lines += [f"{_PREFIX}_seconds_sum {self._seconds:.3f}", f"{_PREFIX}_seconds_count {below}", ""]
        return "\n".join(lines)

    def _added(self) -> list[str]:
        """Returns what was added since the last flush, as lines of StatsD."""
        counters = Counter({f"links.{name}": count for name, count in self._links.items()})
        counters["bytes"] = self._bytes
        added = counters - self._sent
        lines = [f"{_PREFIX}.{name}:{count}|c" for name, count in sorted(added.items())]
        lines.append(f"{_PREFIX}.in_flight:{self.in_flight}|g")
        self._sent = counters
        return lines

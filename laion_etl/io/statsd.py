"""Reports each finished unit of a stage to monitoring: as one log line and to a StatsD server.

A unit (partition, batch, shard, dataset) begins when its stage finds that it is not done yet, and ends when
its stats are written. A unit that was done already is not reported again, so retries count nothing twice.
"""

import json
import logging
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from statsd import StatsClient
from statsd.client.udp import Pipeline

from laion_etl.core.metrics import STAGE_DROPPED, STAGE_DURATION, STAGE_INPUT, STAGE_KEPT, STAGE_UNITS
from laion_etl.core.stage_stats import StageStats
from laion_etl.settings import CoreSettings

_DATAGRAM_BYTES = 1_400  # fits an Ethernet frame with its headers
_OUTSIDE_TAGS = re.compile(r"[^A-Za-z0-9._+-]+")

_log = logging.getLogger("laion_etl.stages")


class Statsd:
    """A StatsD server at `host:port`. When its name cannot be resolved, only metrics are lost.

    The library keeps the address that it resolves when a client is made. Here each pipeline resolves the name
    again, so the server may start later than a worker, or move.
    """

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._address = host.strip("[]"), int(port)
        self._warned = False

    def send(self, report: Callable[[Pipeline], None], tags: str = "") -> None:
        """Send what `report` puts into a pipeline, each metric followed by `tags`."""
        try:
            family, *_ = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            client = StatsClient(*self._address, maxudpsize=_DATAGRAM_BYTES, ipv6=family == socket.AF_INET6)
        except OSError as error:
            if not self._warned:
                _log.warning(
                    "cannot send metrics to %s:%d: %s; check LAION_ETL_STATSD", *self._address, error
                )
            self._warned = True
            return
        with closing(client), _TaggedPipeline(client, tags) as pipeline:
            report(pipeline)


class _TaggedPipeline(Pipeline):  # type: ignore[misc]  # statsd has no types
    """The library's pipeline, which has no tags, with those of DogStatsD's form."""

    def __init__(self, client: StatsClient, tags: str) -> None:
        super().__init__(client)
        self._tags = tags

    def _after(self, data: str) -> None:
        super()._after(f"{data}{self._tags}")


class StageMetrics:
    """Metrics of the units of this process. `clock` returns seconds."""

    def __init__(self, settings: CoreSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._statsd = Statsd(settings.statsd) if settings.statsd else None
        self._tags = settings.statsd_tags
        self._run = settings.run_id
        self._clock = clock
        self._begun: dict[str, float] = {}

    def begun(self, stats_name: str) -> None:
        """Record that work on the unit with these stats begins."""
        self._begun[stats_name] = self._clock()

    def finished(self, stats_name: str, stats: StageStats) -> None:
        """Record that a unit finished. Rewritten stats (a rebuilt report) do not count."""
        began = self._begun.pop(stats_name, None)
        if began is None:
            return
        seconds = self._clock() - began
        _log.info("%s", stage_line(stats, seconds))
        if self._statsd is not None:
            tags = self._tagged({"crawl": stats.crawl, "run": self._run})
            self._statsd.send(lambda pipeline: _report(pipeline, stats, seconds), tags)

    def _tagged(self, values: dict[str, str]) -> str:
        """Returns tags in DogStatsD's form, which statsd-exporter and OpenTelemetry's collector read too."""
        tags = [f"{name}:{_OUTSIDE_TAGS.sub('_', values[name])}" for name in self._tags if values[name]]
        return f"|#{','.join(tags)}" if tags else ""


def stage_line(stats: StageStats, seconds: float) -> str:
    """Returns a finished unit as one line of key=value pairs; for a batch also its network figures."""
    values = {
        "stage": stats.stage,
        "crawl": stats.crawl,
        "unit": stats.unit,
        "seconds": f"{seconds:.3f}",
        "input": stats.input,
        "kept": stats.kept,
        **_network(stats.details.get("network", {})),
        **stats.dropped,
    }
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _network(network: dict[str, Any]) -> dict[str, Any]:
    if not network:
        return {}
    total = network.get("latency_s", {}).get("total", {})
    return {
        "links_per_s": network.get("links_per_s"),
        "bytes": network.get("bytes"),
        "total_p50_s": total.get("p50"),
        "total_p99_s": total.get("p99"),
        "diagnosis": json.dumps("; ".join(network.get("diagnosis", []))),
    }


def _report(pipeline: Pipeline, stats: StageStats, seconds: float) -> None:
    stage = stats.stage
    pipeline.incr(STAGE_UNITS.statsd.format(stage=stage))
    pipeline.incr(STAGE_INPUT.statsd.format(stage=stage), stats.input)
    pipeline.incr(STAGE_KEPT.statsd.format(stage=stage), stats.kept)
    pipeline.timing(STAGE_DURATION.statsd.format(stage=stage), seconds * 1_000)
    for reason, count in stats.dropped.items():
        pipeline.incr(STAGE_DROPPED.statsd.format(stage=stage, reason=reason), count)

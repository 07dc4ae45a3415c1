"""Reports each finished unit of a stage to monitoring: as one log line and to a StatsD server.

A unit (partition, batch, shard, dataset) begins when its stage finds that it is not done yet, and ends when
its stats are written. A unit that was done already is not reported again, so retries count nothing twice.
"""

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from laion_etl.core.stage_stats import StageStats
from laion_etl.settings import CoreSettings

_DATAGRAM_BYTES = 1_400  # fits an Ethernet frame with its headers
_OUTSIDE_TAGS = re.compile(r"[^A-Za-z0-9._+-]+")

_log = logging.getLogger("laion_etl.stages")


class Statsd:
    """A client of a StatsD server; when that cannot be reached, only metrics are lost."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._address = host.strip("[]"), int(port)
        self._warned = False

    def send(self, lines: Iterable[str]) -> None:
        """Sends lines of the protocol, as many as fit in each datagram."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as sender:
                for datagram in _datagrams(lines):
                    sender.sendto(datagram, address)
        except OSError as error:
            if not self._warned:
                _log.warning(
                    "cannot send metrics to %s:%d: %s; check LAION_ETL_STATSD", *self._address, error
                )
            self._warned = True


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
            self._statsd.send(f"{line}{tags}" for line in _numbers(stats, seconds))

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


def _numbers(stats: StageStats, seconds: float) -> Iterator[str]:
    name = f"laion_etl.stage.{stats.stage}"
    yield f"{name}.units:1|c"
    yield f"{name}.input:{stats.input}|c"
    yield f"{name}.kept:{stats.kept}|c"
    yield f"{name}.duration:{seconds * 1_000:.0f}|ms"
    for reason, count in stats.dropped.items():
        yield f"{name}.dropped.{reason}:{count}|c"


def _datagrams(lines: Iterable[str]) -> Iterator[bytes]:
    held = b""
    for line in lines:
        data = line.encode()
        if held and len(held) + 1 + len(data) > _DATAGRAM_BYTES:
            yield held
            held = b""
        held = b"\n".join((held, data)) if held else data
    if held:
        yield held

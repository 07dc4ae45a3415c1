"""What stages report to a StatsD server, over a real socket, and to their log."""

import logging
import re
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from laion_etl.core.metrics import DOWNLOAD_METRICS, STAGE_METRICS, Metric, MetricType
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.statsd import StageMetrics, Statsd
from laion_etl.io.storage import LocalStore
from laion_etl.settings import CoreSettings

DOCKER = Path(__file__).parents[1] / "docker"
SENT = [metric for metric in (*STAGE_METRICS, *DOWNLOAD_METRICS) if metric.statsd]
NAME = "pairs/CC-1/part-00007.json"
STATS = StageStats("parse", "CC-1", "part-00007", "fingerprint", 30, 10, {"no_alt": 15, "tracker": 5})


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(120)
        yield server


def watched(folder: Path, server: socket.socket, tags: tuple[str, ...]) -> LocalStore:
    """A store whose units are reported to the server; each reading of the clock is 1.5 s after the last."""
    store = LocalStore(folder)
    endpoint = f"127.0.0.1:{server.getsockname()[1]}"
    core = CoreSettings(statsd=endpoint, statsd_tags=tags, run_id="manual|1/parse[7]")
    times = count(0.0, 1.5)
    store.watcher = StageMetrics(core, lambda: next(times))
    return store


def received(server: socket.socket) -> list[str]:
    return server.recv(10_000).decode().split("\n")


def test_a_finished_unit_is_reported_once_with_its_counts_and_its_time(
    tmp_path: Path, server: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    store = watched(tmp_path, server, ("crawl", "run"))
    with caplog.at_level(logging.INFO, "laion_etl"):
        assert store.finished(NAME, "fingerprint") is None
        store.write_stats(NAME, STATS)
    tags = "|#crawl:CC-1,run:manual_1_parse_7_"
    assert received(server) == [
        f"laion_etl.stage.parse.units:1|c{tags}",
        f"laion_etl.stage.parse.input:30|c{tags}",
        f"laion_etl.stage.parse.kept:10|c{tags}",
        f"laion_etl.stage.parse.duration:1500.000000|ms{tags}",
        f"laion_etl.stage.parse.dropped.no_alt:15|c{tags}",
        f"laion_etl.stage.parse.dropped.tracker:5|c{tags}",
    ]
    line = "stage=parse crawl=CC-1 unit=part-00007 seconds=1.500 input=30 kept=10 no_alt=15 tracker=5"
    assert caplog.messages == [line]
    assert store.finished(NAME, "fingerprint") == STATS  # a retry that finds it done
    store.write_stats(NAME, STATS)  # rewritten
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(10_000)
    assert caplog.messages == [line]


def test_many_reasons_go_in_datagrams_that_fit_a_frame(tmp_path: Path, server: socket.socket) -> None:
    reasons = {f"a_reason_with_a_long_name_{number:03}": 1 for number in range(100)}
    store = watched(tmp_path, server, ())
    assert store.finished(NAME, "fingerprint") is None
    store.write_stats(NAME, StageStats("parse", "CC-1", "part-00007", "fingerprint", 100, 0, reasons))
    lines: list[str] = []
    while len(lines) < 104:
        datagram = server.recv(10_000)
        assert len(datagram) <= 1_400
        lines += datagram.decode().split("\n")
    assert lines[-1] == "laion_etl.stage.parse.dropped.a_reason_with_a_long_name_099:1|c"


def test_an_unreachable_server_stops_no_stage_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    statsd = Statsd("no-such-host.invalid:8125")
    for _ in range(2):
        statsd.send(lambda pipeline: pipeline.incr("a"))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("cannot send metrics to no-such-host.invalid:8125: ")


def test_every_declared_metric_of_stages_is_sent(tmp_path: Path, server: socket.socket) -> None:
    store = watched(tmp_path, server, ())
    assert store.finished(NAME, "fingerprint") is None
    store.write_stats(NAME, STATS)
    names = {line.partition(":")[0] for line in received(server)}
    declared = {
        one.statsd.format(stage="parse", reason=reason) for one in STAGE_METRICS for reason in STATS.dropped
    }
    assert names == declared


def mappings(name: str) -> list[dict[str, Any]]:
    """The mappings of the StatsD exporter, of the compose file or the Helm values."""
    found = yaml.safe_load((DOCKER / name).read_text())
    return list(found["mappings"] if "mappings" in found else found["statsd"]["extraMappings"])


@pytest.mark.parametrize("file", ["observability/statsd-mapping.yaml", "kubernetes/values.yaml"])
@pytest.mark.parametrize(
    "metric",
    [one for one in (*STAGE_METRICS, *DOWNLOAD_METRICS) if one.statsd],
    ids=lambda one: one.prometheus,
)
def test_the_exporter_gives_a_metric_its_declared_name(metric: Metric, file: str) -> None:
    sent = metric.statsd.format(stage="parse", reason="no_alt", status="timeout")
    name, labels, observer = exported(sent, mappings(file))
    assert name == metric.prometheus
    assert tuple(labels) == metric.labels
    assert (observer == "histogram") == (metric.type is MetricType.TIMER)


def exported(sent: str, rules: list[dict[str, Any]]) -> tuple[str, dict[str, str], str]:
    """What the exporter makes of a name by the first rule that matches; without one, dots are underscores."""
    for rule in rules:
        match = re.fullmatch(re.escape(rule["match"]).replace(r"\*", r"([^.]+)"), sent)
        if match:
            labels = {label: expanded(value, match) for label, value in rule.get("labels", {}).items()}
            return expanded(rule["name"], match), labels, rule.get("observer_type", "")
    return sent.replace(".", "_"), {}, ""


def expanded(template: str, match: re.Match[str]) -> str:
    return re.sub(r"\$\{?(\d)\}?", lambda group: match[int(group[1])], template)

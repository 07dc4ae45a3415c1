"""What stages report to a StatsD server, over a real socket, and to their log."""

import logging
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from laion_etl.core.stage_stats import StageStats
from laion_etl.io.statsd import StageMetrics, Statsd
from laion_etl.io.storage import LocalStore
from laion_etl.settings import CoreSettings

NAME = "pairs/CC-1/part-00007.json"
STATS = StageStats("parse", "CC-1", "part-00007", "fingerprint", 30, 10, {"no_alt": 15, "tracker": 5})


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
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

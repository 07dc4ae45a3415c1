"""Diagnosis, adaptive concurrency and metrics of a batch; opt-outs in images and tdmrep.json."""

import socket
import zlib
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.concurrency import AdaptiveConcurrency, LoadSample
from laion_etl.download.content_opt_out import opted_out_by_metadata, reserved_by_header
from laion_etl.download.deadlines import retry_after_s
from laion_etl.download.metrics import Metrics
from laion_etl.download.path_patterns import parse_path_pattern
from laion_etl.download.tdmrep import is_reserved, parse_tdmrep
from laion_etl.download.timings import BatchTimings, diagnose
from tests.download.hostile import GOOD


def test_a_saturated_resolver_is_diagnosed() -> None:
    assert diagnose(100, {"resolver_failed": 31}, {})[0].startswith(
        "31% of links failed in DNS: the resolver"
    )
    assert diagnose(100, {"resolver_failed": 3, "http_error": 40}, {}) == []
    [slow] = diagnose(100, {}, {"resolve": {"p90": 2.5}})
    assert "one lookup in ten took over 2.5 s" in slow


PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("name", [*PROXIES, *map(str.upper, PROXIES)])
def test_a_proxy_that_is_not_used_is_named_if_nothing_can_be_connected_to(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {"connect_timeout": 60, "dns_failed": 30, "url_invalid": 10}
    assert "proxy" not in "".join(diagnose(100, lost, {}))
    monkeypatch.setenv(name, "http://proxy.example:3128")
    assert [f"do not use the proxy that {name} names" in one for one in diagnose(100, lost, {})][-1]
    for total, dropped in ((101, lost), (100, {"http_error": 60, "dns_failed": 40}), (0, {})):
        assert "proxy" not in "".join(diagnose(total, dropped, {}))
    monkeypatch.setenv(name, "")
    assert "proxy" not in "".join(diagnose(100, lost, {}))


def test_percentiles_are_those_of_the_steps_taken() -> None:
    timings = BatchTimings()
    timings.connect.extend(n / 100 for n in range(101))
    assert timings.latencies([]) == {"connect": {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}}


def test_the_limit_grows_while_it_is_reached_and_shrinks_when_servers_or_cores_are_late() -> None:
    concurrency = AdaptiveConcurrency()
    start = concurrency.limit
    concurrency.update(LoadSample(0.0, full=False, answered=100, timeouts=0))
    assert concurrency.limit == start
    concurrency.update(LoadSample(0.0, full=True, answered=100, timeouts=0))
    grown = concurrency.limit
    assert grown > start
    concurrency.update(LoadSample(0.5, full=True, answered=100, timeouts=0))
    assert concurrency.limit < grown
    lower = concurrency.limit
    concurrency.update(LoadSample(0.0, full=True, answered=50, timeouts=50))
    assert concurrency.limit < lower
    for _ in range(100):
        concurrency.update(LoadSample(0.0, full=True, answered=0, timeouts=0))
    assert grown < concurrency.limit <= 2_048
    fixed = AdaptiveConcurrency(7)
    fixed.update(LoadSample(0.0, full=True, answered=1, timeouts=0))
    assert fixed.limit == 7


def test_the_limit_grows_faster_until_it_has_been_too_high() -> None:
    concurrency = AdaptiveConcurrency()

    def growth() -> float:
        before = concurrency.limit
        concurrency.update(LoadSample(0.0, full=True, answered=100, timeouts=0))
        return concurrency.limit / before

    often = concurrency.sample_s
    assert growth() >= 2
    concurrency.update(LoadSample(0.15, full=False, answered=100, timeouts=0))
    assert growth() >= 2, "the event loop is late while hundreds of links start"
    concurrency.update(LoadSample(0.5, full=True, answered=100, timeouts=0))
    assert 1 < growth() < 1.5
    lower = concurrency.limit
    concurrency.update(LoadSample(0.15, full=True, answered=100, timeouts=0))
    assert concurrency.limit < lower
    assert concurrency.sample_s > often


def test_metrics_as_a_file_and_over_udp(tmp_path: Path) -> None:
    path = tmp_path / "laion.prom"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(120)
        port = server.getsockname()[1]
        metrics = Metrics(str(path), f"127.0.0.1:{port}")
        metrics.in_flight = 7
        metrics.kept(1_000, 0.2)
        metrics.dropped(S.TIMEOUT)
        metrics.flush()
        first = server.recv(10_000).decode().split("\n")
        metrics.dropped(S.TIMEOUT)
        metrics.flush()  # too early
        metrics.flush(now=True)
        second = server.recv(10_000).decode().split("\n")
    assert "laion_etl_download.links.timeout:1|c" in first
    assert "laion_etl_download.bytes:1000|c" in first
    assert "laion_etl_download.in_flight:7|g" in first
    assert [line for line in second if line.endswith("|c")] == ["laion_etl_download.links.timeout:1|c"]
    text = path.read_text()
    samples = {
        (one.name, *one.labels.values()): one.value
        for f in text_string_to_metric_families(text)
        for one in f.samples
    }
    assert samples["laion_etl_download_links_total", "timeout"] == 2
    assert samples["laion_etl_download_links_total", "success"] == 1
    assert samples["laion_etl_download_bytes_total",] == 1_000
    assert samples["laion_etl_download_in_flight",] == 7
    assert samples["laion_etl_download_seconds_bucket", "0.1"] == 0
    assert samples["laion_etl_download_seconds_bucket", "0.25"] == 1
    assert samples["laion_etl_download_seconds_sum",] == 0.2
    assert {name for name, *_ in samples} == {
        f"laion_etl_download_{name}"
        for name in (
            "links_total",
            "bytes_total",
            "in_flight",
            "seconds_bucket",
            "seconds_sum",
            "seconds_count",
        )
    }


XMP = b'<x:xmpmeta><rdf:Description plus:DataMining="http://ns.useplus.org/ldf/vocab/%b"/></x:xmpmeta>'
C2PA = b"c2pa.training-mining\0cbor\xa1gentries\xa1x\x1bc2pa.ai_generative_training\xa1cuse%b"


@pytest.mark.parametrize(
    ("notice", "out"),
    [
        (XMP % b"DMI-PROHIBITED", True),
        (XMP % b"DMI-PROHIBITED-AIMLTRAINING", True),
        (XMP % b"DMI-ALLOWED", False),
        (C2PA % b"jnotAllowed", True),
        (C2PA % b"kconstrained", True),
        (C2PA % b"gallowed", False),
        (b"", False),
    ],
)
def test_notices_in_the_image(notice: bytes, out: bool) -> None:
    assert opted_out_by_metadata(GOOD[:20] + notice + GOOD[20:]) is out


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


PROHIBITED = XMP % b"DMI-PROHIBITED"
RAW = b"\nxmp\n %8d\n" % len(PROHIBITED) + PROHIBITED.hex().encode() + b"\n"


@pytest.mark.parametrize(
    "extra",
    [
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(PROHIBITED)),
        png_chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(RAW)),
        png_chunk(b"tEXt", b"Raw profile type xmp\0" + RAW),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PROHIBITED.decode().encode("utf-16")),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PROHIBITED.decode().encode("utf-16-be")),
    ],
)
def test_notices_in_packed_texts_of_a_png(extra: bytes) -> None:
    image = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes(13)) + extra + png_chunk(b"IEND", b"")
    assert opted_out_by_metadata(image)
    assert not opted_out_by_metadata(image.replace(extra, png_chunk(b"zTXt", b"a\0\0broken")))


def test_reservations() -> None:
    assert reserved_by_header([" 1 "])
    assert not reserved_by_header(["0"])
    rules = parse_tdmrep(
        b'[{"location": "/a/*.jpg$", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]'
    )
    assert not is_reserved(rules, "/a/x.jpg")
    assert is_reserved(rules, "/a/x.jpg?1")
    assert parse_tdmrep(b"[" * 100_000) == parse_tdmrep(b'{"location": "/"}') == parse_tdmrep(b"\xff") == ()


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("/", "/x", True),
        ("/a", "/ab", True),
        ("/a$", "/ab", False),
        ("/*.gif$", "/x.gif", True),
        ("/*.gif$", "/x.gif?1", False),
        ("/a*b*c", "/a--b--c--", True),
        ("/a*b*c", "/a--c--b", False),
        ("/ab*b$", "/ab", False),
        ("", "/x", True),
    ],
)
def test_patterns(pattern: str, path: str, found: bool) -> None:
    assert parse_path_pattern(pattern.encode()).matches(path.encode()) is found


def test_a_hostile_pattern_costs_no_time() -> None:
    path = b"/" + b"a" * 2_000
    assert not parse_path_pattern(b"/" + b"*a" * 40 + b"b").matches(path)
    assert parse_path_pattern(b"/" + b"*a" * 500 + b"b").matches(path)  # cut: it forbids more, not less


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("", None),
        ("soon", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("9" * 50, 9_999_999_999_999_999.0),
        ("0", 0.0),
        ("0" * 60_000 + "9", 9.0),
        ("-1", None),
        ("1e3", None),
        ("inf", None),
        ("12:30", None),
        ("1 Jan", None),
        ("120.5", 120.0),
        ("+120", 120.0),
        ('"120"', 120.0),
        ("120s", 120.0),
        ("120 seconds", 120.0),
        ("2 minutes", 120.0),
        ("1h", 3_600.0),
        ("60, 120", 120.0),
        ("60;q=1", 60.0),
        ("1999-12-31T23:59:59Z", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Mon, 30 Nov 99999 20:00:00 GMT", None),
        # Hours of a worker, if they were tried in all ways.
        ("0" * 60_000 + "x", None),
        ("9" * 60_000 + "x", None),
        ("1" + " " * 60_000 + "x", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s([value]) == seconds

"""What servers see of a batch: few connections, reused, at a moderate rate, and none after an opt-out."""

import errno
import math
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Barrier
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.core.stage_stats import StageStats
from laion_etl.download import batch_downloader, pool, transport
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.link_scheduler import LinkScheduler, PendingLink
from laion_etl.download.politeness import HostLimiter
from laion_etl.download.request_url import parse_request_url
from laion_etl.download.stage import download_batch
from laion_etl.io.storage import Store
from laion_etl.settings import DownloadSettings, Settings
from tests.download.hostile import GOOD
from tests.download.sites import Reply, Site, site
from tests.download.test_stage import plan, rows_of


def run(store: Store, urls: list[str], running: Site, **changes: Any) -> StageStats:
    """Hosts of *.ours.example are the site; 127.* is allowed by the address policy and rate limited."""
    settings = DownloadSettings(
        connect_to=(f"*.ours.example=127.0.0.1:{running.port}",),
        allow_networks=("127.0.0.0/8",),
        ports=(80, running.port),
        decoders=1,
    )
    plan(store, urls)
    return download_batch("C", 7, Settings(download=replace(settings, **changes)), store)


def test_connections_are_reused(store: Store) -> None:
    with site() as running:
        stats = run(store, [f"http://a.ours.example/{n}.jpg" for n in range(60)], running)
        assert stats.kept == 60
        assert len({request.connection for request in running.requests}) <= 8
    assert stats.details["network"]["reused"] >= 50


def test_a_host_gets_few_requests_at_once_and_few_a_second(store: Store) -> None:
    two = Barrier(2)

    def together() -> Reply:
        two.wait(240)
        return 200, {}, GOOD

    with site() as running:
        running.delay_s = 0.05
        running.answers = {"/0.jpg": together, "/1.jpg": together}
        urls = [f"http://127.0.0.1:{running.port}/{n}.jpg" for n in range(12)]
        run(store, urls, running, connections_per_host=2, requests_per_host_s=20)
        assert running.max_at_once == 2
        times = sorted(request.at for request in running.requests)
    assert times[-1] - times[0] >= 11 / 20


def test_the_hosts_of_a_domain_share_its_limit(store: Store) -> None:
    with site() as running:
        running.delay_s = 0.05
        domains = [f"http://{n}.shop.example.com/1.jpg" for n in range(10)]
        stats = run(
            store,
            domains,
            running,
            connect_to=(f"*.example.com=127.0.0.1:{running.port}",),
            connections=3,
        )
        assert stats.kept == 10
        assert running.max_at_once <= 3


def test_hosts_take_turns(store: Store) -> None:
    with site() as running:
        running.delay_s = 0.02
        urls = [f"http://{host}.ours.example/{n}.jpg" for host in "abcd" for n in range(10)]
        run(store, urls, running, connections=4, connections_per_host=1)
        first = Counter(request.host for request in running.image_requests()[:20])
    assert set(first) == {f"{host}.ours.example" for host in "abcd"}


def test_while_decoders_are_busy_links_start_only_where_no_image_came_from_yet() -> None:
    async def started() -> list[str]:
        hosts = HostLimiter(DownloadSettings(), lambda _: False)
        names = ["busy", "busy", "busy", "new", "new", "also-new"]
        targets = [parse_request_url(f"http://{name}.example/{n}.jpg") for n, name in enumerate(names)]
        scheduler = LinkScheduler([PendingLink(n, target) for n, target in enumerate(targets)], hosts)
        busy, new = hosts.origin_state(targets[0]), hosts.origin_state(targets[3])
        busy.delivers = True
        order = []
        for step in (
            scheduler.next_without_image,
            scheduler.next_without_image,
            scheduler.next_without_image,
        ):
            found = step(trio.current_time())
            order.append(found[0].target.host if found else "none")
        new.delivers = True  # its other link is ready, and waits now, too
        hosts.prove(new)
        order.append("waits" if scheduler.next_without_image(math.inf) is None else "starts")
        for _ in range(2):
            found = scheduler.next(math.inf)
            order.append(found[0].target.host if found else "none")
        return order

    assert trio.run(started) == [
        "new.example",
        "also-new.example",
        "none",
        "waits",
        "busy.example",
        "new.example",
    ]


def test_a_batch_whose_decoders_are_always_busy_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_downloader, "_BACKLOG_PER_DECODER", 0)
    monkeypatch.setattr(batch_downloader, "_MOST_PER_DECODER", 1)
    with site() as running:
        urls = [f"http://{host}.ours.example/{n}.jpg" for host in "abcd" for n in range(10)]
        assert run(store, urls, running).kept == 40


def test_a_short_retry_after_is_honoured_and_a_long_one_gives_up_the_host(store: Store) -> None:
    answers = iter([(503, {"Retry-After": "1"}, b"")])

    def once() -> Reply:
        return next(answers, (200, {}, b""))

    with site() as running:
        running.answers["/0.jpg"] = once
        running.answers["/long.jpg"] = lambda: (429, {"Retry-After": "3600"}, b"")
        urls = ["http://a.ours.example/0.jpg", "http://a.ours.example/1.jpg"]
        urls += ["http://b.ours.example/long.jpg"] + [f"http://b.ours.example/{n}.jpg" for n in range(50)]
        stats = run(store, urls, running, connections_per_host=1)
        asked = [request for request in running.image_requests() if request.host == "b.ours.example"]
        first, second = (
            request.at
            for request in running.image_requests()
            if request.path == "/0.jpg" and request.host == "a.ours.example"
        )
    assert second - first >= 1
    assert len(asked) == 1
    rows = {row["url"]: row["status"] for row in rows_of(store)}
    assert rows["http://a.ours.example/1.jpg"] == "success"
    assert stats.dropped == {"http_error": 51, "too_few_bytes": 1}


def test_temporary_failures_are_retried_and_others_are_not(store: Store) -> None:
    answers = iter([(500, {}, b"")])
    with site() as running:
        running.answers["/flaky.jpg"] = lambda: next(answers, (200, {}, GOOD))
        running.answers["/gone.jpg"] = lambda: (410, {}, b"")
        running.answers["/broken.jpg"] = lambda: (500, {}, b"")
        urls = [f"http://a.ours.example/{name}.jpg" for name in ("flaky", "gone", "broken")]
        stats = run(store, urls, running)
        asked = Counter(request.path for request in running.image_requests())
    assert asked == {"/flaky.jpg": 2, "/gone.jpg": 1, "/broken.jpg": 2}
    assert (stats.kept, stats.dropped) == (1, {"http_error": 2})
    assert stats.details["network"]["retries"] == 2


def waiting_connections(listener: socket.socket) -> int:
    """How many are in its backlog: for a socket that listens `tcpi_unacked`, the fifth number of TCP_INFO."""
    return int(struct.unpack_from("8x5I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28))[4])


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that neither accepts nor refuses connections: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(8):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
            waiting.append(sock)
        while waiting_connections(listener) == 0:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        for sock in waiting:
            sock.close()


def test_a_thousand_links_of_a_dead_host_cost_one_timeout(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, int]] = []

    async def counted(endpoints: list[tuple[str, int]]) -> trio.socket.SocketType:
        tried.extend(endpoints)
        return await transport.connect(endpoints)

    monkeypatch.setattr(pool, "connect", counted)
    with site() as running, black_hole() as port:
        urls = [f"http://dead.example/{n}.jpg" for n in range(1_000)] + ["http://a.ours.example/1.jpg"]
        stats = run(
            store,
            urls,
            running,
            connect_to=(f"dead.example=127.0.0.1:{port}", f"*.ours.example=127.0.0.1:{running.port}"),
            connect_timeout_s=1.0,
        )
    assert tried.count(("127.0.0.1", port)) == 1
    assert (stats.kept, stats.dropped) == (1, {"connect_timeout": 1_000})
    assert stats.details["network"]["diagnosis"] == ["100% of links have hosts that accept no connection"]


def test_a_link_to_an_ipv6_address_fails_alone_where_the_kernel_has_no_ipv6(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trio.socket.socket

    def only_ipv4(family: int, *others: int) -> trio.socket.SocketType:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *others)

    monkeypatch.setattr(trio.socket, "socket", only_ipv4)
    with site() as running:
        urls = ["http://[2606:4700::1]/1.jpg", "http://a.ours.example/1.jpg"]
        stats = run(store, urls, running)
    assert (stats.kept, stats.dropped) == (1, {"connect_failed": 1})


def test_robots_txt_is_fetched_once_and_honoured(store: Store) -> None:
    with site() as running:
        rules = b"User-agent: *\nDisallow: /private/\n\nUser-agent: laion_etl\nDisallow: /not-for-us*.jpg$\n"
        running.answers["/robots.txt"] = lambda: (200, {}, rules)
        paths = ["open.jpg", "not-for-us-1.jpg", "private/1.jpg"]
        stats = run(store, [f"http://a.ours.example/{path}" for path in paths], running)
        assert (stats.kept, stats.dropped) == (2, {"opted_out_robots_txt": 1})
        assert Counter(request.path for request in running.requests)["/robots.txt"] == 1
        asked = len(running.requests)
        stats = run(store, ["http://a.ours.example/not-for-us-1.jpg"], running, robots_txt=False)
        assert stats.kept == 1
        assert "/robots.txt" not in {request.path for request in running.requests[asked:]}


@pytest.mark.parametrize(
    ("robots", "status", "is_redirected"),
    [
        ((200, {}, b"User-agent: *\nDisallow: /"), "opted_out_robots_txt", False),
        ((503, {}, b""), "robots_unreachable", False),
        ((200, {}, b"User-agent: *\nDisallow: /"), "opted_out_robots_txt", True),
    ],
)
def test_links_that_are_not_requested_do_not_wait_for_their_host(
    store: Store, robots: Reply, status: str, is_redirected: bool
) -> None:
    """The host may be asked once an hour: no link that waited for it would end before the test does."""
    once = {"requests_per_host_s": 1 / 3600, "connections": 1, "retries": 0}
    with site() as running:
        host = f"127.0.0.1:{running.port}"
        running.by_host[host, "/robots.txt"] = robots
        urls = [f"http://{host}/{n}.jpg" for n in range(50)]
        if is_redirected:
            to = {f"/{n}": (302, {"Location": url}, b"") for n, url in enumerate(urls)}
            running.by_host |= {("a.ours.example", path): reply for path, reply in to.items()}
            urls = [f"http://a.ours.example{path}" for path in to]
        stats = run(store, urls, running, **once)
        assert not [request for request in running.requests if request.path.endswith(".jpg")]
    assert stats.dropped == {status: 50}


@pytest.mark.parametrize(("status", "kept"), [(404, 1), (403, 1), (500, 0), (503, 0), (429, 0)])
def test_robots_txt_that_is_missing_allows_and_unreachable_forbids(
    store: Store, status: int, kept: int
) -> None:
    with site() as running:
        running.answers["/robots.txt"] = lambda: (status, {}, b"")
        assert run(store, ["http://a.ours.example/1.jpg"], running).kept == kept


def test_robots_txt_that_fails_once_costs_no_link(store: Store) -> None:
    answers = iter([(503, {"Retry-After": "0"}, b"")])
    with site() as running:
        running.answers["/robots.txt"] = lambda: next(answers, (200, {}, b"User-agent: *\nDisallow: /no/"))
        urls = ["http://a.ours.example/1.jpg", "http://a.ours.example/no/1.jpg"]
        stats = run(store, urls, running)
        assert Counter(request.path for request in running.requests)["/robots.txt"] == 2
    assert (stats.kept, stats.dropped) == (1, {"opted_out_robots_txt": 1})


def test_robots_txt_that_stays_unreachable_is_no_opt_out(store: Store) -> None:
    with site() as running:
        running.answers["/robots.txt"] = lambda: (503, {}, b"")
        urls = [f"http://a.ours.example/{n}.jpg" for n in range(9)]
        stats = run(store, urls, running, retries=0)
        assert running.image_requests() == []
    assert stats.dropped == {"robots_unreachable": 9}
    assert {row["error_message"] for row in rows_of(store)} == {"503"}
    (sentence,) = stats.details["network"]["diagnosis"]
    assert sentence.startswith("100% of links have hosts whose robots.txt could not be read")


@pytest.mark.parametrize(
    ("path", "kept", "dropped"),
    [("/robots.txt", 0, {"robots_unreachable": 2}), ("/.well-known/tdmrep.json", 2, {})],
)
def test_the_host_of_a_redirected_policy_file_is_another(
    store: Store, path: str, kept: int, dropped: dict[str, int]
) -> None:
    with socket.socket() as closed, site() as running:
        closed.bind(("127.0.0.1", 0))  # refuses connections
        running.answers[path] = lambda: (302, {"Location": "http://dead.example/rules"}, b"")
        overrides = (
            f"dead.example=127.0.0.1:{closed.getsockname()[1]}",
            f"*.ours.example=127.0.0.1:{running.port}",
        )
        urls = ["http://a.ours.example/1.jpg", "http://a.ours.example/2.jpg"]
        stats = run(store, urls, running, connect_to=overrides, retries=0)
    assert (stats.kept, stats.dropped) == (kept, dropped)


def test_the_status_of_an_error_comes_before_its_opt_outs(store: Store) -> None:
    tag = {"X-Robots-Tag": "noindex"}
    with site() as running:
        running.answers["/gone.jpg"] = lambda: (404, tag, b"")
        running.answers["/long.jpg"] = lambda: (429, {"Retry-After": "3600", **tag}, b"")
        running.answers["/tagged.jpg"] = lambda: (200, tag, GOOD)
        urls = [f"http://a.ours.example/{name}.jpg" for name in ("gone", "tagged")]
        urls += ["http://b.ours.example/long.jpg"] + [f"http://b.ours.example/{n}.jpg" for n in range(12)]
        stats = run(store, urls, running, connections_per_host=1)
        asked = [request for request in running.image_requests() if request.host == "b.ours.example"]
    assert stats.dropped == {"http_error": 14, "opted_out_robots_tag": 1}
    assert len(asked) == 1


def test_robots_txt_may_be_elsewhere(store: Store) -> None:
    with site() as running:
        moved = (301, {"Location": "http://rules.ours.example/rules"}, b"")
        running.answers["/robots.txt"] = lambda: moved
        running.answers["/rules"] = lambda: (200, {}, b"User-agent: *\nDisallow: /")
        assert run(store, ["http://a.ours.example/1.jpg"], running).kept == 0


PASSING = (408, 421, 425, 429, 499, 500, 502, 503, 504, 507, 520, 530, 599)
LASTING = (400, 401, 403, 404, 405, 410, 418, 423, 451, 498, 501, 505, 999)


def test_a_request_that_is_put_off_is_made_again(store: Store) -> None:
    answers = {f"/{status}.jpg": iter([(status, {}, b"")]) for status in PASSING + LASTING}
    with site() as running:
        running.answers = {path: partial(next, once, (200, {}, GOOD)) for path, once in answers.items()}
        urls = [f"http://s{status}.ours.example/{status}.jpg" for status in PASSING + LASTING]
        stats = run(store, urls, running, perceptual_hashes=False)
        asked = Counter(request.path for request in running.image_requests())
    assert asked == {f"/{status}.jpg": 2 if status in PASSING else 1 for status in PASSING + LASTING}
    assert (stats.kept, stats.dropped) == (len(PASSING), {"http_error": len(LASTING)})


def put_off(*answers: tuple[str, float | None], apart_s: float = 0.0) -> tuple[float, LinkFailed | None]:
    """Returns for how long a host is left alone after these answers, and why it is given up."""

    async def main() -> tuple[float, LinkFailed | None]:
        state = HostLimiter(DownloadSettings(), lambda _: True).origin_state(
            parse_request_url("http://a.example/")
        )
        for number, (message, wait_s) in enumerate(answers):
            if number:
                await trio.sleep(apart_s)
            state.failed(LinkFailed(S.HTTP_ERROR, message, wait_s), 30.0)
        return max(0.0, state.host.next_at - trio.current_time()), state.failure

    return trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("message", "asked_s", "seconds"),
    [("429", None, 1), ("429", 0.0, 1), ("503", 0.5, 1), ("503", 20.0, 20), ("500", 7.0, 7), ("500", 0.0, 0)],
)
def test_a_busy_host_is_left_alone_for_a_while(message: str, asked_s: float | None, seconds: float) -> None:
    assert put_off((message, asked_s)) == (seconds, None)


@pytest.mark.parametrize(
    ("answers", "apart_s", "seconds"),
    [
        (["429"] * 8, 0.0, 1),  # requests that were under way
        (["429"] * 2, 1.0, 2),
        (["429", "503"], 1.0, 2),
        (["429"] * 3, 2.0, 4),
        (["429"] * 4, 30.0, 8),
        (["429"] * 15, 40.0, 30),  # as long as the longest Retry-After
        (["429", "404", "429"], 1.0, 1),
    ],
)
def test_a_host_that_stays_busy_is_left_alone_for_longer(
    answers: list[str], apart_s: float, seconds: float
) -> None:
    assert put_off(*((answer, None) for answer in answers), apart_s=apart_s) == (seconds, None)


def test_a_host_that_is_busy_twenty_times_in_a_row_is_given_up() -> None:
    busy = [("503", None)] * 19
    assert put_off(*busy, ("404", None), *busy)[1] is None
    assert put_off(*busy, ("503", None))[1] is not None
    assert put_off(("408", 31.0))[1] is not None


def test_a_host_that_limits_requests_is_given_up_after_a_minute_of_nothing_else() -> None:
    busy = [("429", None)]
    assert put_off(*busy * 5_000)[1] is None
    assert put_off(*busy * 59, apart_s=1.0)[1] is None
    assert put_off(*busy * 61, apart_s=1.0)[1] is not None
    assert put_off(*busy * 19, apart_s=10.0)[1] is None
    assert put_off(*busy * 59, ("404", None), *busy * 59, apart_s=1.0)[1] is None


def test_reserved_rights_are_honoured(store: Store) -> None:
    rules = b'[{"location": "/free/*", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]'
    with site() as running:
        running.answers["/.well-known/tdmrep.json"] = lambda: (200, {}, rules)
        urls = ["http://a.ours.example/free/1.jpg", "http://a.ours.example/1.jpg"]
        stats = run(store, urls, running)
        assert (stats.kept, stats.dropped) == (1, {"opted_out_tdm": 1})
        assert run(store, urls, running, tdmrep=False).kept == 2


def test_a_name_with_a_final_dot_is_the_same_host() -> None:
    """Else its server would get twice the requests."""
    hosts = HostLimiter(DownloadSettings(), lambda _: False)
    first, second = (
        hosts.origin_state(parse_request_url(url)).host for url in ("http://a.example/", "http://a.example./")
    )
    assert first is second

from typing import Any

import pytest
import trio
import trio.testing

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import Origin, parse_request_url
from laion_etl.download.resolver import Addresses, NoSuchName, Resolver, ResolverTrouble, Source, SystemSource
from laion_etl.download.ssrf import AddressPolicy


class Table:
    """A source that answers from a table after a while, and counts the lookups."""

    def __init__(self, table: dict[str, list[str]], *, broken: bool = False, ttl_s: float = 300) -> None:
        self.table = table
        self.broken = broken
        self.ttl_s = ttl_s
        self.lookups: list[str] = []

    async def look_up(self, host: str) -> Addresses:
        self.lookups.append(host)
        await trio.sleep(0.01)
        if self.broken:
            raise ResolverTrouble("out of order")
        if host not in self.table:
            raise NoSuchName
        return Addresses(tuple(self.table[host]), self.ttl_s)


def resolver_of(*sources: Source, connect_to: tuple[str, ...] = ()) -> Resolver:
    return Resolver(sources, AddressPolicy(), 1.0, connect_to)


async def outcome(resolver: Resolver, host: str) -> tuple[str, ...] | DownloadStatus:
    try:
        return await resolver.resolve(host)
    except LinkFailed as failure:
        return failure.status


def resolve_all(hosts: list[str], *sources: Source) -> list[Any]:
    results: list[Any] = [None] * len(hosts)

    async def one(resolver: Resolver, index: int) -> None:
        results[index] = await outcome(resolver, hosts[index])

    async def main() -> None:
        resolver = resolver_of(*sources)
        async with trio.open_nursery() as nursery:
            for index in range(len(hosts)):
                nursery.start_soon(one, resolver, index)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return results


def test_a_host_is_looked_up_once_for_all_its_links() -> None:
    dns = Table({"a.example": ["93.184.216.34"]})
    assert resolve_all(["a.example"] * 50, dns) == [("93.184.216.34",)] * 50
    assert dns.lookups == ["a.example"]


@pytest.mark.parametrize("host", ["img.example", "img.example."])
def test_the_system_is_asked_for_absolute_names(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would try the suffixes of its search list, and find hosts of the private network."""
    asked = []

    def getaddrinfo(name: str, *_: object) -> list[tuple[Any, ...]]:
        asked.append(name)
        return [(2, 1, 6, "", ("203.0.113.7", 0))]

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    assert trio.run(SystemSource().look_up, host).literals == ("203.0.113.7",)
    assert asked == ["img.example."]


def test_a_dead_host_is_looked_up_once_with_one_source() -> None:
    dns, other = Table({}), Table({"gone.example": ["8.8.8.8"]})
    assert resolve_all(["gone.example"] * 50, dns, other) == [DownloadStatus.DNS_FAILED] * 50
    assert dns.lookups == ["gone.example"]
    assert other.lookups == []


def test_a_failing_resolver_is_not_a_dead_host_and_another_is_asked() -> None:
    broken, other = Table({}, broken=True), Table({"a.example": ["8.8.8.8"]})
    assert resolve_all(["a.example"], broken, other) == [("8.8.8.8",)]
    assert resolve_all(["a.example"], broken) == [DownloadStatus.RESOLVER_FAILED]


def test_a_silent_resolver_is_given_up_in_time() -> None:
    class Silent:
        async def look_up(self, host: str) -> Addresses:
            await trio.sleep_forever()
            raise AssertionError(host)

    async def main() -> tuple[Any, float]:
        started = trio.current_time()
        found = await outcome(resolver_of(Silent()), "a.example")
        return found, trio.current_time() - started

    found, seconds = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert found is DownloadStatus.RESOLVER_FAILED
    assert seconds == pytest.approx(1.0)


def test_answers_are_cached_for_their_ttl_and_failures_are_retried() -> None:
    async def main() -> list[int]:
        dns = Table({"a.example": ["8.8.8.8"]}, ttl_s=600)
        resolver = resolver_of(dns)
        counts = []
        for pause_s in (0, 599, 2):
            await trio.sleep(pause_s)
            await resolver.resolve("a.example")
            counts.append(len(dns.lookups))
        dns.broken = True
        for pause_s in (700, 1, 5):
            await trio.sleep(pause_s)
            assert await outcome(resolver, "a.example") is DownloadStatus.RESOLVER_FAILED
            counts.append(len(dns.lookups))
        return counts

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == [1, 1, 2, 3, 3, 4]


def test_fewer_lookups_at_once_when_the_resolver_fails_and_more_when_it_is_fast() -> None:
    async def main() -> list[int]:
        dns = Table({f"h{n}.example": ["8.8.8.8"] for n in range(20)})
        resolver = resolver_of(dns)
        seen = [resolver.concurrency]
        for n in range(20):
            await resolver.resolve(f"h{n}.example")
        seen.append(resolver.concurrency)
        dns.broken = True
        for n in range(3):
            await outcome(resolver, f"x{n}.example")
            await trio.sleep(2)
        return [*seen, resolver.concurrency]

    start, grown, cut = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert grown == start + 20
    assert cut == grown // 8


def test_private_answers_are_refused_and_public_ones_kept() -> None:
    table = {"rebind.example": ["10.0.0.8", "::1"], "mixed.example": ["2606:4700::1", "127.0.0.1", "8.8.8.8"]}
    results = resolve_all(["rebind.example", "mixed.example"], Table(table))
    assert results == [DownloadStatus.ADDRESS_REFUSED, ("2606:4700::1", "8.8.8.8")]


def test_a_cancelled_lookup_is_done_by_another_task() -> None:
    async def main() -> tuple[str, ...]:
        resolver = resolver_of(Table({"a.example": ["8.8.8.8"]}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_resolve_within, resolver, 0.002)
            await trio.sleep(0.001)
            return await resolver.resolve("a.example")

    async def _resolve_within(resolver: Resolver, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await resolver.resolve("a.example")

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == ("8.8.8.8",)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
    ],
)
def test_the_local_machine_is_refused_in_every_notation(url: str) -> None:
    async def main() -> tuple[str, ...] | DownloadStatus:
        return await outcome(resolver_of(Table({})), parse_request_url(url).host)

    assert trio.run(main) is DownloadStatus.ADDRESS_REFUSED


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("HTTP://A.example:80?x=1#part", ("http", "a.example", 80), "/?x=1"),
        ("https://a.example:8443/b?", ("https", "a.example", 8443), "/b"),
        ("https://[2001:DB8::1]:81/b c", ("https", "[2001:db8::1]", 81), "/b%20c"),
        ("http://bücher.example/a@b:c/?d@e", ("http", "xn--bcher-kva.example", 80), "/a@b:c/?d@e"),
    ],
)
def test_a_url_is_split_as_browsers_do(url: str, origin: Origin, path: str) -> None:
    target = parse_request_url(url)
    assert (target.origin, target.path) == (origin, path)
    assert target.at("/robots.txt") == parse_request_url("/robots.txt", target.url)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("file:///etc/passwd", DownloadStatus.URL_INVALID),
        ("http://user:secret@a.example/", DownloadStatus.URL_INVALID),
        ("http://a b/", DownloadStatus.URL_INVALID),
        ("", DownloadStatus.URL_INVALID),
    ],
)
def test_urls_that_are_never_requested(url: str, status: DownloadStatus) -> None:
    with pytest.raises(LinkFailed) as caught:
        parse_request_url(url)
    assert caught.value.status is status

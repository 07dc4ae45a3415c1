import socket
from typing import Any

import pytest
import trio

from laion_etl.download.outcome import LinkFailed
from laion_etl.download.resolver import Resolver
from laion_etl.download.transport import Target, connect, parse_target
from laion_etl.errors import SettingsError
from laion_etl.funnel import DownloadStatus


class FakeDns(trio.abc.HostnameResolver):
    """Answers from a table after a while, and counts the lookups."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self.table = table
        self.lookups: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        host = host.decode() if isinstance(host, bytes) else host
        self.lookups.append(host)
        await trio.sleep(0.01)
        if host not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        families = [socket.AF_INET6 if ":" in a else socket.AF_INET for a in self.table[host]]
        return [
            (f, socket.SOCK_STREAM, 6, "", (a, port)) for f, a in zip(families, self.table[host], strict=True)
        ]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


def resolve_all(table: dict[str, list[str]], hosts: list[str]) -> tuple[list[Any], FakeDns]:
    dns = FakeDns(table)
    results: list[Any] = [None] * len(hosts)

    async def one(resolver: Resolver, index: int) -> None:
        try:
            results[index] = await resolver.resolve(hosts[index])
        except LinkFailed as failure:
            results[index] = failure.status

    async def main() -> None:
        trio.socket.set_custom_hostname_resolver(dns)
        resolver = Resolver()
        async with trio.open_nursery() as nursery:
            for index in range(len(hosts)):
                nursery.start_soon(one, resolver, index)

    trio.run(main)
    return results, dns


def test_a_host_is_looked_up_once_for_all_its_links() -> None:
    results, dns = resolve_all({"a.example": ["93.184.216.34"]}, ["a.example"] * 50)
    assert results == [("93.184.216.34",)] * 50
    assert dns.lookups == ["a.example"]


def test_a_dead_host_is_looked_up_once() -> None:
    results, dns = resolve_all({}, ["gone.example"] * 50)
    assert results == [DownloadStatus.DNS_FAILED] * 50
    assert dns.lookups == ["gone.example"]


def test_private_answers_are_refused_and_public_ones_kept() -> None:
    table = {"rebind.example": ["10.0.0.8", "::1"], "mixed.example": ["2606:4700::1", "127.0.0.1", "8.8.8.8"]}
    results, _ = resolve_all(table, ["rebind.example", "mixed.example"])
    assert results == [DownloadStatus.ADDRESS_REFUSED, ("8.8.8.8", "2606:4700::1")]


def test_a_cancelled_lookup_is_done_by_somebody_else() -> None:
    async def main() -> tuple[str, ...]:
        trio.socket.set_custom_hostname_resolver(FakeDns({"a.example": ["8.8.8.8"]}))
        resolver = Resolver()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_resolve_within, resolver, 0.002)
            await trio.sleep(0.001)
            return await resolver.resolve("a.example")

    async def _resolve_within(resolver: Resolver, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await resolver.resolve("a.example")

    assert trio.run(main) == ("8.8.8.8",)


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
def test_the_own_machine_is_refused_in_every_notation(url: str) -> None:
    async def main(target: Target) -> None:
        await connect(target, Resolver(), (80,), 1)

    with pytest.raises(LinkFailed) as caught:
        trio.run(main, parse_target(url))
    assert caught.value.status is DownloadStatus.ADDRESS_REFUSED


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
        parse_target(url)
    assert caught.value.status is status


@pytest.mark.parametrize("entry", ["x", "a=b", "=127.0.0.1:80", "a=127.0.0.1:http", "a=:80"])
def test_a_malformed_connect_to_entry_is_named(entry: str) -> None:
    with pytest.raises(SettingsError, match="CONNECT_TO"):
        Resolver((entry,))

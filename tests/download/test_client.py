"""The client against a misbehaving server: each link ends with its reason, within its limits."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.client import Client
from laion_etl.download.link_failed import IN_A_CIRCLE, LinkFailed
from laion_etl.download.request_url import parse_request_url
from laion_etl.settings import DownloadSettings
from tests.download.hostile import ANSWERS, GOOD, LONGEST_S, hostile_server

EXPECTED = {
    "/to-nowhere": S.HTTP_ERROR,
    "/not-modified": S.HTTP_ERROR,
    "/missing": S.HTTP_ERROR,
    "/loop": S.TOO_MANY_REDIRECTS,
    "/to-file": S.URL_INVALID,
    "/to-private": S.ADDRESS_REFUSED,
    "/to-metadata": S.ADDRESS_REFUSED,
    "/to-own-port": S.PORT_REFUSED,
    "/noai": S.OPTED_OUT_ROBOTS_TAG,
    "/tdm-reserved": S.OPTED_OUT_TDM,
    "/slow-status": S.TIMEOUT,
    "/slow-chunks": S.TIMEOUT,
    "/silent-in-body": S.TIMEOUT,
    "/half-closed": S.BAD_RESPONSE,
    "/one-byte-chunks": S.BAD_RESPONSE,
    "/huge-chunk-size": S.BAD_RESPONSE,
    "/endless-chunk-line": S.BAD_RESPONSE,
    "/endless-trailers": S.BAD_RESPONSE,
    "/unknown-coding": S.BAD_RESPONSE,
    "/long-length": S.BAD_RESPONSE,
    "/huge-length-digits": S.BAD_RESPONSE,
    "/deflate-bomb": S.NOT_AN_IMAGE,
    "/gzip-bomb-behind-an-image": S.TOO_MANY_BYTES,
    "/zstd": S.BAD_RESPONSE,
    "/many-headers": S.BAD_RESPONSE,
    "/nul-in-header": S.BAD_RESPONSE,
    "/no-status": S.BAD_RESPONSE,
    "/http-2": S.BAD_RESPONSE,
    "/http-2-frames": S.BAD_RESPONSE,
    "/to-loopback-name": S.ADDRESS_REFUSED,
    "/to-decimal": S.ADDRESS_REFUSED,
    "/to-octal": S.ADDRESS_REFUSED,
    "/to-short": S.ADDRESS_REFUSED,
    "/to-nat64": S.ADDRESS_REFUSED,
    "/to-6to4": S.ADDRESS_REFUSED,
    "/to-cgnat": S.ADDRESS_REFUSED,
    "/to-multicast": S.ADDRESS_REFUSED,
    "/to-link-local": S.ADDRESS_REFUSED,
    "/to-unique-local": S.ADDRESS_REFUSED,
    "/to-data": S.URL_INVALID,
    "/to-user": S.URL_INVALID,
    "/ping": S.TOO_MANY_REDIRECTS,
    "/pong": S.TOO_MANY_REDIRECTS,
    "/longer-and-longer": S.TOO_MANY_REDIRECTS,
    "/unavailable": S.HTTP_ERROR,
    "/too-many-requests": S.HTTP_ERROR,
    "/partial": S.HTTP_ERROR,
    "/png-bomb": S.TOO_MANY_PIXELS,
    "/jpeg-bomb": S.TOO_MANY_PIXELS,
    "/webp-bomb": S.TOO_MANY_PIXELS,
    "/tiff-bomb": S.FORMAT_REFUSED,
    "/avif-bomb": S.FORMAT_REFUSED,
    "/html-polyglot": S.NOT_AN_IMAGE,
    "/script-svg": S.FORMAT_REFUSED,
    "/slow-header": S.TIMEOUT,
    "/slow-body": S.TIMEOUT,
    "/silent": S.TIMEOUT,
    "/endless": S.TOO_MANY_BYTES,
    "/endless-chunks": S.TOO_MANY_BYTES,
    "/endless-header": S.BAD_RESPONSE,
    "/endless-1xx": S.BAD_RESPONSE,
    "/long-header-line": S.BAD_RESPONSE,
    "/announces-too-much": S.TOO_MANY_BYTES,
    "/gzip-bomb": S.NOT_AN_IMAGE,
    "/broken-gzip": S.BAD_RESPONSE,
    "/brotli": S.BAD_RESPONSE,
    "/cut-off": S.BAD_RESPONSE,
    "/cut-off-chunk": S.BAD_RESPONSE,
    "/bad-chunk": S.BAD_RESPONSE,
    "/two-lengths": S.BAD_RESPONSE,
    "/negative-length": S.BAD_RESPONSE,
    "/garbage": S.BAD_RESPONSE,
    "/http-0.9": S.BAD_RESPONSE,
    "/ssh": S.BAD_RESPONSE,
    "/empty-answer": S.BAD_RESPONSE,
    "/reset": S.BAD_RESPONSE,
    "/reset-in-body": S.BAD_RESPONSE,
    "/upgrade": S.BAD_RESPONSE,
    "/tiny": S.TOO_FEW_BYTES,
    "/no-content": S.TOO_FEW_BYTES,
    "/html": S.NOT_AN_IMAGE,
    "/svg": S.FORMAT_REFUSED,
    "/gif": S.FORMAT_REFUSED,
}
DELIVERED = sorted(set(ANSWERS) - set(EXPECTED))
TOO_SLOW = {path for path, status in EXPECTED.items() if status is S.TIMEOUT}


@pytest.fixture(scope="module")
def settings() -> Iterator[DownloadSettings]:
    with hostile_server() as server:
        port = server.server_address[1]
        yield DownloadSettings(
            connect_to=(f"*.hostile.example=127.0.0.1:{port}",),
            timeout_s=LONGEST_S,
            first_byte_timeout_s=LONGEST_S,
            idle_timeout_s=LONGEST_S,
            tls_timeout_s=LONGEST_S,
            max_bytes=2_000_000,
            connections_per_host=100,
        )


def name(path: str) -> str:
    """One host per behaviour, because a host that fails repeatedly is given up."""
    return path.strip("/").replace(".", "-")


def address(path: str) -> str:
    return f"http://{name(path)}.hostile.example{path}"


def fetch_all(urls: list[str], settings: DownloadSettings) -> dict[str, S | bytes]:
    """Fetches all links concurrently through one client."""
    found: dict[str, S | bytes] = {}

    async def one(client: Client, url: str) -> None:
        try:
            body = await client.fetch(parse_request_url(url))
            body.release()
            found[url] = body.data()
        except LinkFailed as failure:
            found[url] = failure.status

    async def main() -> None:
        client = Client(settings)
        async with trio.open_nursery() as nursery:
            for url in urls:
                nursery.start_soon(one, client, url)

    trio.run(main)
    return found


def test_every_misbehaviour_ends_as_its_reason_while_good_links_go_on(settings: DownloadSettings) -> None:
    bad = {address(path): status for path, status in EXPECTED.items() if path not in TOO_SLOW}
    assert len(bad) > 70
    good = [f"http://a.hostile.example/good?{n}" for n in range(40)]
    found = fetch_all([*bad, *good], settings)
    assert {url: found[url] for url in bad} == bad
    assert all(found[url] == GOOD for url in good)


def test_what_never_ends_ends_at_the_limits_on_time(settings: DownloadSettings) -> None:
    """Only these wait for a limit: a busy machine would take the others past one, too."""
    short = replace(
        settings, timeout_s=3.0, first_byte_timeout_s=1.5, idle_timeout_s=1.0, robots_txt=False, tdmrep=False
    )
    slow = [address(path) for path in sorted(TOO_SLOW)]
    assert len(slow) > 5
    assert fetch_all(slow, short) == dict.fromkeys(slow, S.TIMEOUT)


@pytest.mark.parametrize("path", [path for path in DELIVERED if path.startswith("/good")])
def test_unusual_but_legal_answers_are_delivered(path: str, settings: DownloadSettings) -> None:
    url = f"http://a.hostile.example{path}"
    assert fetch_all([url], settings) == {url: GOOD}


@pytest.mark.parametrize(
    ("path", "redirects", "message"),
    [("/ping", 1, IN_A_CIRCLE), ("/loop", 1, IN_A_CIRCLE), ("/relative-redirects", 0, "")],
)
def test_redirects_in_a_circle_are_named(
    path: str, redirects: int, message: str, settings: DownloadSettings
) -> None:
    async def failure() -> LinkFailed:
        with pytest.raises(LinkFailed) as raised:
            await Client(replace(settings, max_redirects=redirects)).fetch(parse_request_url(address(path)))
        return raised.value

    found = trio.run(failure)
    assert (found.status, found.message) == (S.TOO_MANY_REDIRECTS, message)


def test_a_redirect_to_another_host_is_followed(settings: DownloadSettings) -> None:
    url = "http://a.hostile.example/relative-redirects"
    assert fetch_all([url], settings) == {url: GOOD}


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://a.hostile.example/good", S.TLS_FAILED),
        ("http://a.hostile.example:8081/good", S.PORT_REFUSED),
        ("http://127.0.0.1/good", S.ADDRESS_REFUSED),
        ("http://gone.invalid/x.jpg", S.DNS_FAILED),
        ("ftp://a.hostile.example/good", S.URL_INVALID),
        ("http://a.hostile.example/%zz/good", S.HTTP_ERROR),  # requested as it is
    ],
)
def test_links_that_never_reach_a_server(url: str, status: S, settings: DownloadSettings) -> None:
    assert fetch_all([url], settings) == {url: status}


def test_a_closed_port_is_a_failed_connection(settings: DownloadSettings) -> None:
    url = "http://a.closed.example/x.jpg"
    closed = replace(settings, connect_to=("*.closed.example=127.0.0.1:1",))
    assert fetch_all([url], closed) == {url: S.CONNECT_FAILED}


def test_opt_outs_can_be_switched_off(settings: DownloadSettings) -> None:
    url = "http://a.hostile.example/noai"
    assert fetch_all([url], replace(settings, opt_out=False)) == {url: GOOD}


def test_the_request_names_us_and_carries_nothing_else() -> None:
    with hostile_server() as server:
        address = f"127.0.0.1:{server.server_address[1]}"
        settings = DownloadSettings(connect_to=(f"a.example={address}",), user_agent="me (+me@example.org)")
        fetch_all(["http://a.example/good?x=1&y=%20"], settings)
        rules, mining, request = server.requests
    assert rules.startswith(b"GET /robots.txt HTTP/1.1\r\n")
    assert mining.startswith(b"GET /.well-known/tdmrep.json HTTP/1.1\r\n")
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /good?x=1&y=%20 HTTP/1.1"
    names = {line.partition(":")[0].lower(): line.partition(": ")[2] for line in lines[1:] if line}
    assert names["host"] == "a.example"
    assert names["user-agent"] == "me (+me@example.org)"
    assert names["accept-encoding"] == "identity"
    assert set(names) == {"host", "user-agent", "accept-encoding", "accept"}

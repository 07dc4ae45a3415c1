"""Connections that are used again: when they are, and that nothing of one response counts as another."""

import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download import client as client_module
from laion_etl.download.client import Client
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import parse_request_url
from laion_etl.settings import DownloadSettings
from tests.download.hostile import GOOD, noise_image
from tests.download.response_shapes import BODY, ZIPPED, chunked, chunks, coded, head, length, sized
from tests.download.scripted import Reply, Reset, Scripted, scripted_server
from tests.download.sites import Reply as SiteReply
from tests.download.sites import site
from tests.download.test_tls import Authority, server_context

OTHER = noise_image(size=(32, 8))  # what only an attacker wants to be taken
FIRST, SECOND = sized(), sized(body=GOOD)
SMUGGLED = sized(body=OTHER)
CONTINUE = head(first=b"HTTP/1.1 100 Continue")


def settings_for(port: int) -> DownloadSettings:
    return DownloadSettings(
        connect_to=(f"*.kept.example=127.0.0.1:{port}",),
        robots_txt=False,
        tdmrep=False,
        min_bytes=1,
        verify_tls=False,
    )


def fetch_in_turn(port: int, count: int = 2, *, scheme: str = "http") -> list[S | bytes]:
    """Fetches links of one host one after another."""

    async def main() -> list[S | bytes]:
        client, found = Client(settings_for(port)), list[S | bytes]()
        for number in range(count):
            try:
                with await client.fetch(parse_request_url(f"{scheme}://a.kept.example/{number}")) as body:
                    found.append(body.data())
            except LinkFailed as failure:
                found.append(failure.status)
        return found

    return trio.run(main)


def fetched(*connections: Sequence[Reply]) -> tuple[list[S | bytes], Scripted]:
    with scripted_server(*connections) as running:
        return fetch_in_turn(running.port), running


TIMED_OUT = head(b"Connection: close", b"Content-Length: 0", first=b"HTTP/1.1 408 Request Timeout")


@pytest.mark.parametrize(
    "reply",
    [
        TIMED_OUT,
        head(b"Content-Length: 0", first=b"HTTP/1.1 408 Request Timeout"),
        head(b"Content-Length: 0", first=b"HTTP/1.1 421 Misdirected Request"),
        b"",
        b"\r\n",
        b"HTTP/1.1 20",
        b"out of order",
        head(b"Content-Length: many"),
    ],
)
def test_what_a_kept_connection_gives_instead_of_an_answer_is_asked_for_again(reply: bytes) -> None:
    found, running = fetched([FIRST, reply, None], [SECOND])
    assert found == [BODY, GOOD]
    assert running.paths == [["/0", "/1"], ["/1"]]


@pytest.mark.parametrize("replies", [[Reset()], [b"", Reset()], [CONTINUE, Reset()], [CONTINUE, None]])
def test_a_kept_connection_that_is_reset_is_replaced(replies: list[Reply]) -> None:
    found, running = fetched([FIRST, *replies], [SECOND])
    assert found == [BODY, GOOD]
    assert running.paths[1] == ["/1"]


def test_an_answer_counts_that_came_before_the_request_was_read() -> None:
    with scripted_server([FIRST, None], [SECOND]) as running:
        running.early = True
        assert fetch_in_turn(running.port) == [BODY, GOOD]


def test_408_on_a_new_connection_is_the_answer() -> None:
    found, running = fetched([TIMED_OUT, None], [SECOND])
    assert found == [S.HTTP_ERROR, GOOD]
    assert running.paths == [["/0"], ["/1"]]


UNAMBIGUOUS = {
    "length": FIRST,
    "100 in front": CONTINUE + FIRST,
    "103 in front": head(b"Connection: close", first=b"HTTP/1.1 103 Early Hints") + FIRST,
    "Keep-Alive: max=1": sized(b"Connection: Keep-Alive", b"Keep-Alive: timeout=1, max=1"),
    "HTTP/1.0 with keep-alive": sized(b"Connection: Keep-Alive", first=b"HTTP/1.0 200 OK"),
    "chunks": chunked(),
    "gzip": coded(b"gzip", ZIPPED + bytes(9)),
    "404": sized(first=b"HTTP/1.1 404 No"),
    "404 in chunks": chunked(first=b"HTTP/1.1 404 No"),
    "204": head(first=b"HTTP/1.1 204 No"),
    "noai": sized(b"X-Robots-Tag: noai"),
    "redirect": head(b"Location: ftp://b/", length(), first=b"HTTP/1.1 302 No") + BODY,
    "not an image": sized(body=b"<html>" * 5_000),
    "not an image, in chunks": chunked(body=chunks(b"<html>" * 5_000)),
}


@pytest.mark.parametrize("reply", UNAMBIGUOUS.values(), ids=UNAMBIGUOUS)
def test_the_connection_is_used_again_after_a_response_of_which_all_was_read(reply: bytes) -> None:
    found, running = fetched([reply, SECOND])
    assert found[1] == GOOD
    assert running.paths == [["/0", "/1"]]


AMBIGUOUS = {
    "more than announced": FIRST + SMUGGLED,
    "more behind the last chunk": chunked() + SMUGGLED,
    "more behind 204": head(first=b"HTTP/1.1 204 No") + SMUGGLED,
    "204 that announces a body": head(length(), first=b"HTTP/1.1 204 No"),
    "204 in chunks": head(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 204 No"),
    "100 behind it": FIRST + CONTINUE,
    "more behind 304": head(length(), first=b"HTTP/1.1 304 No") + SMUGGLED,
    "more behind a 404": sized(first=b"HTTP/1.1 404 No") + SMUGGLED,
    "an empty line behind it": FIRST + b"\r\n",
    "length and chunks": chunked(b"Content-Length: 5"),
    "chunked twice": chunked(b"Transfer-Encoding: chunked"),
    "odd length": head(b"Content-Length: +%d" % len(BODY)) + BODY,
    "odd header line": sized(b"no colon"),
    "broken chunk": chunked(body=b"z\r\n0\r\n\r\n" + SMUGGLED),
    "broken chunk of an error": chunked(first=b"HTTP/1.1 404 No", body=b"z\r\n0\r\n\r\n" + SMUGGLED),
    "wrong length of an error": head(b"Content-Length: x", first=b"HTTP/1.1 404 No") + SMUGGLED,
    "Connection: close": sized(b"Connection: close"),
    "Connection: CLOSE": sized(b"Connection: CLOSE"),
    "Connection: keep-alive, Close": sized(b"Connection: keep-alive, Close"),
    "Connection: Close;q=1": sized(b"Connection: Close;q=1"),
    "Connection: keep-alive and close": sized(b"Connection: keep-alive", b"Connection: close"),
    "Connection : close": sized(b"Connection : close"),
    "HTTP/1.0": sized(first=b"HTTP/1.0 200 OK"),
}


@pytest.mark.parametrize("reply", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_no_connection_is_used_again_on_which_more_may_come(reply: bytes) -> None:
    found, running = fetched([reply, SMUGGLED], [SECOND])
    assert found[1] == GOOD
    assert running.paths == [["/0"], ["/1"]]


def test_a_record_of_tls_that_came_with_the_response_is_not_the_next_one(tmp_path: Path) -> None:
    context = server_context(Authority(), tmp_path, "a.kept.example")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # without tickets in between
    with scripted_server([(FIRST, SMUGGLED), SECOND], [SECOND], tls=context) as running:
        assert fetch_in_turn(running.port, scheme="https") == [BODY, GOOD]
    assert running.paths == [["/0"], ["/1"]]


@pytest.mark.parametrize(
    ("reply", "found"), [(head() + GOOD, GOOD), (SECOND, GOOD), (SECOND[:-500], S.BAD_RESPONSE)]
)
def test_a_connection_over_tls_may_end_without_notice(reply: bytes, found: S | bytes, tmp_path: Path) -> None:
    """As in browsers: what has no length may be cut off, over TLS like without it."""
    context = server_context(Authority(), tmp_path, "a.kept.example")
    with scripted_server([reply, None], tls=context) as running:
        assert fetch_in_turn(running.port, 1, scheme="https") == [found]


def test_what_comes_on_an_idle_connection_closes_it() -> None:
    async def main(port: int) -> bytes:
        client = Client(settings_for(port))
        (await client.fetch(parse_request_url("http://a.kept.example/0"))).release()
        for connection in client.pool._idle["http", "a.kept.example", 80]:
            await trio.lowlevel.wait_readable(connection.stream._sock)  # type: ignore[union-attr]
        with await client.fetch(parse_request_url("http://a.kept.example/1")) as body:
            return body.data()

    with scripted_server([FIRST, TIMED_OUT], [SECOND]) as running:
        running.unasked = True
        assert trio.run(main, running.port) == GOOD
    assert running.paths == [["/0"], ["/1"]]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_connections_over_tls_are_used_again(version: ssl.TLSVersion, tmp_path: Path) -> None:
    context = server_context(Authority(), tmp_path, "a.kept.example")
    context.maximum_version = version
    with scripted_server([FIRST, SECOND], tls=context) as running:
        assert fetch_in_turn(running.port, scheme="https") == [BODY, GOOD]
    assert running.paths == [["/0", "/1"]]


REFUSED: dict[str, SiteReply] = {
    "noai": (200, {"X-Robots-Tag": "noai"}, GOOD * 3),
    "tdm": (200, {"tdm-reservation": "1"}, GOOD * 3),
    "404": (404, {}, GOOD),
    "html": (200, {}, b"<html>" * 20_000),
}


@pytest.mark.parametrize("reply", REFUSED.values(), ids=REFUSED)
def test_30_refused_answers_of_one_host_take_one_connection(
    reply: SiteReply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_DRAINED_S", 60.0)
    with site() as running:
        running.answers = {f"/{number}": lambda: reply for number in range(30)}
        assert len(fetch_in_turn(running.port, 30)) == 30
        assert len({request.connection for request in running.requests}) == 1


def test_what_is_not_wanted_is_read_only_if_it_is_short_and_soon_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also its fault is not the link's: the status and the opt-out have been said."""
    monkeypatch.setattr(client_module, "_DRAINED_S", 0.05)
    many = b"10000\r\n" + bytes(65_536) + b"\r\n"
    for reply, outcome in (
        (head(b"X-Robots-Tag: noai", b"Content-Length: 900000") + bytes(65_536), S.OPTED_OUT_ROBOTS_TAG),
        (chunked(b"X-Robots-Tag: noai", body=many * 8), S.OPTED_OUT_ROBOTS_TAG),
        (head(b"Content-Length: 100", first=b"HTTP/1.1 404 No") + b"and no more", S.HTTP_ERROR),
        (head(b"Content-Length: 100", first=b"HTTP/1.1 404 No"), S.HTTP_ERROR),
    ):
        found, running = fetched([reply], [SECOND])
        assert found == [outcome, GOOD]
        assert running.paths == [["/0"], ["/1"]]

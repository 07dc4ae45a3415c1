"""Who is let in by the servers of the search page and the dashboard, and how long and how many may wait."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.cookies import SimpleCookie

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from laion_etl.io.local_server import Limits, LocalServer
from tests.local_servers import served

WAIT_S = 240  # for a hang only


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.url.query} {len(await request.body())}")


APP = Starlette(routes=[Route("/", hello), Route("/upload", hello, methods=["POST"])])


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with served(APP) as made:
        yield made


def base(server: LocalServer) -> str:
    return server.address.partition("?")[0]


def connect(server: LocalServer) -> socket.socket:
    url = httpx.URL(server.address)
    return socket.create_connection((url.host, url.port), timeout=WAIT_S)


def test_another_user_of_the_machine_sees_nothing(server: LocalServer) -> None:
    """Knows the port, as everyone on the machine can, and neither path nor token."""
    url = httpx.URL(server.address)
    root, token = str(url.copy_with(path="/", query=None)), url.query.decode()
    paths = ("", "upload", f"?{token}", f"upload?{token}", f"{'A' * 22}/?{token}", url.path[1:-1])
    queries = ("", "?token=", f"?token={'A' * 43}", "upload", "anything")
    with httpx.Client(timeout=WAIT_S) as other:
        for address in (*(root + path for path in paths), *(base(server) + query for query in queries)):
            answer = other.get(address)
            assert answer.status_code == 401
            assert "token" in answer.text
            assert "set-cookie" not in answer.headers
        assert other.post(f"{base(server)}upload", content=b"x").status_code == 401
        for cookie in ("", "x", 'a="', "A" * 43, "A" * 43 + "; laion-etl="):
            assert other.get(base(server), headers={"Cookie": f"laion-etl={cookie}"}).status_code == 401


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(server: LocalServer) -> None:
    with httpx.Client(timeout=WAIT_S) as mine:
        first = mine.get(f"{server.address}&q=a+star")
        path = httpx.URL(server.address).path
        assert (first.status_code, first.headers["location"]) == (303, f"{path}?q=a+star")
        assert first.headers["referrer-policy"] == "no-referrer"
        [cookie] = SimpleCookie(first.headers["set-cookie"]).values()
        assert cookie["httponly"]
        assert cookie["samesite"] == "strict"
        assert cookie["path"] == path
        assert cookie.value not in server.address
        assert mine.get(base(server), params={"q": "a star"}).text == "hello q=a+star 0"
        assert mine.post(f"{base(server)}upload", content=b"abc").text == "hello  3"


def test_cookies_set_by_servers_on_other_ports_do_not_lock_the_user_out(server: LocalServer) -> None:
    with httpx.Client(timeout=WAIT_S) as mine:
        mine.get(server.address)
        [cookie] = mine.cookies.jar
    good = f"{cookie.name}={cookie.value}"
    for foreign in (f"{cookie.name}=x", f"{cookie.name}={'A' * 43}", 'a{}"=b', '"', "=", ";;", "a=\xff"):
        for sent in (f"{foreign}; {good}", f"{good}; {foreign}"):
            answer = httpx.get(base(server), headers={"Cookie": sent.encode("latin-1")}, timeout=WAIT_S)
            assert answer.status_code == 200, sent


def test_a_web_page_that_rebinds_its_name_is_refused(server: LocalServer) -> None:
    """It has no cookie, for the browser keeps that for 127.0.0.1; not even with one it is answered."""
    with httpx.Client(timeout=WAIT_S) as mine:
        mine.get(server.address)
        for host in ("evil.example", "127.0.0.1.evil.example:80", "[::1]", ""):
            assert mine.get(base(server), headers={"Host": host}).status_code == 421
            assert mine.get(server.address, headers={"Host": host}).status_code == 421
        assert mine.get(base(server), headers={"Host": "localhost:7"}).status_code == 200


def test_headers_that_do_not_arrive_end_the_connection() -> None:
    with served(APP, Limits(headers_s=0.1)) as server:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: 127"):
            with connect(server) as slow:
                slow.sendall(sent)
                with suppress(ConnectionResetError):  # or the end of the stream
                    assert slow.recv(1) == b""


def test_a_body_that_does_not_arrive_is_answered_and_the_connection_ends() -> None:
    with served(APP, Limits(body_s=0.1)) as server, httpx.Client(timeout=WAIT_S) as mine:
        mine.get(server.address)
        [cookie] = mine.cookies.jar
        head = (
            f"POST {cookie.path}upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
            f"Cookie: {cookie.name}={cookie.value}\r\n\r\n"
        )
        with connect(server) as slow:
            slow.sendall(head.encode() + b"ten bytes.")
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert mine.get(base(server)).status_code == 200


def test_connections_past_the_limit_are_closed_and_others_work() -> None:
    with served(APP, Limits(headers_s=WAIT_S, connections=3)) as server, ExitStack() as stack:
        mine = stack.enter_context(httpx.Client(timeout=WAIT_S))
        assert mine.get(server.address).status_code == 303  # the first connection, which stays open
        waiting = [stack.enter_context(connect(server)) for _ in range(2)]
        with connect(server) as refused, suppress(ConnectionResetError):  # or the end of the stream
            assert refused.recv(1) == b""
        assert mine.get(base(server)).status_code == 200
        for one in waiting:
            one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert one.recv(12) == b"HTTP/1.1 401"

"""Our HTTP reader compared with h11: whatever h11 accepts as a response gives the same result."""

from collections.abc import Iterable
from itertools import pairwise

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.download.http1 import MAX_HEAD_BYTES, Connection, parse_head
from laion_etl.download.http_head import framing_of
from laion_etl.download.link_failed import LinkFailed
from tests.download.response_shapes import SHAPES, Shape

Answer = tuple[int, bytes] | str


class Pieces:
    """A server that sends these pieces and closes the connection."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def send(self, data: bytes) -> None:
        assert data == b"GET"

    async def receive(self, max_bytes: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if len(piece) > max_bytes:
            self._pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]


class NoLimits:
    def waiting_for_answer(self) -> None: ...
    def answering(self) -> None: ...


def ours(pieces: Iterable[bytes]) -> Answer:
    async def main() -> Answer:
        connection = Connection(Pieces(pieces), 10_000_000)
        try:
            head = await connection.request(b"GET", NoLimits())
            body = b""
            while part := await connection.part():
                body += part
        except LinkFailed as failure:
            return failure.message
        return head.status, body

    return trio.run(main)


def theirs(raw: bytes) -> Answer:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=65_536)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    status, body, ended = 0, b"", False
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif not isinstance(event, h11.InformationalResponse):
                if ended:
                    return "no response"
                ended = True
                connection.receive_data(b"")
    except h11.RemoteProtocolError:
        return "refused"


BODIES = st.binary(max_size=300)
TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n"), max_size=20).map(
    lambda text: text.encode("latin-1")
)
NAMES = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True).filter(
    lambda name: name.lower() not in (b"content-length", b"transfer-encoding", b"connection", b"upgrade")
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Legal ones, in all framings, sometimes with bytes changed."""
    version, status = (
        draw(st.sampled_from([b"1.0", b"1.1"])),
        draw(st.sampled_from([200, 204, 304, 404, 599])),
    )
    lines = [b"HTTP/%b %d %b" % (version, status, draw(st.sampled_from([b"OK", b"", b"Not \xe9"])))]
    lines += [b"%b: %b" % (draw(NAMES), draw(TEXT)) for _ in range(draw(st.integers(0, 3)))]
    body = draw(BODIES)
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "length":
        lines.append(b"Content-Length: %d" % (len(body) + draw(st.sampled_from([0, 0, -1, 3]))))
    if framing == "chunked" and version == b"1.1":
        lines.append(b"Transfer-Encoding: chunked")
        step = draw(st.integers(1, 50))
        parts = [body[n : n + step] for n in range(0, len(body), step)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
    if draw(st.booleans()):
        raw = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + raw
    if draw(st.booleans()) and raw:
        place = draw(st.integers(0, len(raw) - 1))
        raw = raw[:place] + draw(st.binary(min_size=1, max_size=2)) + raw[place + 1 :]
    return raw


@settings(max_examples=600, deadline=None)
@given(responses(), st.lists(st.integers(0, 600), max_size=4))
def test_whatever_h11_accepts_gives_the_same_result_in_any_pieces(raw: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[a:b] for a, b in pairwise(edges)]
    mine, reference = ours(pieces), theirs(raw)
    assert mine == ours([raw])
    if isinstance(reference, tuple):
        assert mine == reference


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_whatever_h11_accepts_of_the_odd_shapes_gives_the_same_result(shape: Shape) -> None:
    reference = theirs(shape.raw)
    if isinstance(reference, tuple) and shape.raw.find(b"\r\n\r\n") < MAX_HEAD_BYTES:
        assert ours([shape.raw]) == reference


@pytest.mark.parametrize("size", [300, 1_000, 5_000])
def test_a_long_extension_of_a_chunk_is_read_in_whatever_packets_it_comes(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = head + b"3;" + b"a" * 20_000 + b"\r\nabc\r\n0\r\n\r\n"
    assert ours(raw[place : place + size] for place in range(0, len(raw), size)) == (200, b"abc")


def test_any_version_with_a_dot_is_read_as_the_highest_or_lowest_that_is_known() -> None:
    for version, expected in (
        ("1.7", (200, b"ab")),
        ("0.9", (200, b"ab")),
        ("2.0", (200, b"ab")),
        ("2", "not HTTP"),
        ("11", "not HTTP"),
    ):
        assert ours([f"HTTP/{version} 200 OK\r\nContent-Length: 2\r\n\r\nab".encode()]) == expected


@given(st.binary(max_size=400), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]))
def test_any_bytes_end_as_a_response_or_a_reason(data: bytes, beginning: bytes) -> None:
    found = ours([beginning + data])
    assert isinstance(found, tuple) or found


def reusable_after(raw: bytes) -> bool:
    async def main() -> bool:
        connection = Connection(Pieces([raw]), 10_000)
        await connection.request(b"GET", NoLimits())
        while await connection.part():
            pass
        return connection.reusable

    return trio.run(main)


@pytest.mark.parametrize(
    ("raw", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n", False),  # a second answer
        (b"HTTP/1.1 200 OK\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nodd line\r\nContent-Length: 2\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
    ],
)
def test_a_connection_is_reused_only_if_the_end_of_its_response_is_unambiguous(
    raw: bytes, reusable: bool
) -> None:
    assert reusable_after(raw) is reusable


@pytest.mark.parametrize("filling", [b" ", b"\t", b":", b"\r", b",", b"\n "])
def test_a_head_made_to_take_long_takes_no_longer_than_others(filling: bytes) -> None:
    """Quadratic time would be seconds for each of these, while nothing else in the process runs."""
    for end in (b"b", b"\0", b""):
        for name in (b"X: a", b"Content-Type:", b" "):
            line = name + filling * (60_000 // len(filling)) + end
            assert parse_head(b"HTTP/1.1 200 OK\r\nA: 1\r\n" + line).headers[0][0] == "a"


@pytest.mark.parametrize(
    "lines", [b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip"]
)
def test_a_coding_behind_chunked_is_refused_because_the_end_is_not_known(lines: bytes) -> None:
    framing = framing_of(parse_head(b"HTTP/1.1 200 OK\r\n" + lines))
    assert framing.fault == "transfer-encoding behind chunked"
    assert not framing.keeps


def test_only_blanks_and_tabs_are_stripped() -> None:
    head = parse_head(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\nContent-Length: 2\r\nA: b\r\n \t\r\n\tc"
    )
    assert not framing_of(head).chunked
    assert head.one("a") == "b c"


def test_headers_keep_their_order_and_names_are_in_lower_case() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-b:2\r\nX-a:\t3 ")
    assert head.headers == (("x-a", "1"), ("x-b", "2"), ("x-a", "3"))
    assert head.all("x-a") == ["1", "3"]

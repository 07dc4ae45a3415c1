"""robots.txt in each shape of response: what it forbids is obeyed, or the host is left alone."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler

import pytest

from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.settings import DownloadSettings
from tests.download.hostile import GOOD, LONGEST_S, ok
from tests.download.response_shapes import BODY, SHAPES, Shape, chunked, coded, head, raw_deflate, sized
from tests.download.shape_server import served
from tests.download.test_client import fetch_all

URL = "http://s0.shapes.example/1.jpg"
RULES = b"User-agent: *\nDisallow: /\n".ljust(len(BODY), b"#")  # as long as the image of the shapes
HALF = len(BODY) // 2  # where the shapes divide it into chunks
MISSING = frozenset({"204", "300", "302", "304", "305", "306", "309", "404"})
MISSING |= {"too_few_bytes", "too_many_redirects"}  # an empty file; RFC 9309, 2.3.1.2
UNREADABLE = frozenset(
    {"503", "600", "999", "address_refused", "bad_response", "port_refused", "url_invalid"}
)
# A redirect that browsers do not follow for an image; rules that have come before the file is cut off.
FOUND = frozenset(
    {
        "300 with a Location",
        "Content-Length that is too long",
        "last chunk without a line end",
        "no last chunk",
        "cut off in a chunk",
        "no line end behind a chunk",
    }
)


def with_rules(shape: Shape) -> bytes:
    return shape.raw.replace(BODY[:HALF], RULES[:HALF]).replace(BODY[HALF:], RULES[HALF:])


def expected(shape: Shape) -> S | bytes:
    if shape.name in FOUND:
        return S.OPTED_OUT_ROBOTS_TXT
    if shape.ours in MISSING:
        return GOOD
    return S.ROBOTS_UNREACHABLE if shape.ours in UNREADABLE else S.OPTED_OUT_ROBOTS_TXT


CASES = {
    name: (with_rules(shape), expected(shape))
    for name, shape in SHAPES.items()
    if RULES[:HALF] in with_rules(shape) or shape.ours in MISSING | UNREADABLE or name.startswith("redirect")
}
ZIPPED = {
    "gzip": coded(b"gzip", gzip.compress(RULES)),
    "x-gzip": coded(b"x-gzip", gzip.compress(RULES)),
    "deflate": coded(b"deflate", zlib.compress(RULES)),
    "raw deflate": coded(b"deflate", raw_deflate(RULES)),
    "x-deflate": coded(b"x-deflate", zlib.compress(RULES)),
    "gzip twice": coded(b"gzip, gzip", gzip.compress(gzip.compress(RULES))),
    "gzip without a label": sized(body=gzip.compress(RULES)),
    "zlib without a label": sized(body=zlib.compress(RULES)),
    "gzip twice without a label": sized(body=gzip.compress(gzip.compress(RULES))),
    "two gzip members without a label": sized(body=gzip.compress(RULES[:10]) + gzip.compress(RULES[10:])),
    "gzip twice under one label": coded(b"gzip", gzip.compress(gzip.compress(RULES))),
    "gzip under another label": coded(b"utf-8", gzip.compress(RULES)),
}
CASES |= {f"rules in {name}": (raw, S.OPTED_OUT_ROBOTS_TXT) for name, raw in ZIPPED.items()}
OTHERS = b"User-agent: *\nDisallow: /private/\n"
PART = b"HTTP/1.1 206 Part"
CUT_OFF = {
    "fewer bytes than announced": head(b"Content-Length: 999") + OTHERS,
    "chunks without an end": chunked(body=b"%x\r\n%b\r\n" % (len(OTHERS), OTHERS)),
    "a part": sized(b"Content-Range: bytes 0-34/99", first=PART, body=OTHERS),
    "the end of it": sized(b"Content-Range: bytes 64-98/99", first=PART, body=OTHERS),
    "zstd without a label": sized(body=b"\x28\xb5\x2f\xfd" + bytes(range(256))),
    "zlib without a label, damaged": sized(body=zlib.compress(OTHERS)[:-9] + bytes(9)),
    "a broken second gzip member": coded(
        b"gzip", gzip.compress(OTHERS) + gzip.compress(RULES)[:-8] + bytes(8)
    ),
    "a second gzip member without its end": coded(b"gzip", gzip.compress(OTHERS) + gzip.compress(RULES)[:20]),
}
CUT_OFF["gzip under a length that it has neither before nor after"] = head(
    b"Content-Encoding: gzip", b"Content-Length: 999"
) + gzip.compress(OTHERS)
CASES |= {f"cut off: {name}": (raw, S.ROBOTS_UNREACHABLE) for name, raw in CUT_OFF.items()}

FILLING = b"# filling\n" * 99
for rules, outcome in ((OTHERS, GOOD), (RULES, S.OPTED_OUT_ROBOTS_TXT)):
    announced = b"Content-Length: %d" % len(rules + FILLING)
    CASES[f"gzip under the length before compression: {outcome!r:.9}"] = (
        head(b"Content-Encoding: gzip", announced) + gzip.compress(rules + FILLING),
        outcome,
    )


@contextmanager
def policy_server(replies: Sequence[bytes], tdmrep: bytes = b"", *, held: bool = False) -> Iterator[int]:
    """Serves each reply as robots.txt of a host, `s7.`, and the rules where it leads to. Yields the port."""

    class Answers(StreamRequestHandler):
        timeout = LONGEST_S

        def handle(self) -> None:
            path = self.rfile.readline().split()[1]
            (host,) = (line for line in iter(self.rfile.readline, b"\r\n") if line.startswith(b"Host: "))
            with suppress(OSError):  # the client has seen enough
                if path.startswith(b"/robots.txt"):
                    self.wfile.write(replies[int(host.removeprefix(b"Host: s").partition(b".")[0])])
                elif path.startswith(b"/.well-known/") and tdmrep:
                    self.wfile.write(tdmrep)
                    if held:
                        self.rfile.read(1)  # until the client closes
                elif path == b"/to/tdm":
                    self.wfile.write(sized(body=RESERVED))
                elif path.startswith(b"/to/"):
                    self.wfile.write(sized(body=RULES))
                else:
                    self.wfile.write(ok(GOOD) if path == b"/1.jpg" else sized(first=b"HTTP/1.1 404 No"))

    with served(Answers) as port:
        yield port


@pytest.fixture(scope="module")
def outcomes() -> dict[str, S | bytes]:
    urls = [f"http://s{number}.shapes.example/1.jpg" for number in range(len(CASES))]
    with policy_server([raw for raw, _ in CASES.values()]) as port:
        settings = DownloadSettings(
            connect_to=(f"*.shapes.example=127.0.0.1:{port}",),
            retries=0,
            timeout_s=LONGEST_S,
            first_byte_timeout_s=LONGEST_S,
            idle_timeout_s=LONGEST_S,
        )
        found = fetch_all(urls, settings)
    return {name: found[url] for name, url in zip(CASES, urls, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_robots_txt(name: str, outcomes: dict[str, S | bytes]) -> None:
    assert outcomes[name] == CASES[name][1]


RESERVED = b'[{"location": "/", "tdm-reservation": 1}]'


@pytest.mark.parametrize(
    "raw",
    [
        head(b"Content-Length: 999") + RESERVED,
        chunked(body=b"%x\r\n%b\r\n" % (len(RESERVED), RESERVED)),
        sized(b"Content-Range: bytes 0-40/99", first=PART, body=RESERVED),
        head(b"Location: /to/tdm", b"Content-Length: 0", first=b"HTTP/1.1 300 Choices"),
        sized(body=zlib.compress(RESERVED)),
        sized(body=gzip.compress(gzip.compress(RESERVED))),
        coded(b"gzip", gzip.compress(RESERVED)[:-8]),
    ],
)
def test_a_reservation_is_obeyed_whatever_else_of_tdmrep_json_is_missing(raw: bytes) -> None:
    with policy_server([sized(first=b"HTTP/1.1 404 No")], raw) as port:
        settings = DownloadSettings(connect_to=(f"*.shapes.example=127.0.0.1:{port}",))
        assert fetch_all([URL], settings) == {URL: S.OPTED_OUT_TDM}


def test_a_reservation_is_obeyed_though_the_rest_of_tdmrep_json_does_not_come() -> None:
    raw = head(b"Content-Length: 999") + RESERVED
    with policy_server([sized(first=b"HTTP/1.1 404 No")], raw, held=True) as port:
        settings = DownloadSettings(connect_to=(f"*.shapes.example=127.0.0.1:{port}",), idle_timeout_s=0.1)
        assert fetch_all([URL], settings) == {URL: S.OPTED_OUT_TDM}

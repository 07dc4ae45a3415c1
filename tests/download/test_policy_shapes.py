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
from tests.download.response_shapes import BODY, SHAPES, Shape, coded, raw_deflate, sized
from tests.download.shape_server import served
from tests.download.test_client import fetch_all

RULES = b"User-agent: *\nDisallow: /\n".ljust(len(BODY), b"#")  # as long as the image of the shapes
HALF = len(BODY) // 2  # where the shapes divide it into chunks
MISSING = frozenset({"204", "300", "302", "304", "305", "306", "309", "404"})
MISSING |= {"too_few_bytes", "too_many_redirects"}  # an empty file; RFC 9309, 2.3.1.2
UNREADABLE = frozenset(
    {"503", "600", "999", "address_refused", "bad_response", "port_refused", "url_invalid"}
)


def with_rules(shape: Shape) -> bytes:
    return shape.raw.replace(BODY[:HALF], RULES[:HALF]).replace(BODY[HALF:], RULES[HALF:])


def expected(shape: Shape) -> S | bytes:
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
    "gzip under another label": coded(b"utf-8", gzip.compress(RULES)),
}
CASES |= {f"rules in {name}": (raw, S.OPTED_OUT_ROBOTS_TXT) for name, raw in ZIPPED.items()}


@contextmanager
def policy_server(replies: Sequence[bytes]) -> Iterator[int]:
    """Serves each reply as robots.txt of a host, `s7.`, and the rules where it leads to. Yields the port."""

    class Answers(StreamRequestHandler):
        timeout = LONGEST_S

        def handle(self) -> None:
            path = self.rfile.readline().split()[1]
            (host,) = (line for line in iter(self.rfile.readline, b"\r\n") if line.startswith(b"Host: "))
            with suppress(OSError):  # the client has seen enough
                if path.startswith(b"/robots.txt"):
                    self.wfile.write(replies[int(host.removeprefix(b"Host: s").partition(b".")[0])])
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

"""Odd HTTP responses, and which readers accept them: ours, h11 0.16 and curl 7.88.

python -m tests.download.odd_responses        prints the table, and where the curl that is installed differs
"""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from socketserver import StreamRequestHandler, ThreadingTCPServer

BODY = b"abcd"


@dataclass(frozen=True, slots=True)
class Odd:
    """A response, and the readers that get status 200 and the body `abcd` from it."""

    name: str
    raw: bytes
    accepted_by: str


def _head(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((first, *lines)) + b"\r\n\r\n"


def _sized(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return _head(*lines, b"Content-Length: 4", first=first) + BODY


def _chunked(body: bytes, *lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return _head(*lines, b"Transfer-Encoding: chunked", first=first) + body


ODD_RESPONSES = [
    # The status line
    Odd("no reason phrase, no space", _sized(first=b"HTTP/1.1 200"), "ours h11 curl"),
    Odd("no reason phrase", _sized(first=b"HTTP/1.1 200 "), "ours h11 curl"),
    Odd("reason phrase in Latin-1", _sized(first=b"HTTP/1.1 200 D\xe9j\xe0"), "ours h11 curl"),
    Odd("two spaces before the status", _sized(first=b"HTTP/1.1  200 OK"), "curl"),
    Odd("two spaces before the reason", _sized(first=b"HTTP/1.1 200  OK"), "ours h11 curl"),
    Odd("tab before the status", _sized(first=b"HTTP/1.1\t200 OK"), ""),
    Odd("control byte in the reason", _sized(first=b"HTTP/1.1 200 O\x01K"), "ours h11 curl"),
    Odd("lower case http", _sized(first=b"http/1.1 200 OK"), "curl"),
    Odd("version 1.2", _sized(first=b"HTTP/1.2 200 OK"), "ours h11"),
    Odd("version 2.0", _sized(first=b"HTTP/2.0 200 OK"), "h11 curl"),
    Odd("version 1", _sized(first=b"HTTP/1 200 OK"), ""),
    Odd("ICY", _sized(first=b"ICY 200 OK"), ""),
    Odd("status of two digits", _sized(first=b"HTTP/1.1 20 OK"), ""),
    Odd("status of four digits", _sized(first=b"HTTP/1.1 2000 OK"), ""),
    Odd("empty line before the status line", b"\r\n" + _sized(), ""),
    Odd("no status line at all", BODY, ""),
    # Line ends
    Odd("bare line feeds", _sized().replace(b"\r\n", b"\n"), "ours h11 curl"),
    Odd("line feeds mixed with CRLF", _head(b"A: 1\nB: 2", b"Content-Length: 4") + BODY, "ours h11 curl"),
    Odd("bare carriage return in a value", _sized(b"A: 1\r2"), "ours curl"),
    Odd("head that ends in LF CRLF", _head(b"Content-Length: 4")[:-4] + b"\n\r\n" + BODY, "ours h11 curl"),
    Odd("head that ends in CRLF LF", _head(b"Content-Length: 4")[:-2] + b"\n" + BODY, "ours h11 curl"),
    # Header lines
    Odd("no headers", _head() + BODY, "ours h11 curl"),
    Odd("line without a colon", _sized(b"Server nginx"), "ours"),
    Odd("HTML in the head", _sized(b"<!-- cached -->"), "ours"),
    Odd(
        "PHP warning in the head",
        _sized(b"Warning: Cannot modify header information - headers already sent"),
        "ours h11 curl",
    ),
    Odd("empty name", _sized(b": value"), "ours curl"),
    Odd("space before the colon", _sized(b"Server : nginx"), "ours curl"),
    Odd("space in the name", _sized(b"Powered By: PHP"), "ours curl"),
    Odd("space before the colon of Content-Length", _head(b"Content-Length : 4") + BODY, "ours curl"),
    Odd("name in UTF-8", _sized("Größe: 1".encode()), "ours curl"),
    Odd("name with a slash", _sized(b"image/type: jpeg"), "ours curl"),
    Odd("name with brackets", _sized(b"X[a]: 1"), "ours curl"),
    Odd("quoted name", _sized(b'"X-A": 1'), "ours curl"),
    Odd("value in UTF-8", _sized("Location: /größe".encode()), "ours h11 curl"),
    Odd("no value", _sized(b"X-A:"), "ours h11 curl"),
    Odd("NUL in a value", _sized(b"X-A: a\0b"), "ours"),
    Odd("control byte in a value", _sized(b"X-A: a\x01b"), "ours h11 curl"),
    Odd("DEL in a value", _sized(b"X-A: a\x7fb"), "ours h11 curl"),
    Odd("folded line", _sized(b"X-A: 1", b"  2"), "ours h11 curl"),
    Odd("folded line first", _sized(b"  2"), "ours"),
    Odd("line of blanks", _sized(b"X-A: 1", b"   "), "ours h11 curl"),
    Odd("the status line twice", _sized(b"HTTP/1.1 200 OK"), "ours"),
    Odd("head of 60 kB", _sized(b"X-A: " + b"a" * 60_000), "ours h11 curl"),
    Odd("100 Set-Cookie lines", _sized(*(b"Set-Cookie: a=%d" % n for n in range(100))), "ours h11 curl"),
    # The length of the body
    Odd("Content-Length twice", _head(b"Content-Length: 4", b"Content-Length: 4") + BODY, "ours h11 curl"),
    Odd("Content-Length as a list", _head(b"Content-Length: 4, 4") + BODY, "ours h11 curl"),
    Odd("two different Content-Lengths", _head(b"Content-Length: 4", b"Content-Length: 5") + BODY, ""),
    Odd("Content-Length with a sign", _head(b"Content-Length: +4") + BODY, "curl"),
    Odd("negative Content-Length", _head(b"Content-Length: -1") + BODY, ""),
    Odd("empty Content-Length", _head(b"Content-Length:") + BODY, ""),
    Odd("Content-Length with a unit", _head(b"Content-Length: 4 bytes") + BODY, "curl"),
    Odd("Content-Length with leading zeros", _head(b"Content-Length: 004") + BODY, "ours h11 curl"),
    Odd("Content-Length that is too short", _head(b"Content-Length: 4") + BODY + b"\r\n", "ours h11 curl"),
    Odd("Content-Length that is too long", _head(b"Content-Length: 5") + BODY, ""),
    Odd("neither length nor chunks", _head(b"Content-Type: image/jpeg") + BODY, "ours h11 curl"),
    Odd("length and chunks", _chunked(b"4\r\nabcd\r\n0\r\n\r\n", b"Content-Length: 20"), "ours h11 curl"),
    Odd("chunks in HTTP/1.0", _chunked(b"4\r\nabcd\r\n0\r\n\r\n", first=b"HTTP/1.0 200 OK"), "ours h11 curl"),
    Odd(
        "Transfer-Encoding: identity",
        _head(b"Transfer-Encoding: identity", b"Content-Length: 4") + BODY,
        "curl",
    ),
    Odd(
        "Transfer-Encoding: Chunked",
        _head(b"Transfer-Encoding: Chunked") + b"4\r\nabcd\r\n0\r\n\r\n",
        "ours h11 curl",
    ),
    Odd("Transfer-Encoding: gzip", _head(b"Transfer-Encoding: gzip") + BODY, ""),
    Odd("chunked twice", _chunked(b"4\r\nabcd\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"), "curl"),
    # Chunks
    Odd("chunk sizes in upper case with zeros", _chunked(b"0004\r\nabcd\r\n000\r\n\r\n"), "ours h11 curl"),
    Odd("chunk with an extension", _chunked(b"4;a=b\r\nabcd\r\n0\r\n\r\n"), "ours h11 curl"),
    Odd("chunk size with blanks behind", _chunked(b"4  \r\nabcd\r\n0\r\n\r\n"), "ours h11 curl"),
    Odd("chunk size with a blank before", _chunked(b" 4\r\nabcd\r\n0\r\n\r\n"), ""),
    Odd("chunk size with 0x", _chunked(b"0x4\r\nabcd\r\n0\r\n\r\n"), ""),
    Odd("chunk lines that end in LF", _chunked(b"4\nabcd\n0\n\n"), "ours curl"),
    Odd("chunks with trailers", _chunked(b"4\r\nabcd\r\n0\r\nX-A: 1\r\n\r\n"), "ours h11 curl"),
    Odd("chunks with a broken trailer", _chunked(b"4\r\nabcd\r\n0\r\nno colon\r\n\r\n"), "ours"),
    Odd("chunks without the last empty line", _chunked(b"4\r\nabcd\r\n0\r\n"), ""),
    Odd("chunks without the last chunk", _chunked(b"4\r\nabcd\r\n"), ""),
    Odd("chunk without a line end behind it", _chunked(b"4\r\nabcd0\r\n\r\n"), ""),
    Odd("negative chunk size", _chunked(b"-4\r\nabcd\r\n0\r\n\r\n"), ""),
    Odd("announced as chunked, but plain", _chunked(BODY), ""),
    # Before the response
    Odd("100 Continue", b"HTTP/1.1 100 Continue\r\n\r\n" + _sized(), "ours h11 curl"),
    Odd("100 Continue three times", b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + _sized(), "ours h11 curl"),
    Odd("101 Switching Protocols", _sized(first=b"HTTP/1.1 101 Switching Protocols"), ""),
]


def by_curl(raws: list[bytes]) -> Iterator[bool]:
    """Whether curl reads each response."""

    class Answers(StreamRequestHandler):
        def handle(self) -> None:
            number = int(self.rfile.readline().split()[1].strip(b"/"))
            while self.rfile.readline().strip():
                pass
            with suppress(OSError):  # curl has seen enough
                self.wfile.write(raws[number])

    with ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for number in range(len(raws)):
            url = f"http://127.0.0.1:{server.server_address[1]}/{number}"
            command = ["curl", "--silent", "--max-time", "10", "--write-out", "|%{http_code}", url]
            done = subprocess.run(command, capture_output=True, check=False)
            yield (done.returncode, done.stdout) == (0, BODY + b"|200")
        server.shutdown()


if __name__ == "__main__":
    accepted = by_curl([odd.raw for odd in ODD_RESPONSES])
    for odd, by in zip(ODD_RESPONSES, accepted, strict=True):
        note = "" if ("curl" in odd.accepted_by) is by else "curl differs"
        print(f"{odd.name:45} {odd.accepted_by:15} {note}")

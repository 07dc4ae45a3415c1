"""Shapes of HTTP responses, and what curl 7.88 and our client make of each.

An outcome is "image" (status and bytes were taken as the image), the status of an error page, or why there
was neither: the exit code of curl, the status of the link of ours. Where the two differ in substance, `why`
says for what reason; test_response_shapes.py holds both sides to the table. Of the options of curl only
`--compressed` changes what is compared; it is on for compressed bodies, because the client decodes them.

python -m tests.download.shape_server        prints the table, and where the curl that is installed differs
"""

import gzip
import zlib
from dataclasses import dataclass

from tests.download.hostile import noise_image

BODY = noise_image(size=(24, 16))
ELSEWHERE = b"/to/gr%F6%DFe"  # where redirects lead to: an image, at no other path

AMBIGUOUS = "the end of the body would be a guess"
BROWSERS = "browsers take it, and there is no doubt where the body ends"
OVERRIDDEN = "RFC 9112, 6.3: chunks override the length"
OPTED_OUT = "an owner's wish"
PADDING = "what follows the compressed data is padding; browsers ignore it"
RANGES = (b"Bytes 0-%d/%d", b"bytes=0-%d/%d", b"0-%d/%d", b"bytes 0 - %d / %d")
WHOLE = "the compressed data have their own end"
UNASKED = "a wrong label is an error for curl; the first bytes say what it is"


@dataclass(frozen=True, slots=True)
class Shape:
    """A response; `held`: the server keeps the connection open after it.

    Where curl does not see the end of the body and would wait, the server closes its connection
    (`waits`), so that no test has to wait for a time limit.
    """

    name: str
    raw: bytes
    curl: str = "image"
    ours: str = "image"
    why: str = ""
    compressed: bool = False
    held: bool = False
    waits: bool = False

    @property
    def differs(self) -> bool:
        if self.curl.startswith("exit"):
            return self.ours not in ("bad_response", "too_many_redirects", "url_invalid", "timeout")
        return self.curl != self.ours


def head(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((first, *lines)) + b"\r\n\r\n"


def length(body: bytes = BODY) -> bytes:
    return b"Content-Length: %d" % len(body)


def sized(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", body: bytes = BODY) -> bytes:
    return head(*lines, length(body), first=first) + body


def chunks(body: bytes = BODY, last: bytes = b"0\r\n\r\n") -> bytes:
    half = len(body) // 2
    parts = (body[:half], body[half:])
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + last


def chunked(*lines: bytes, body: bytes | None = None, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    framed = chunks() if body is None else body
    return head(*lines, b"Transfer-Encoding: chunked", first=first) + framed


def status(line: bytes) -> bytes:
    return sized(first=b"HTTP/1.1 " + line)


def redirect(location: bytes, *lines: bytes, code: bytes = b"302 Found") -> bytes:
    return head(b"Location: " + location, *lines, b"Content-Length: 0", first=b"HTTP/1.1 " + code)


def to_unusual_port(name: str, port: int) -> Shape:
    return Shape(
        name,
        redirect(b"http://b.shapes.example:%d" % port + ELSEWHERE),
        ours="port_refused",
        why="only the usual ports are connected to",
    )


def coded(label: bytes, body: bytes, *lines: bytes) -> bytes:
    return sized(b"Content-Encoding: " + label, *lines, body=body)


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


ONE = b"%x\r\n%b" % (len(BODY), BODY)  # a chunk without its line end
ZIPPED = gzip.compress(BODY)
TWICE = gzip.compress(ZIPPED)
NAMED = ZIPPED[:3] + b"\x08" + ZIPPED[4:10] + b"a.jpg\0" + ZIPPED[10:]  # RFC 1952: a flag, and the name

STATUS_LINE = [
    Shape("no reason phrase, no space", status(b"200")),
    Shape("no reason phrase", status(b"200 ")),
    Shape("reason phrase in Latin-1", status(b"200 D\xe9j\xe0")),
    Shape("form feed before the reason", status(b"200\x0cOK")),
    Shape("dot behind the status", status(b"200.5 OK")),
    Shape("sign before the status", status(b"+200 OK"), "exit 1", "bad_response"),
    Shape("status that begins with 0", status(b"099 OK"), "exit 1", "bad_response"),
    Shape("version 1.10", sized(first=b"HTTP/1.10 200 OK"), "exit 1", "bad_response"),
    Shape("HTTPS", sized(first=b"HTTPS/1.1 200 OK"), "exit 1", "bad_response"),
    Shape("byte order mark", b"\xef\xbb\xbf" + sized(), "exit 1", "bad_response"),
    Shape("two spaces before the status", status(b" 200 OK")),
    Shape("two spaces before the reason", status(b"200  OK")),
    Shape("tab before the status", sized(first=b"HTTP/1.1\t200 OK"), "exit 1", "bad_response"),
    Shape("no space before the reason", status(b"200OK")),
    Shape("control byte in the reason", status(b"200 O\x01K")),
    Shape("NUL in the reason", status(b"200 O\0K"), "exit 8", "bad_response"),
    Shape("lower case http", sized(first=b"http/1.1 200 OK")),
    Shape("version 1.2", sized(first=b"HTTP/1.2 200 OK"), "exit 1", why=BROWSERS),
    Shape("version 2.0", sized(first=b"HTTP/2.0 200 OK")),
    Shape(
        "version 2",
        sized(first=b"HTTP/2 200 OK"),
        ours="bad_response",
        why="the beginning of another protocol",
    ),
    Shape("version 1", sized(first=b"HTTP/1 200 OK"), "exit 1", "bad_response"),
    Shape("version 0.9", sized(first=b"HTTP/0.9 200 OK"), "exit 1", why=BROWSERS),
    Shape("version 11", sized(first=b"HTTP/11 200 OK"), "exit 1", "bad_response"),
    Shape("ICY", sized(first=b"ICY 200 OK"), "exit 1", "bad_response"),
    Shape("status of two digits", status(b"20 OK"), "exit 1", "bad_response"),
    Shape("status of four digits", status(b"2000 OK"), "exit 1", "bad_response"),
    Shape("empty line before the status line", b"\r\n" + sized(), "exit 1", why=BROWSERS),
    Shape("no status line at all", BODY, "exit 1", "bad_response"),
    Shape("nothing", b"", "exit 52", "bad_response"),
    Shape(
        "head that is cut off", head(length())[:30], "other bytes", "bad_response", "half a head has no body"
    ),
]
LINES = [
    Shape("bare line feeds", head(length()).replace(b"\r\n", b"\n") + BODY),
    Shape("line feeds mixed with CRLF", head(b"A: 1\nB: 2", length()) + BODY),
    Shape("bare carriage return in a value", sized(b"A: 1\r2")),
    Shape("head that ends in LF CRLF", head(length())[:-4] + b"\n\r\n" + BODY),
    Shape("head that ends in CRLF LF", head(length())[:-2] + b"\n" + BODY),
    Shape("no headers", head() + BODY),
    Shape("line without a colon", sized(b"Server nginx"), "exit 8", why=BROWSERS),
    Shape("HTML in the head", sized(b"<!-- cached -->"), "exit 8", why=BROWSERS),
    Shape("PHP warning in the head", sized(b"Warning: Cannot modify header information")),
    Shape("NUL in a name", sized(b"X\0A: 1"), "exit 8", why="the name says nothing of the body"),
    Shape("1000 headers", sized(*(b"X-A: %d" % n for n in range(1_000)))),
    Shape("empty name", sized(b": value")),
    Shape("space before the colon", sized(b"Server : nginx")),
    Shape("space in the name", sized(b"Powered By: PHP")),
    Shape("name in UTF-8", sized("Gr\u00f6\u00dfe: 1".encode())),
    Shape("name with a slash", sized(b"image/type: jpeg")),
    Shape("name with brackets", sized(b"X[a]: 1")),
    Shape("quoted name", sized(b'"X-A": 1')),
    Shape("value in UTF-8", sized("X-A: /gr\u00f6\u00dfe".encode())),
    Shape("no value", sized(b"X-A:")),
    Shape("NUL in a value", sized(b"X-A: a\0b"), "exit 8", why="the value says nothing of the body"),
    Shape("control byte in a value", sized(b"X-A: a\x01b")),
    Shape("folded line", sized(b"X-A: 1", b"  2")),
    Shape("folded line first", sized(b"  2"), "exit 8", why=BROWSERS),
    Shape("line of blanks", sized(b"X-A: 1", b"   ")),
    Shape("the status line twice", sized(b"HTTP/1.1 200 OK"), "exit 8", why=BROWSERS),
    Shape("head of 60 kB", sized(b"X-A: " + b"a" * 60_000)),
    Shape("head of 90 kB", sized(b"X-A: " + b"a" * 90_000), ours="bad_response", why="our limit is 64 KiB"),
    Shape("100 Set-Cookie lines", sized(*(b"Set-Cookie: a=%d" % n for n in range(100)))),
]
LENGTH = [
    Shape(
        "space before the colon of Content-Length",
        head(b"Content-Length : %d" % len(BODY)) + BODY,
        held=True,
        waits=True,
    ),
    Shape("tab before the colon", head(b"Content-Length\t: %d" % len(BODY)) + BODY, held=True, waits=True),
    Shape("content-length in lower case", head(b"content-length:%d" % len(BODY)) + BODY, held=True),
    Shape("Content-Length twice", head(length(), length()) + BODY, held=True),
    Shape("Content-Length as a list", head(length() + b", %d" % len(BODY)) + BODY, held=True),
    Shape(
        "two different Content-Lengths",
        head(length(), b"Content-Length: 5") + BODY,
        "other bytes",
        "bad_response",
        AMBIGUOUS,
    ),
    Shape("Content-Length with a sign", head(b"Content-Length: +%d" % len(BODY)) + BODY, held=True),
    Shape("negative Content-Length", head(b"Content-Length: -1") + BODY, "exit 8", "bad_response"),
    Shape("empty Content-Length", head(b"Content-Length:") + BODY, "exit 8", why=BROWSERS),
    Shape("Content-Length in words", head(b"Content-Length: many") + BODY, "exit 8", "bad_response"),
    Shape("Content-Length with a unit", head(length() + b" bytes") + BODY, held=True),
    Shape("Content-Length with decimals", head(length() + b".0") + BODY, held=True),
    Shape("Content-Length with a semicolon", head(length() + b"; a=b") + BODY, held=True),
    Shape("Content-Length with a comma", head(length() + b",") + BODY, held=True),
    Shape("Content-Length in quotes", head(b'Content-Length: "20"') + BODY, "exit 8", "bad_response"),
    Shape(
        "Content-Length in hexadecimal",
        head(b"Content-Length: 0x350") + BODY,
        "other bytes",
        "bad_response",
        AMBIGUOUS,
    ),
    Shape(
        "Content-Length in a folded line",
        head(b"Content-Length:", b" %d" % len(BODY)) + BODY,
        "exit 8",
        held=True,
        why=BROWSERS,
    ),
    Shape("Connection: Close", sized(b"Connection: Close"), held=True),
    Shape("Content-Length with zeros", head(b"Content-Length: 00%d" % len(BODY)) + BODY, held=True),
    Shape(
        "Content-Length of 19 digits",
        head(b"Content-Length: 9999999999999999999") + BODY,
        ours="bad_response",
        why=AMBIGUOUS,
    ),
    Shape("Content-Length that is too short", sized() + b"\r\n", held=True),
    Shape("Content-Length that is too long", head(length(BODY + b".")) + BODY, "exit 18", "bad_response"),
    Shape("no body, closed", head(length()), "exit 18", "bad_response"),
    Shape("neither length nor chunks", head(b"Content-Type: image/jpeg") + BODY),
    Shape("keep-alive without a length", head(b"Connection: keep-alive") + BODY),
    Shape("HTTP/1.0 until the end", head(first=b"HTTP/1.0 200 OK") + BODY),
    Shape("HTTP/1.0 with keep-alive", sized(b"Connection: keep-alive", first=b"HTTP/1.0 200 OK"), held=True),
    Shape("length and chunks", chunked(b"Content-Length: 20"), held=True),
    Shape("a second response behind the first", sized() + sized(), held=True),
]
TRANSFER = [
    Shape("identity", sized(b"Transfer-Encoding: identity"), held=True, waits=True),
    Shape("identity without a length", head(b"Transfer-Encoding: identity") + BODY),
    Shape("empty", sized(b"Transfer-Encoding:"), held=True, waits=True),
    Shape("Chunked", head(b"Transfer-Encoding: Chunked") + chunks(), held=True),
    Shape("chunked in HTTP/1.0", chunked(first=b"HTTP/1.0 200 OK")),
    Shape("chunked twice", chunked(b"Transfer-Encoding: chunked"), held=True),
    Shape("chunked behind a comma", head(b"Transfer-Encoding: ,chunked") + chunks(), held=True),
    Shape(
        "unknown, chunked",
        head(b"Transfer-Encoding: br, chunked") + chunks(),
        "exit 61",
        held=True,
        why=UNASKED,
    ),
    Shape("chunked, chunked", head(b"Transfer-Encoding: chunked, chunked") + chunks(), held=True),
    Shape("chunked, identity", head(b"Transfer-Encoding: chunked, identity") + chunks(), held=True),
    Shape(
        "chunked with a parameter",
        head(b"Transfer-Encoding: chunked;q=1") + chunks(),
        "exit 61",
        held=True,
        why=BROWSERS,
    ),
    Shape(
        "space before the colon",
        head(b"Transfer-Encoding : chunked") + chunks(),
        "other bytes",
        held=True,
        waits=True,
        why=BROWSERS,
    ),
    Shape("gzip, chunked", head(b"Transfer-Encoding: gzip, chunked") + chunks(ZIPPED), held=True),
    Shape("gzip", head(b"Transfer-Encoding: gzip") + ZIPPED),
    Shape("gzip and the length without it", head(b"Transfer-Encoding: gzip", length(BODY)) + ZIPPED),
    Shape("gzip and a length", head(b"Transfer-Encoding: gzip", length(ZIPPED[:9])) + ZIPPED),
    Shape(
        "gzip, chunked and a length",
        head(b"Transfer-Encoding: gzip, chunked", length(BODY)) + chunks(ZIPPED),
        held=True,
    ),
    Shape("gzip of what is not", sized(b"Transfer-Encoding: gzip"), "exit 61", why=UNASKED),
    Shape("unknown", sized(b"Transfer-Encoding: binary"), "exit 61", why=BROWSERS),
    Shape("unknown, kept open", sized(b"Transfer-Encoding: binary"), "exit 61", held=True, why=BROWSERS),
    Shape("announced as chunked, but plain", chunked(body=BODY), "exit 56", "bad_response"),
]
CHUNKS = [
    Shape(
        "sizes in upper case with zeros",
        chunked(body=b"0000%X\r\n%b\r\n000\r\n\r\n" % (len(BODY), BODY)),
        held=True,
    ),
    Shape("extension", chunked(body=ONE.replace(b"\r\n", b";a=b\r\n", 1) + b"\r\n0\r\n\r\n"), held=True),
    Shape(
        "blanks behind the size",
        chunked(body=ONE.replace(b"\r\n", b"  \r\n", 1) + b"\r\n0\r\n\r\n"),
        held=True,
    ),
    Shape("blank before the size", chunked(body=b" " + ONE + b"\r\n0\r\n\r\n"), "exit 56", "bad_response"),
    Shape(
        "word behind the size",
        chunked(body=ONE.replace(b"\r\n", b" a\r\n", 1) + b"\r\n0\r\n\r\n"),
        ours="bad_response",
        why="browsers refuse it",
    ),
    Shape(
        "h behind the size",
        chunked(body=ONE.replace(b"\r\n", b"h\r\n", 1) + b"\r\n0\r\n\r\n"),
        ours="bad_response",
        why="browsers refuse it",
    ),
    Shape("empty line before the size", chunked(body=b"\r\n" + ONE), "exit 56", "bad_response"),
    Shape("extension of the last chunk", chunked(body=ONE + b"\r\n0;a\r\n\r\n"), held=True),
    Shape("0x before the size", chunked(body=b"0x" + ONE + b"\r\n0\r\n\r\n"), "exit 43", "bad_response"),
    Shape("negative size", chunked(body=b"-" + ONE + b"\r\n0\r\n\r\n"), "exit 56", "bad_response"),
    Shape(
        "size of 17 digits",
        chunked(body=b"0" * 16 + ONE + b"\r\n0\r\n\r\n"),
        "exit 56",
        why="zeros change nothing",
    ),
    Shape("lines that end in LF", chunked(body=b"%x\n%b\n0\n\n" % (len(BODY), BODY)), held=True),
    Shape("trailers", chunked(body=ONE + b"\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n"), held=True),
    Shape(
        "broken trailer", chunked(body=ONE + b"\r\n0\r\nno colon\r\n\r\n"), "exit 43", why=BROWSERS, held=True
    ),
    Shape("last chunk, then the end", chunked(body=ONE + b"\r\n0\r\n"), "exit 18", why=BROWSERS),
    Shape("last chunk without a line end", chunked(body=ONE + b"\r\n0"), "exit 18", "bad_response"),
    Shape("cut off in the trailers", chunked(body=ONE + b"\r\n0\r\nX-A: 1\r\n"), "exit 18", why=BROWSERS),
    Shape("no last chunk", chunked(body=ONE + b"\r\n"), "exit 18", "bad_response"),
    Shape("cut off in a chunk", chunked(body=ONE[:-1]), "exit 18", "bad_response"),
    Shape("no line end behind a chunk", chunked(body=ONE + b"0\r\n\r\n"), "exit 56", "bad_response"),
    Shape("more behind the last chunk", chunked() + b"more", held=True),
]
CHUNKS += [
    Shape("last size of many zeros", chunked(body=ONE + b"\r\n00000\r\n\r\n"), held=True),
    Shape(
        "quoted semicolon in an extension",
        chunked(body=ONE.replace(b"\r\n", b';a="b;c"\r\n', 1) + b"\r\n0\r\n\r\n"),
        held=True,
    ),
    Shape(
        "semicolon and no extension",
        chunked(body=ONE.replace(b"\r\n", b";\r\n", 1) + b"\r\n0\r\n\r\n"),
        held=True,
    ),
    Shape(
        "tab behind the size",
        chunked(body=ONE.replace(b"\r\n", b"\t\r\n", 1) + b"\r\n0\r\n\r\n"),
        held=True,
    ),
    Shape(
        "extension of 20 kB",
        chunked(body=ONE.replace(b"\r\n", b";" + b"a" * 20_000 + b"\r\n", 1) + b"\r\n0\r\n\r\n"),
        held=True,
    ),
    Shape(
        "empty chunk in front",
        chunked(body=b"0\r\n\r\n" + ONE + b"\r\n0\r\n\r\n"),
        held=True,
        curl="other bytes",
        ours="too_few_bytes",
        why="there is no body",
    ),
    Shape("plus before the size", chunked(body=b"+" + ONE + b"\r\n0\r\n\r\n"), "exit 56", "bad_response"),
    Shape(
        "size line that ends in CR",
        chunked(body=ONE.replace(b"\r\n", b"\r", 1) + b"\r\n0\r\n\r\n"),
        "exit 18",
        "bad_response",
    ),
    Shape("folded trailer", chunked(body=ONE + b"\r\n0\r\nX-A: 1\r\n 2\r\n\r\n"), held=True),
    Shape("trailer with a length", chunked(body=ONE + b"\r\n0\r\nContent-Length: 3\r\n\r\n"), held=True),
    *(
        Shape(
            f"{line!r} in the trailers",
            chunked(body=ONE + b"\r\n0\r\nX-A: 1\r\n" + line + b"\r\n\r\n"),
            ours=ours,
            why=OPTED_OUT,
            held=True,
        )
        for line, ours in (
            (b"X-Robots-Tag: noai", "opted_out_robots_tag"),
            (b"x-robots-tag:noimageai", "opted_out_robots_tag"),
            (b"X-Robots-Tag: all,\r\n noai", "opted_out_robots_tag"),
            (b"TDM-Reservation: 1", "opted_out_tdm"),
            (b"Content-Usage: train-ai=n", "opted_out_tdm"),
        )
    ),
    Shape(
        "X-Robots-Tag: all in a trailer", chunked(body=ONE + b"\r\n0\r\nX-Robots-Tag: all\r\n\r\n"), held=True
    ),
    Shape("chunks of one byte", chunked(body=b"".join(b"1\r\n%c\r\n" % one for one in BODY) + b"0\r\n\r\n")),
]
LINES += [
    Shape("value folded with a tab", sized(b"A: 1", b"\t2")),
    Shape("folded lines that end in LF", sized(b"A: 1\n 2\n 3")),
    Shape("reason phrase of 8 kB", status(b"200 " + b"O" * 8_000)),
    Shape("reason phrase in lower case with a colon", status(b"200 ok: fine")),
]
LENGTH += [
    Shape("Content-Length twice, in two spellings", sized(b"content-LENGTH: %d" % len(BODY)), held=True),
    Shape(
        "Content-Length with folded digits", head(b"Content-Length: %d" % len(BODY), b" 0") + BODY, held=True
    ),
    Shape(
        "Content-Length and an empty one", sized(b"Content-Length:"), held=True, curl="exit 8", why=BROWSERS
    ),
]
TRANSFER += [
    Shape(
        "chunked in a folded line",
        head(b"Transfer-Encoding:", b" chunked") + chunks(),
        curl="other bytes",
        why=BROWSERS,
    ),
    Shape("CHUNKED in capitals", head(b"TRANSFER-ENCODING: CHUNKED") + chunks(), held=True),
    Shape("empty header and chunked", chunked(b"Transfer-Encoding:"), held=True),
]
CODING = [
    *(
        Shape(f"Content-Encoding: {label!r}", coded(label, BODY), held=True)
        for label in (
            b"none",
            b"utf-8",
            b"UTF-8",
            b"binary",
            b"aws-chunked",
            b"image/jpeg",
            b"identity",
            b"",
            b"null",
            b"7bit",
            b"base64",
            b"chunked",
            b"none, utf-8",
            b"compress",
        )
    ),
    Shape("unknown coding, chunked", chunked(b"Content-Encoding: none"), held=True),
    Shape("gzip", coded(b"gzip", ZIPPED), compressed=True, held=True),
    Shape("GZIP", coded(b"GZIP", ZIPPED), compressed=True, held=True),
    Shape("x-gzip", coded(b"x-gzip", ZIPPED), compressed=True, held=True),
    Shape(
        "gzip, chunked", chunked(b"Content-Encoding: gzip", body=chunks(ZIPPED)), compressed=True, held=True
    ),
    Shape("gzip until the end", head(b"Content-Encoding: gzip") + ZIPPED, compressed=True),
    Shape(
        "gzip, then zero bytes", coded(b"gzip", ZIPPED + bytes(512)), "exit 23", why=PADDING, compressed=True
    ),
    Shape(
        "gzip, then one zero byte", coded(b"gzip", ZIPPED + b"\0"), "exit 23", why=PADDING, compressed=True
    ),
    Shape("gzip, then a line end", coded(b"gzip", ZIPPED + b"\r\n"), "exit 23", why=PADDING, compressed=True),
    Shape(
        "gzip of two members",
        coded(b"gzip", gzip.compress(BODY[:99]) + gzip.compress(BODY[99:])),
        "exit 23",
        why="RFC 1952, 2.2: the members follow each other",
        compressed=True,
    ),
    *(
        Shape(
            f"gzip, then a member with {fault}",
            coded(b"gzip", ZIPPED + member),
            "exit 23",
            why=PADDING,
            compressed=True,
        )
        for fault, member in {
            "a wrong checksum": gzip.compress(b"a")[:-8] + bytes(8),
            "broken data": ZIPPED[:10] + b"\xff" * 99,
            "a broken head": b"\x1f\x8b\x07" + bytes(20),
            "a reserved flag": b"\x1f\x8b\x08\xff" + bytes(20),
        }.items()
    ),
    Shape("gzip twice", coded(b"gzip, gzip", TWICE), compressed=True),
    Shape("gzip in two headers", coded(b"gzip", TWICE, b"Content-Encoding: gzip"), compressed=True),
    Shape("gzip, identity", coded(b"gzip, identity", ZIPPED), compressed=True),
    Shape("aws-chunked, gzip", coded(b"aws-chunked, gzip", ZIPPED), "exit 61", why=UNASKED, compressed=True),
    *(
        Shape(
            f"gzip under a length of {more} more",
            head(b"Content-Encoding: gzip", length(ZIPPED + bytes(more))) + ZIPPED,
            "exit 18",
            why=WHOLE,
            compressed=True,
        )
        for more in (1, 5_000)
    ),
    Shape(
        "gzip in chunks without the last one",
        head(b"Content-Encoding: gzip", b"Transfer-Encoding: chunked") + chunks(ZIPPED, last=b""),
        "exit 18",
        why=WHOLE,
        compressed=True,
    ),
    Shape(
        "half of the gzip under its length",
        head(b"Content-Encoding: gzip", length(ZIPPED)) + ZIPPED[: len(ZIPPED) // 2],
        "exit 18",
        "bad_response",
        compressed=True,
    ),
    Shape("gzip without its last bytes", coded(b"gzip", ZIPPED[:-8]), compressed=True),
    Shape(
        "gzip with a wrong checksum",
        coded(b"gzip", ZIPPED[:-8] + bytes(8)),
        "exit 61",
        "bad_response",
        compressed=True,
    ),
    Shape(
        "broken gzip", coded(b"gzip", ZIPPED[:20] + bytes(500)), "exit 61", "bad_response", compressed=True
    ),
    Shape("gzip of what is not", coded(b"gzip", BODY), "exit 61", why=UNASKED, compressed=True),
    Shape("deflate", coded(b"deflate", zlib.compress(BODY)), compressed=True, held=True),
    Shape("raw deflate", coded(b"deflate", raw_deflate(BODY)), compressed=True, held=True),
    Shape(
        "deflate, then zero bytes",
        coded(b"deflate", zlib.compress(BODY) + bytes(9)),
        "exit 23",
        why=PADDING,
        compressed=True,
    ),
    Shape("gzip labelled as deflate", coded(b"deflate", ZIPPED), "exit 61", why=UNASKED, compressed=True),
    Shape("deflate labelled as gzip", coded(b"gzip", zlib.compress(BODY)), compressed=True),
    Shape("deflate of what is not", coded(b"deflate", BODY), "exit 61", why=UNASKED, compressed=True),
    *(
        Shape(f"{label.decode()} of what is not", coded(label, BODY), "exit 61", why=UNASKED, compressed=True)
        for label in (b"br", b"zstd", b"gzip, br", b"br, gzip")
    ),
    *(
        Shape(f"{label.decode()} of what is not, not asked for", coded(label, BODY), held=True)
        for label in (b"br", b"zstd", b"BR", b"dcb", b"br, gzip")
    ),
    Shape("br of what is not, chunked", chunked(b"Content-Encoding: br"), held=True),
    Shape(
        "zstd",
        coded(b"zstd", bytes.fromhex("28b52ffd") + BODY),
        "other bytes",
        "bad_response",
        "only what was asked for could be expected to be decoded",
    ),
    Shape(
        "bytes that may be br",
        coded(b"br", b"\x0b\x02\x80" + BODY),
        "exit 61",
        "bad_response",
        compressed=True,
    ),
]
CODING += [
    Shape(
        "gzip with a parameter",
        coded(b"gzip;q=1", ZIPPED),
        compressed=True,
        held=True,
        curl="exit 61",
        why="the first bytes say what it is",
    ),
    Shape("gzip and a comma", coded(b"gzip,", ZIPPED), compressed=True, held=True),
    Shape(
        "gzip in a folded line",
        sized(b"Content-Encoding:", b" gzip", body=ZIPPED),
        compressed=True,
        curl="other bytes",
        why=BROWSERS,
    ),
    Shape("gzip with a file name", coded(b"gzip", NAMED), compressed=True, held=True),
    Shape(
        "gzip twice under one name",
        coded(b"gzip", TWICE),
        "other bytes",
        "not_an_image",
        "inflated once it is not an image",
        True,
    ),
    Shape(
        "x-deflate",
        coded(b"x-deflate", zlib.compress(BODY)),
        compressed=True,
        curl="exit 61",
        why=UNASKED,
    ),
    Shape(
        "gzip three times",
        coded(b"gzip, gzip, gzip", gzip.compress(TWICE)),
        compressed=True,
        ours="bad_response",
        why="nothing but a bomb is compressed so often",
    ),
    Shape(
        "raw deflate, then zero bytes",
        coded(b"deflate", raw_deflate(BODY) + bytes(9)),
        compressed=True,
        curl="exit 23",
        why=PADDING,
    ),
]
STATUS = [
    Shape("201", status(b"201 Created")),
    Shape("202", status(b"202 Accepted")),
    Shape("203", status(b"203 Transformed")),
    Shape("204", head(first=b"HTTP/1.1 204 No Content"), "204", "204", held=True),
    Shape("206 without a range", status(b"206 Partial Content"), ours="206", why="it may be a part"),
    Shape(
        "206 of all",
        sized(
            b"Content-Range: bytes 0-%d/%d" % (len(BODY) - 1, len(BODY)),
            first=b"HTTP/1.1 206 Partial Content",
        ),
    ),
    Shape(
        "206 of a part",
        sized(b"Content-Range: bytes 0-%d/99999" % (len(BODY) - 1), first=b"HTTP/1.1 206 Partial Content"),
        ours="206",
        why="it is a part",
    ),
    Shape("204 with a body", sized(first=b"HTTP/1.1 204 No"), "204", "204", held=True),
    Shape("204 in chunks", chunked(first=b"HTTP/1.1 204 No"), "204", "204", held=True),
    Shape(
        "205 with a body", sized(first=b"HTTP/1.1 205 Reset"), ours="205", why="it has no content by RFC 9110"
    ),
    Shape("226", status(b"226 IM Used")),
    *(
        Shape(
            f"206 of all, {range_!r}",
            sized(b"Content-Range: " + range_, first=b"HTTP/1.1 206 Partial Content"),
        )
        for range_ in (template % (len(BODY) - 1, len(BODY)) for template in RANGES)
    ),
    Shape(
        "206 of what may be all",
        sized(b"Content-Range: bytes 0-%d/*" % (len(BODY) - 1), first=b"HTTP/1.1 206 Partial Content"),
        ours="206",
        why="it may be a part",
    ),
    Shape("304 in chunks", chunked(first=b"HTTP/1.1 304 Not Modified"), "304", "304", held=True),
    Shape("304", head(b"Content-Length: 9", first=b"HTTP/1.1 304 Not Modified"), "304", "304", held=True),
    Shape("404", status(b"404 Not Found"), "404", "404"),
    Shape("404 that is cut off", status(b"404 Not Found")[:-9], "exit 18", "404", why="the status says all"),
    Shape(
        "404 with broken chunks",
        chunked(first=b"HTTP/1.1 404 No", body=b"z"),
        "exit 56",
        "404",
        why="the status says all",
    ),
    Shape("503", status(b"503 Unavailable"), "503", "503"),
    Shape("999", status(b"999 Denied"), "999", "999"),
    Shape("100 Continue", head(first=b"HTTP/1.1 100 Continue") + sized(), held=True),
    Shape("100 Continue three times", head(first=b"HTTP/1.1 100 Continue") * 3 + sized()),
    Shape(
        "100 with a length", head(b"Content-Length: 0", first=b"HTTP/1.1 100 Continue") + sized(), held=True
    ),
    Shape(
        "100 with a body",
        head(b"Content-Length: 5", first=b"HTTP/1.1 100 Continue") + b"hello" + sized(),
        "exit 1",
        "bad_response",
    ),
    Shape("100 a thousand times", head(first=b"HTTP/1.1 100 Continue") * 1_000 + sized()),
    Shape("100 and no more", head(first=b"HTTP/1.1 100 Continue"), "exit 52", "bad_response"),
    Shape("199", head(first=b"HTTP/1.1 199 Wait") + sized()),
    Shape("100 in HTTP/1.0", head(first=b"HTTP/1.0 100 Continue") + sized()),
    Shape("103 with noai, then 200", head(b"X-Robots-Tag: noai", first=b"HTTP/1.1 103 Hints") + sized()),
    Shape("103 with headers", head(b"Link: </a>", first=b"HTTP/1.1 103 Early Hints") + sized()),
    Shape(
        "101", status(b"101 Switching Protocols"), "101", "bad_response", why="we asked for no other protocol"
    ),
    Shape("noai", sized(b"X-Robots-Tag: noai"), ours="opted_out_robots_tag", why=OPTED_OUT),
    Shape(
        "noai with a space before the colon",
        sized(b"X-Robots-Tag : noai"),
        ours="opted_out_robots_tag",
        why=OPTED_OUT,
    ),
    Shape("tdm-reservation", sized(b"tdm-reservation: 1"), ours="opted_out_tdm", why=OPTED_OUT),
]
STATUS += [
    Shape("102, then 200", head(first=b"HTTP/1.1 102 Processing") + sized(), held=True),
    Shape("100, then 103", head(first=b"HTTP/1.1 100 C") + head(first=b"HTTP/1.1 103 Hints") + sized()),
    Shape("103 in chunks", head(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 103 Hints") + sized()),
    Shape("100 without a reason in LF", b"HTTP/1.1 100\n\n" + sized()),
    Shape("100 in front of a redirect", head(first=b"HTTP/1.1 100 C") + redirect(ELSEWHERE)),
    Shape("103 with a Location", head(b"Location: /gone", first=b"HTTP/1.1 103 Hints") + sized()),
    Shape("Refresh of an image", sized(b"Refresh: 0; url=/gone"), held=True),
]
REDIRECTS = [
    Shape("absolute path", redirect(ELSEWHERE)),
    Shape("relative path", redirect(ELSEWHERE.lstrip(b"/"))),
    Shape("no path", redirect(b"//b.shapes.example" + ELSEWHERE)),
    Shape("scheme in upper case", redirect(b"HTTP://b.shapes.example" + ELSEWHERE)),
    Shape("Location in Latin-1", redirect(b"/to/gr\xf6\xdfe")),
    Shape("Location in GBK", redirect("/to/\u56fe".encode("gbk"))),
    Shape("Location in UTF-8", redirect("/to/\u56fe".encode())),
    Shape("query in Latin-1", redirect(ELSEWHERE + b"?\xe9")),
    Shape("blanks around it", redirect(b"  " + ELSEWHERE + b" \t")),
    Shape("fragment", redirect(ELSEWHERE + b"#top")),
    Shape("dots in the path", redirect(b"/a/../." + ELSEWHERE)),
    Shape("301", redirect(ELSEWHERE, code=b"301 Moved")),
    Shape("308", redirect(ELSEWHERE, code=b"308 Moved")),
    Shape("302 with a body", head(b"Location: " + ELSEWHERE, length(), first=b"HTTP/1.1 302 Found") + BODY),
    Shape(
        "302 with a body that is cut off", head(b"Location: " + ELSEWHERE, length(), first=b"HTTP/1.1 302 F")
    ),
    Shape("302 until the end", head(b"Location: " + ELSEWHERE, first=b"HTTP/1.1 302 Found") + BODY),
    Shape("two Locations", redirect(ELSEWHERE, b"Location: /gone")),
    Shape("no Location", head(b"Content-Length: 0", first=b"HTTP/1.1 302 Found"), "302", "302"),
    Shape(
        "space before the colon",
        head(b"Location : " + ELSEWHERE, b"Content-Length: 0", first=b"HTTP/1.1 302 Found"),
        "302",
        why=BROWSERS,
    ),
    Shape(
        "folded line",
        head(b"Location:", b" " + ELSEWHERE, b"Content-Length: 0", first=b"HTTP/1.1 302 Found"),
        "302",
        why=BROWSERS,
    ),
    Shape("backslashes", redirect(ELSEWHERE.replace(b"/", b"\\")), "404", why=BROWSERS),
    Shape("tab in the path", redirect(ELSEWHERE[:5] + b"\t" + ELSEWHERE[5:]), "exit 3", why=BROWSERS),
    Shape("encoded dots", redirect(b"/to/x/%2e%2e/" + ELSEWHERE.removeprefix(b"/to/")), "404", why=BROWSERS),
    Shape("scheme without a host", redirect(b"http:" + ELSEWHERE), "404", why=BROWSERS),
    Shape("three slashes", redirect(b"http:///b.shapes.example" + ELSEWHERE)),
    Shape("port without digits", redirect(b"http://b.shapes.example:" + ELSEWHERE)),
    Shape("underscore in the host", redirect(b"http://b_c.shapes.example" + ELSEWHERE)),
    Shape("host in UTF-8", redirect("http://b\u00fc.shapes.example".encode() + ELSEWHERE)),
    Shape("encoded host", redirect(b"http://%62.shapes.example" + ELSEWHERE)),
    Shape("Location in quotes", redirect(b'"' + ELSEWHERE + b'"'), "404", "404"),
    Shape(
        "302 with broken chunks",
        head(b"Location: " + ELSEWHERE, b"Transfer-Encoding: chunked", first=b"HTTP/1.1 302 Found") + b"z",
        "exit 56",
        why="the Location says all",
    ),
    Shape("305", redirect(ELSEWHERE, code=b"305 Proxy"), ours="305", why="browsers follow no 305"),
    Shape("empty Location", redirect(b""), "302", "302"),
    Shape(
        "304 with a Location",
        redirect(ELSEWHERE, code=b"304 Not Modified"),
        ours="304",
        why="browsers follow no 304",
    ),
    Shape("201 with a Location", sized(b"Location: /gone", first=b"HTTP/1.1 201 Created")),
    Shape(
        "300 with a Location",
        redirect(ELSEWHERE, code=b"300 Choices"),
        why="browsers follow no 300",
        ours="300",
    ),
    Shape(
        "user name",
        redirect(b"http://me:secret@b.shapes.example" + ELSEWHERE),
        ours="url_invalid",
        why="no secrets of others are used",
    ),
    Shape("file", redirect(b"file:///etc/hostname"), "exit 1", "url_invalid"),
    Shape("loop", redirect(b"?"), "exit 47", "too_many_redirects"),
]
REDIRECTS += [
    Shape("303", redirect(ELSEWHERE, code=b"303 See Other")),
    Shape("307", redirect(ELSEWHERE, code=b"307 Moved")),
    to_unusual_port("other port", 8080),
    Shape("port 80", redirect(b"http://b.shapes.example:80" + ELSEWHERE)),
    to_unusual_port("port of ssh", 22),
    to_unusual_port("port 0", 0),
    Shape(
        "port of six digits",
        redirect(b"http://b.shapes.example:100000" + ELSEWHERE),
        curl="exit 3",
        ours="url_invalid",
    ),
    Shape("dot behind the host", redirect(b"http://b.shapes.example." + ELSEWHERE)),
    Shape("empty user name", redirect(b"http://@b.shapes.example" + ELSEWHERE)),
    Shape(
        "Refresh instead of a Location",
        head(b"Refresh: 0; url=" + ELSEWHERE, b"Content-Length: 0"),
        curl="other bytes",
        ours="too_few_bytes",
        why="there is no body",
    ),
    Shape(
        "302 with Refresh only",
        head(b"Refresh: 0; url=" + ELSEWHERE, b"Content-Length: 0", first=b"HTTP/1.1 302 Found"),
        "302",
        "302",
    ),
    Shape("the same Location twice", redirect(ELSEWHERE, b"Location: " + ELSEWHERE)),
    Shape(
        "fragment only",
        redirect(b"#top"),
        curl="404",
        ours="too_many_redirects",
        why="RFC 3986, 5.2.2: the same URL again",
    ),
    Shape("javascript", redirect(b"javascript:alert(1)"), curl="exit 1", ours="url_invalid"),
    Shape("data", redirect(b"data:image/png;base64,AAAA"), curl="exit 1", ours="url_invalid"),
    Shape("fragment with octets", redirect(ELSEWHERE + b"#gr\xf6\xdfe")),
    Shape(
        "private address",
        redirect(b"http://10.0.0.1" + ELSEWHERE),
        ours="address_refused",
        why="private networks are not reached",
    ),
]
STATUS_LINE += [
    Shape("version 1.9", sized(first=b"HTTP/1.9 200 OK"), "exit 1", why=BROWSERS),
    Shape("status 600", status(b"600 Odd"), "600", "600"),
    Shape("five empty lines before the status line", b"\r\n" * 5 + sized(), "exit 1", why=BROWSERS),
]
LINES += [
    Shape("lines that end in CR CR LF", head(b"A: 1", length()).replace(b"\r\n", b"\r\r\n") + BODY),
    Shape("5000 headers of different names", sized(*(b"A%d: b" % n for n in range(5_000)))),
]
LENGTH += [
    Shape(
        "Content-Length of 23 digits with zeros", head(b"Content-Length: %023d" % len(BODY)) + BODY, held=True
    ),
    Shape(
        "Content-Length of a zero and zeros",
        head(b"Content-Length: 000") + BODY,
        "other bytes",
        "too_few_bytes",
        "there is no body",
    ),
    Shape("wrong length and chunks", chunked(b"Content-Length: many"), "exit 8", why=OVERRIDDEN, held=True),
    Shape("negative length and chunks", chunked(b"Content-Length: -1"), "exit 8", why=OVERRIDDEN, held=True),
    Shape("two lengths and chunks", chunked(b"Content-Length: 5", b"Content-Length: 6"), held=True),
    Shape("list of two lengths", head(length() + b", 5") + BODY, ours="bad_response", why=AMBIGUOUS),
]
TRANSFER += [
    Shape(
        "chunked, gzip",
        head(b"Transfer-Encoding: chunked, gzip") + chunks(ZIPPED),
        ours="bad_response",
        why=AMBIGUOUS,
    ),
    Shape(
        "deflate, chunked",
        head(b"Transfer-Encoding: deflate, chunked") + chunks(zlib.compress(BODY)),
        held=True,
    ),
]
CHUNKS += [
    Shape(
        "NUL in an extension", chunked(body=ONE.replace(b"\r\n", b";\0\r\n", 1) + b"\r\n0\r\n\r\n"), held=True
    ),
    Shape(
        "vertical tab behind the size",
        chunked(body=ONE.replace(b"\r\n", b"\x0b\r\n", 1) + b"\r\n0\r\n\r\n"),
        ours="bad_response",
        why="browsers refuse it",
    ),
]
CODING += [
    Shape("identity, gzip", coded(b"identity, gzip", ZIPPED), compressed=True),
    Shape("deflate, gzip", coded(b"deflate, gzip", gzip.compress(raw_deflate(BODY))), compressed=True),
    Shape(
        "gzip, then an empty member",
        coded(b"gzip", ZIPPED + gzip.compress(b"")),
        "exit 23",
        why=PADDING,
        compressed=True,
    ),
]
STATUS += [
    Shape(
        "404 with a wrong length",
        head(b"Content-Length: many", first=b"HTTP/1.1 404 No"),
        "exit 8",
        "404",
        "the status says all",
    ),
    Shape(
        "404 with two lengths",
        head(length(), b"Content-Length: 5", first=b"HTTP/1.1 404 No") + BODY,
        "404",
        "404",
    ),
    Shape(
        "304 with a wrong length",
        head(b"Content-Length: -1", first=b"HTTP/1.1 304 No"),
        "304",
        "304",
    ),
]
REDIRECTS += [
    Shape("empty Location first", redirect(b"", b"Location: " + ELSEWHERE)),
    Shape(
        "302 with a wrong length",
        head(b"Location: " + ELSEWHERE, b"Content-Length: many", first=b"HTTP/1.1 302 Found"),
        "exit 8",
        why="the Location says all",
    ),
    *(
        Shape(
            code.decode(),
            redirect(ELSEWHERE, code=code),
            ours=code[:3].decode(),
            why="browsers do not follow it",
        )
        for code in (b"306 Switch", b"309 Odd")
    ),
    Shape(
        "302 with noai",
        redirect(ELSEWHERE, b"X-Robots-Tag: noai"),
        ours="opted_out_robots_tag",
        why=OPTED_OUT,
    ),
    Shape(
        "host behind backslashes", redirect(b"http:\\\\b.shapes.example" + ELSEWHERE), "exit 3", why=BROWSERS
    ),
    Shape("dots at the beginning", redirect(b"../.." + ELSEWHERE)),
]

SECTIONS = {
    "status line": STATUS_LINE,
    "lines": LINES,
    "length": LENGTH,
    "transfer-encoding": TRANSFER,
    "chunks": CHUNKS,
    "content-encoding": CODING,
    "status": STATUS,
    "redirect": REDIRECTS,
}
SHAPES = {f"{section}: {shape.name}": shape for section, shapes in SECTIONS.items() for shape in shapes}

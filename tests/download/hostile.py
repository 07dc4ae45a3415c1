"""A loopback server that misbehaves by path: raw sockets, one thread per connection."""

import gzip
import io
import socket
import socketserver
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

from PIL import Image

Send = Callable[[bytes], None]
LONGEST_S = 120.0  # for a client that hangs


def noise_image(format_: str = "JPEG", size: tuple[int, int] = (300, 200), **options: object) -> bytes:
    """A noisy image, well over 5,000 bytes."""
    noise = Image.effect_noise(size, 90).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, format_, **options)
    return buffer.getvalue()


GOOD = noise_image()


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def trickle(send: Send, data: bytes, step: int, interval_s: float) -> None:
    end = time.monotonic() + LONGEST_S
    for start in range(0, len(data), step):
        if time.monotonic() > end:
            return
        send(data[start : start + step])
        time.sleep(interval_s)


def forever(send: Send, data: bytes, interval_s: float = 0.0) -> None:
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        send(data)
        time.sleep(interval_s)


def until_closed(sock: socket.socket) -> None:
    """Waits for the client to hang up."""
    sock.recv(1)


def reset(sock: socket.socket) -> None:
    """Closes with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_in_the_body(send: Send, sock: socket.socket) -> None:
    send(ok(GOOD)[:5000])
    time.sleep(0.1)
    reset(sock)


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


def chunked(body: bytes, size: int) -> bytes:
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def missing(send: Send, _: socket.socket) -> None:
    send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("payload.txt", "x" * 200)
    return buffer.getvalue()


def half_closed(send: Send, sock: socket.socket) -> None:
    """Closes its sending side in the middle of the body and stays connected."""
    send(ok(GOOD)[:4_000])
    sock.shutdown(socket.SHUT_WR)
    until_closed(sock)


def bomb(format_: str, side: int = 12_000) -> bytes:
    """Few bytes, 144 million pixels."""
    image = Image.new("1" if format_ in ("PNG", "TIFF") else "L", (side, side))
    buffer = io.BytesIO()
    options = {"TIFF": {"compression": "group4"}, "JPEG": {"quality": 1}}.get(format_, {})
    image.save(buffer, format_, **options)
    return buffer.getvalue()


@cache
def large() -> dict[str, bytes]:
    """What takes long to make, by name; most processes that import this module need none of it."""
    return {
        "png": bomb("PNG"),
        "jpeg": bomb("JPEG"),
        "tiff": bomb("TIFF"),
        "avif": noise_image("AVIF", (800, 800)),
        "gzip": gzip.compress(bytes(100_000_000), 1),
        "deflate": zlib.compress(bytes(100_000_000), 1),
    }


@cache
def large_webp() -> bytes:
    """The header of a WebP of 16,383 x 16,383 pixels; the rest is never read."""
    chunk = b"VP8 " + struct.pack("<I", 9_000) + b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383)
    return b"RIFF" + struct.pack("<I", 9_100) + b"WEBP" + chunk + bytes(9_000)


HEAD = b"HTTP/1.1 200 OK\r\n"
POLYGLOT_HTML = b"<html>" + GOOD  # a browser that sniffs may run it; it does not begin like an image
POLYGLOT_ZIP = GOOD + archive()

ANSWERS: dict[str, Callable[[Send, socket.socket], None]] = {
    "/good": lambda send, _: send(ok(GOOD)),
    "/good-after-early-hints": lambda send, _: send(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(GOOD)
    ),
    "/good-until-close": lambda send, _: send(HEAD + b"\r\n" + GOOD),
    "/good-http-1.0": lambda send, _: send(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD),
    "/good-chunked": lambda send, _: send(chunked(GOOD, 1000)),
    "/good-gzip": lambda send, _: send(ok(gzip.compress(GOOD), "Content-Encoding: gzip")),
    "/good-latin-1-header": lambda send, _: send(ok(GOOD, "X-Name: caf\xe9", "Content-Type: image/\xff")),
    "/good-cookies": lambda send, _: send(
        ok(GOOD, "Set-Cookie: \x7f=;;;=\xff; expires=never", "Set-Cookie: a")
    ),
    "/good-redirect": lambda send, _: send(redirect("/good")),
    "/good-redirect-utf-8": lambda send, _: send(redirect("/good?caf\u00c3\u00a9")),
    "/relative-redirects": lambda send, _: send(redirect("//b.hostile.example/good")),
    "/loop": lambda send, _: send(redirect("/loop")),
    "/to-file": lambda send, _: send(redirect("file:///etc/passwd")),
    "/to-private": lambda send, _: send(redirect("http://10.0.0.8/x.jpg")),
    "/to-metadata": lambda send, _: send(redirect("http://[::ffff:169.254.169.254]/latest")),
    "/to-own-port": lambda send, _: send(redirect("http://127.0.0.1:5432/")),
    "/to-nowhere": lambda send, _: send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
    "/not-modified": lambda send, _: send(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "/missing": lambda send, _: send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"),
    "/noai": lambda send, _: send(ok(GOOD, "X-Robots-Tag: somebot: noai")),
    "/slow-header": lambda send, _: trickle(send, HEAD + b"X: y\r\n" * 500, 2, 0.2),
    "/slow-body": lambda send, _: trickle(send, ok(GOOD), 200, 0.2),
    "/silent": lambda _, sock: until_closed(sock),
    "/endless": lambda send, _: (send(HEAD + b"\r\n" + GOOD), forever(send, bytes(65536)))[0],
    "/endless-chunks": lambda send, _: (
        send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        forever(send, (b"%x\r\n" % len(GOOD)) + GOOD + b"\r\n"),
    )[0],
    "/endless-header": lambda send, _: (send(HEAD), forever(send, b"X-More: of the same\r\n" * 100))[0],
    "/endless-1xx": lambda send, _: forever(send, b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "/long-header-line": lambda send, _: (send(HEAD + b"X: "), forever(send, b"y" * 65536))[0],
    "/announces-too-much": lambda send, _: send(HEAD + b"Content-Length: 99999999999\r\n\r\n" + GOOD),
    "/gzip-bomb": lambda send, _: send(ok(large()["gzip"], "Content-Encoding: gzip")),
    "/broken-gzip": lambda send, _: send(ok(b"\x1f\x8b\x08" + bytes(9000), "Content-Encoding: gzip")),
    "/brotli": lambda send, _: send(ok(b"\x0b\x02\x80" + GOOD, "Content-Encoding: br")),
    "/cut-off": lambda send, _: send(ok(GOOD)[:-1000]),
    "/cut-off-chunk": lambda send, _: send(chunked(GOOD, 1000)[:-500]),
    "/bad-chunk": lambda send, _: send(HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + GOOD),
    "/two-lengths": lambda send, _: send(HEAD + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n" + GOOD),
    "/negative-length": lambda send, _: send(HEAD + b"Content-Length: -5\r\n\r\n" + GOOD),
    "/garbage": lambda send, _: send(bytes(range(256)) * 40),
    "/http-0.9": lambda send, _: send(GOOD),
    "/ssh": lambda send, _: send(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "/empty-answer": lambda _, __: None,
    "/reset": lambda _, sock: reset(sock),
    "/reset-in-body": reset_in_the_body,
    "/upgrade": lambda send, _: send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "/tiny": lambda send, _: send(ok(GOOD[:3000])),
    "/no-content": lambda send, _: send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "/html": lambda send, _: send(ok(b"<html>" + b"not an image! " * 900, "Content-Type: image/jpeg")),
    "/svg": lambda send, _: send(
        ok(b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script>' + b" " * 9000)
    ),
    "/gif": lambda send, _: send(ok(noise_image("GIF"))),
    "/slow-status": lambda send, _: trickle(send, b"HTTP/1.1 200 OK\r\n" * 9, 1, 0.3),
    "/slow-chunks": lambda send, _: (
        send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        trickle(send, chunked(GOOD, 64).partition(b"\r\n\r\n")[2], 8, 0.05),
    )[0],
    "/silent-in-body": lambda send, sock: (send(ok(GOOD)[:3_000]), until_closed(sock))[0],
    "/half-closed": half_closed,
    "/one-byte-chunks": lambda send, _: send(chunked(GOOD, 1)),
    "/huge-chunk-size": lambda send, _: send(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n" + GOOD
    ),
    "/endless-chunk-line": lambda send, _: (
        send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;"),
        forever(send, b"x" * 65536),
    )[0],
    "/endless-trailers": lambda send, _: (
        send(chunked(GOOD, 1000)[:-2]),
        forever(send, b"X-Trailer: of the same\r\n" * 100),
    )[0],
    "/chunked-and-length": lambda send, _: send(
        chunked(GOOD, 1000).replace(b"\r\n", b"\r\nContent-Length: 3\r\n", 1)
    ),
    "/unknown-coding": lambda send, _: send(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + GOOD),
    "/short-length": lambda send, _: send(HEAD + b"Content-Length: %d\r\n\r\n" % (len(GOOD) - 900) + GOOD),
    "/long-length": lambda send, _: send(HEAD + b"Content-Length: %d\r\n\r\n" % (len(GOOD) + 9) + GOOD),
    "/huge-length-digits": lambda send, _: send(HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n" + GOOD),
    "/deflate-bomb": lambda send, _: send(ok(large()["deflate"], "Content-Encoding: deflate")),
    "/gzip-bomb-behind-an-image": lambda send, _: send(
        ok(gzip.compress(GOOD) + large()["gzip"], "Content-Encoding: gzip")
    ),
    "/good-twice-gzipped": lambda send, _: send(
        ok(gzip.compress(gzip.compress(GOOD)), "Content-Encoding: gzip, gzip")
    ),
    "/zstd": lambda send, _: send(ok(b"\x28\xb5\x2f\xfd" + bytes(9_000), "Content-Encoding: zstd")),
    "/many-headers": lambda send, _: send(HEAD + b"A: b\r\n" * 20_000 + b"\r\n" + GOOD),
    "/nul-in-header": lambda send, _: send(HEAD.replace(b"OK", b"O\0K") + b"\r\n" + GOOD),
    "/no-status": lambda send, _: send(b"HTTP/1.1\r\n\r\n" + GOOD),
    "/http-2": lambda send, _: send(b"HTTP/2 200\r\n\r\n" + GOOD),
    "/http-2-frames": lambda send, _: send(b"\0\0\x12\x04\0\0\0\0\0" + bytes(900)),
    "/to-loopback-name": lambda send, _: send(redirect("http://localhost/x.jpg")),
    "/to-decimal": lambda send, _: send(redirect("http://2130706433/x.jpg")),
    "/to-octal": lambda send, _: send(redirect("http://0177.0.0.1/x.jpg")),
    "/to-short": lambda send, _: send(redirect("http://127.1/x.jpg")),
    "/to-nat64": lambda send, _: send(redirect("http://[64:ff9b::7f00:1]/x.jpg")),
    "/to-6to4": lambda send, _: send(redirect("http://[2002:7f00:1::]/x.jpg")),
    "/to-cgnat": lambda send, _: send(redirect("http://100.64.0.1/x.jpg")),
    "/to-multicast": lambda send, _: send(redirect("http://224.0.0.1/x.jpg")),
    "/to-link-local": lambda send, _: send(redirect("http://[fe80::1]/x.jpg")),
    "/to-unique-local": lambda send, _: send(redirect("http://[fd00::1]/x.jpg")),
    "/to-data": lambda send, _: send(redirect("data:image/jpeg;base64,/9j/4A==")),
    "/to-user": lambda send, _: send(redirect("http://me:secret@a.hostile.example/good")),
    "/ping": lambda send, _: send(redirect("/pong")),
    "/pong": lambda send, _: send(redirect("/ping")),
    "/longer-and-longer": lambda send, _: send(redirect("/longer-and-longer?" + "x" * 60_000)),
    "/tdm-reserved": lambda send, _: send(ok(GOOD, "tdm-reservation: 1")),
    "/unavailable": lambda send, _: send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
    "/too-many-requests": lambda send, _: send(
        b"HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    ),
    "/partial": lambda send, _: send(ok(GOOD).replace(b"200 OK", b"206 Partial", 1)),
    "/png-bomb": lambda send, _: send(ok(large()["png"])),
    "/jpeg-bomb": lambda send, _: send(ok(large()["jpeg"])),
    "/webp-bomb": lambda send, _: send(ok(large_webp())),
    "/tiff-bomb": lambda send, _: send(ok(large()["tiff"] + bytes(9_000))),
    "/avif-bomb": lambda send, _: send(ok(large()["avif"])),
    "/html-polyglot": lambda send, _: send(ok(POLYGLOT_HTML, "Content-Type: image/jpeg")),
    "/zip-polyglot": lambda send, _: send(ok(POLYGLOT_ZIP)),
    "/good-wrong-type": lambda send, _: send(ok(GOOD, "Content-Type: text/html")),
    "/good-bare-line-feeds": lambda send, _: send(
        ok(GOOD[:0]).replace(b"\r\n", b"\n").replace(b"Content-Length: 0", b"Content-Length: %d" % len(GOOD))
        + GOOD
    ),
    "/good-folded-header": lambda send, _: send(ok(GOOD, "X-Long: a", " b", "\tc")),
    "/good-odd-header-line": lambda send, _: send(ok(GOOD, "no colon here", "Sp ace: x")),
    "/script-svg": lambda send, _: send(
        ok(
            b'<?xml version="1.0"?><svg><script>alert(1)</script></svg>' + b" " * 9_000,
            "Content-Type: image/jpeg",
        )
    ),
    "/half-a-jpeg": lambda send, _: send(ok(GOOD[: len(GOOD) // 2])),
}


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        request = b""
        self.request.settimeout(LONGEST_S)
        with suppress(OSError):
            while b"\r\n\r\n" not in request and len(request) < 65536:
                part = self.request.recv(65536)
                if not part or part.startswith(b"\x16"):  # a TLS handshake: this server speaks none
                    return
                request += part
            path = request.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
            self.server.requests.append(request)  # type: ignore[attr-defined]
            ANSWERS.get(path, missing)(self.request.sendall, self.request)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[bytes] = []


@contextmanager
def hostile_server() -> Iterator[_Server]:
    large()  # made in advance: a machine under load would be too slow for the time limits of the tests
    with _Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()

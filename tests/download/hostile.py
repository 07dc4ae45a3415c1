"""A loopback server that misbehaves by path: raw sockets, one thread per connection."""

import gzip
import io
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from PIL import Image

Send = Callable[[bytes], None]
LONGEST_S = 20.0


def picture(format_: str = "JPEG", size: tuple[int, int] = (300, 200), **options: object) -> bytes:
    """A noisy picture, well over 5,000 bytes."""
    noise = Image.effect_noise(size, 90).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, format_, **options)
    return buffer.getvalue()


GOOD = picture()
GZIP_BOMB = gzip.compress(bytes(100_000_000), 1)


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


HEAD = b"HTTP/1.1 200 OK\r\n"

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
    "/silent": lambda _, __: time.sleep(LONGEST_S / 4),
    "/endless": lambda send, _: (send(HEAD + b"\r\n" + GOOD), forever(send, bytes(65536)))[0],
    "/endless-chunks": lambda send, _: (
        send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        forever(send, (b"%x\r\n" % len(GOOD)) + GOOD + b"\r\n"),
    )[0],
    "/endless-header": lambda send, _: (send(HEAD), forever(send, b"X-More: of the same\r\n" * 100))[0],
    "/endless-1xx": lambda send, _: forever(send, b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "/long-header-line": lambda send, _: (send(HEAD + b"X: "), forever(send, b"y" * 65536))[0],
    "/announces-too-much": lambda send, _: send(HEAD + b"Content-Length: 99999999999\r\n\r\n" + GOOD),
    "/gzip-bomb": lambda send, _: send(ok(GZIP_BOMB, "Content-Encoding: gzip")),
    "/broken-gzip": lambda send, _: send(ok(b"\x1f\x8b\x08" + bytes(9000), "Content-Encoding: gzip")),
    "/brotli": lambda send, _: send(ok(GOOD, "Content-Encoding: br")),
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
    "/html": lambda send, _: send(ok(b"<html>" + b"not a picture " * 900, "Content-Type: image/jpeg")),
    "/svg": lambda send, _: send(
        ok(b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script>' + b" " * 9000)
    ),
    "/gif": lambda send, _: send(ok(picture("GIF"))),
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
            ANSWERS[path](self.request.sendall, self.request)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[bytes] = []


@contextmanager
def hostile_server() -> Iterator[_Server]:
    with _Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()

"""A well-behaved loopback server with persistent connections, which records its requests."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.download.hostile import GOOD

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Request:
    at: float
    host: str
    path: str
    connection: int


@dataclass
class Site:
    """`answers` by path, `by_host` by host and path; other paths are images, and the site has no rules."""

    answers: dict[str, Callable[[], Reply]] = field(default_factory=dict)
    by_host: dict[tuple[str, str], Reply] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    max_at_once: int = 0
    delay_s: float = 0.0
    port: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str) -> Reply:
        with self._lock:
            self._now += 1
            self.max_at_once = max(self.max_at_once, self._now)
        try:
            time.sleep(self.delay_s)
            if path in self.answers:
                return self.answers[path]()
            if path in ("/robots.txt", "/.well-known/tdmrep.json"):
                return 404, {}, b""
            return 200, {"Content-Type": "image/jpeg"}, GOOD
        finally:
            with self._lock:
                self._now -= 1

    def image_requests(self) -> list[Request]:
        return [request for request in self.requests if not request.path.startswith(("/robots", "/.well"))]


@contextmanager
def site(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    running = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body leave separately

        def do_GET(self) -> None:
            host = self.headers["Host"]
            running.requests.append(Request(time.monotonic(), host, self.path, self.client_address[1]))
            status, headers, body = running.by_host.get((host, self.path)) or running.reply(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 256

        def handle_error(self, *_: object) -> None:
            pass  # clients that hang up in a handshake are what the tests are about

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    running.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()

"""A proxy before an S3 server that spoils a share of the requests, as a store does on a bad day.

Which requests are spoiled follows from the seed, the request and how often it was made before, not from the
order of different requests: threads may send them in any order.
"""

import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from laion_etl.io import storage
from laion_etl.io.storage import s3_retry

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Fault(Enum):
    """What happens to a request instead of its answer."""

    INTERNAL_ERROR = "500"
    SLOW_DOWN = "503"
    RESET = "the connection is reset before the server sees the request"
    LOST_ANSWER = "the server does what it is asked, and the connection is reset"
    CUT_BODY = "half of the body comes"
    EXPIRED_KEY = "400"
    ACCESS_DENIED = "403"


PASSING = (Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER, Fault.CUT_BODY)
_ANSWERS = {
    Fault.INTERNAL_ERROR: (500, "InternalError"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.EXPIRED_KEY: (400, "ExpiredToken"),
    Fault.ACCESS_DENIED: (403, "AccessDenied"),
}


class FlakyS3(ThreadingHTTPServer):
    """The proxy; `share` and `faults` may be changed at any time."""

    daemon_threads = True

    def __init__(self, endpoint: str, share: float, seed: int, faults: Sequence[Fault]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = urlsplit(endpoint)
        self.share = share
        self.seed = seed
        self.faults = faults
        self.requests = 0
        self.spoiled: Counter[Fault] = Counter()
        self._made: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, request: str, _: str) -> Fault | None:
        """The fault of the next try of this request, with any key."""
        with self._lock:
            self.requests += 1
            self._made[request] += 1
            chance = random.Random(f"{self.seed} {request} {self._made[request]}")
            if chance.random() >= self.share:
                return None
            found = chance.choice(self.faults)
            self.spoiled[found] += 1
            return found

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyS3

    def _handle(self) -> None:
        body = self._body()
        request = re.sub("uploadId=[^&]+", "uploadId=", f"{self.command} {self.path}")
        fault = self.server.fault(request, self.headers.get("Authorization", ""))
        if fault in _ANSWERS:
            self._refuse(*_ANSWERS[fault])
        elif fault is Fault.RESET:
            self._reset()
        else:
            self._forward(body, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815 - names of the base class

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        connection = HTTPConnection(str(self.server.server.hostname), self.server.server.port)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {*_HOP_BY_HOP, "expect"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if fault is Fault.LOST_ANSWER or (fault is Fault.CUT_BODY and len(data) < 2):
            self._reset()
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault is Fault.CUT_BODY else data)
        self.close_connection = fault is Fault.CUT_BODY

    def _refuse(self, status: int, code: str) -> None:
        data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        # The socket is only closed when nothing reads or writes it any more.
        self.connection.close()


@contextmanager
def serving(proxy: FlakyS3) -> Iterator[FlakyS3]:
    """The proxy at work; it may stand before any HTTP server."""
    with proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


@contextmanager
def flaky_s3(
    endpoint: str, share: float = 0.0, seed: int = 0, faults: Sequence[Fault] = PASSING
) -> Iterator[FlakyS3]:
    """The proxy of a server, which this process uses as its S3 while the block runs, without pauses."""
    with serving(FlakyS3(endpoint, share, seed, faults)) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
        patch.setattr(s3_retry, "PAUSES_S", (0.0,) * len(s3_retry.PAUSES_S))
        storage.s3_client.cache_clear()
        storage.s3_reader.cache_clear()
        try:
            yield proxy
        finally:
            storage.s3_client.cache_clear()
            storage.s3_reader.cache_clear()

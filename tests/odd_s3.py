"""A server that answers any request to S3 with the same bytes, whatever they are."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from laion_etl.io import storage
from laion_etl.io.storage import s3_retry

_HEADERS = {"ETag": '"a"', "Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT"}


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Iterable[bytes]:
    """An answer; `headers` with _ for -, left out if empty."""
    given = {**_HEADERS, "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return [f"HTTP/1.1 {status} x\r\n{lines}Connection: close\r\n\r\n".encode() + body]


def listing(*entries: str, more: str = "<IsTruncated>false</IsTruncated>", head: str = "") -> Iterable[bytes]:
    """A page of a listing of files."""
    contents = "".join(f"<Contents>{entry}</Contents>" for entry in entries)
    document = f"<?xml version='1.0'?>{head}<ListBucketResult>{more}{contents}</ListBucketResult>"
    return answer(document.encode())


class Endless:
    """An answer without an end."""

    def __init__(self, status: int = 200) -> None:
        self._status = status

    def __iter__(self) -> Iterator[bytes]:
        yield (
            b"HTTP/1.1 %d x\r\n" % self._status
            + b"ETag: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        while True:
            yield b"100000\r\n" + bytes(1 << 20) + b"\r\n"


class OneAfterAnother:
    """A different answer to each request; the last one to all that follow."""

    def __init__(self, *answers: Iterable[bytes]) -> None:
        self._left = list(answers)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._left.pop(0) if len(self._left) > 1 else self._left[0])


@contextmanager
def odd_s3(parts: Iterable[bytes]) -> Iterator[storage.Store]:
    """A store on such a server, without pauses between tries."""
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.MonkeyPatch.context() as patch:
        connections: list[socket.socket] = []
        thread = threading.Thread(target=_serve, args=(server, parts, connections))
        thread.start()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
        patch.setattr(s3_retry, "PAUSES_S", (0.0,))
        _forget_clients()
        try:
            yield storage.open_store("s3://bucket/p")
        finally:
            _forget_clients()
            for one in [server, *connections]:
                with suppress(OSError):  # it is closed
                    one.shutdown(socket.SHUT_RDWR)
            thread.join()


def _forget_clients() -> None:
    for client in (storage.s3_client, storage.s3_reader):
        client.cache_clear()


def _serve(server: socket.socket, parts: Iterable[bytes], connections: list[socket.socket]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connections[:] = [connection]
        with connection, suppress(OSError):
            _read_request(connection)
            for part in parts:
                connection.sendall(part)


def _read_request(connection: socket.socket) -> None:
    with connection.makefile("rb") as file:
        length = 0
        while (line := file.readline()).strip():
            name, _, value = line.lower().partition(b":")
            length = int(value) if name == b"content-length" else length
        file.read(length)

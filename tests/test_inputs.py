"""Inputs from paths, S3 and HTTP: the same bytes, resumed when a connection breaks, clear errors."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from laion_etl.core.errors import InputError, MissingInputError
from laion_etl.io import storage
from laion_etl.io.remote_files import open_input, read_input
from tests.fake_clock import FakeClock

DATA = bytes(range(256)) * 4_000  # about a megabyte

Answer = Callable[[int, str], bytes]  # (number of the request, its head) -> the whole response


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """One response per connection; the URL of the server."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def serve() -> None:
        for number in range(1_000):
            connection, _ = listener.accept()
            with connection:
                if stopping.is_set():
                    return
                connection.sendall(answer(number, connection.recv(65_536).decode()))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    host, port = listener.getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        stopping.set()
        socket.create_connection((host, port)).close()
        thread.join(240)
        listener.close()


def response(status: str, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode() + body


def test_a_path_a_file_uri_s3_and_http_give_the_same_bytes(tmp_path: Path, s3_endpoint: str) -> None:
    path = tmp_path / "a file.gz"
    path.write_bytes(DATA)
    bucket = f"inputs-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    boto3.client("s3").put_object(Bucket=bucket, Key="some/a file.gz", Body=DATA)
    with server(lambda _, __: response("200 OK", DATA)) as url:
        places = [str(path), path.as_uri(), f"s3://{bucket}/some/a file.gz", f"{url}/a%20file.gz"]
        for place in places:
            with open_input(place) as stream:
                assert stream.read(7) == DATA[:7]
                assert stream.read() == DATA[7:]
            assert read_input(place, len(DATA)) == DATA


@pytest.mark.parametrize("has_credentials", [True, False])
def test_s3_is_asked_anonymously_without_credentials(
    has_credentials: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []

    def answer(_: int, head: str) -> bytes:
        heads.append(head.lower())
        return response('200 OK\r\nETag: "a"', b"public")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    if has_credentials:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "some-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    clients = (storage.s3_client, storage.s3_reader)
    with server(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for client in clients:
            client.cache_clear()
        try:
            assert read_input("s3://commoncrawl/a.gz", 10) == b"public"
        finally:
            for client in clients:
                client.cache_clear()
    assert ["authorization:" in head for head in heads] == [has_credentials]


def test_a_body_is_not_unpacked_on_the_way() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    with server(lambda _, __: head + b"\x1f\x8bxy") as url:
        assert read_input(f"{url}/x", 10) == b"\x1f\x8bxy"


def test_a_connection_that_breaks_is_resumed_at_its_byte() -> None:
    asked = []

    def answer(number: int, head: str) -> bytes:
        ranges = [line for line in head.splitlines() if line.lower().startswith("range:")]
        asked.append(ranges[0].partition("=")[2] if ranges else "")
        start = int(asked[-1].rstrip("-") or 0)
        part = DATA[start : start + 400_000]
        return response("206 Partial Content" if start else "200 OK", part, length=len(DATA) - start)

    with server(answer) as url:
        assert read_input(f"{url}/x.wat.gz", 2_000_000) == DATA
    assert asked == ["", "400000-", "800000-"]


@pytest.mark.parametrize(("size", "is_whole"), [(1 << 18, True), (1 << 19, False)])
def test_a_chunked_transfer_whose_end_is_lost_is_whole_if_the_server_has_no_more(
    size: int, is_whole: bool
) -> None:
    data = bytes(1 << 18)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n40000\r\n"
    status = f"416 Range Not Satisfiable\r\nContent-Range: bytes */{size}"
    with server(lambda number, _: response(status, b"") if number else head + data + b"\r\n") as url:
        stream = open_input(f"{url}/x")
        assert stream.read(len(data)) == data
        if is_whole:
            assert stream.read(1) == b""
        else:
            with pytest.raises(InputError, match="HTTP status 416"):
                stream.read(1)


@pytest.mark.parametrize("again", ["200 OK", "206 Partial Content\r\nContent-Range: bytes 0-399999/1000000"])
def test_a_server_that_can_not_resume_is_an_error(again: str) -> None:
    def answer(number: int, _: str) -> bytes:
        return response(again if number else "200 OK", DATA[:400_000], length=len(DATA))

    with (
        server(answer) as url,
        pytest.raises(InputError, match=r"x\.wat\.gz beyond byte 400,000: .*cannot resume"),
    ):
        read_input(f"{url}/x.wat.gz", 2_000_000)


def test_a_body_that_never_goes_on_is_given_up() -> None:
    with (
        server(
            lambda n, _: response("206 Partial Content" if n else "200 OK", b"" if n else b"abc", 9)
        ) as url,
        pytest.raises(InputError, match="it broke off at byte 3"),
    ):
        read_input(f"{url}/x", 100, FakeClock().policy(max_s=60))


def test_a_busy_server_is_asked_again() -> None:
    def answer(number: int, _: str) -> bytes:
        return response("503 Slow Down", b"") if number < 2 else response("200 OK", b"at last")

    with server(answer) as url:
        assert read_input(f"{url}/x", 100, FakeClock().policy(max_s=60)) == b"at last"


@pytest.mark.parametrize(("status", "kind"), [("404 Not Found", MissingInputError), ("403 No", InputError)])
def test_refusals_name_the_address_and_the_status(status: str, kind: type[InputError]) -> None:
    with server(lambda _, __: response(status, b"")) as url, pytest.raises(kind) as caught:
        open_input(f"{url}/x.gz")
    assert f"{url}/x.gz: HTTP status {status[:3]};" in str(caught.value)
    assert type(caught.value) is kind


def test_a_server_that_is_not_there_is_an_error_after_some_tries() -> None:
    with pytest.raises(
        InputError, match=r"cannot read http://127\.0\.0\.1:1/x: .*refused.*; check the address"
    ):
        open_input("http://127.0.0.1:1/x", FakeClock().policy(max_s=60))


def test_a_file_longer_than_the_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_input(str(tmp_path / "x"), 5) == b"12345"
    with pytest.raises(InputError, match="longer than 4 bytes"):
        read_input(str(tmp_path / "x"), 4)


def test_missing_files_buckets_and_strange_schemes_are_clear_errors(tmp_path: Path, s3_endpoint: str) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        open_input(str(tmp_path / "none"))
    with pytest.raises(InputError, match="directory"):
        open_input(str(tmp_path))
    with pytest.raises(MissingInputError, match="NoSuchBucket"):
        open_input("s3://no-such-bucket-here/x")
    bucket = f"inputs-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    with pytest.raises(MissingInputError, match="NoSuchKey"):
        open_input(f"s3://{bucket}/x")
    with pytest.raises(InputError, match="ftp:// is not supported"):
        open_input("ftp://example.org/x")

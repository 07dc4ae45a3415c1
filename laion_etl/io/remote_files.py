"""Reads input files, local or from s3://, https:// and http://, as one kind of stream.

Remote files are streamed, never held in memory. A transfer that breaks is resumed at the byte where it
broke: WAT files are 300 MB, and within an hour there are many small failures.
"""

import io
import time
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import unquote, urlsplit

from laion_etl.core.errors import InputError, MissingInputError

if TYPE_CHECKING:
    from urllib3 import PoolManager

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0  # of silence of the server, not of the whole transfer
_RETRIES = 3
_BUFFER_BYTES = 256 * 1024


class _Body(Protocol):
    def read(self, amt: int) -> bytes: ...
    def close(self) -> None: ...


class _Dropped(Exception):  # noqa: N818 - a signal between two functions of this module
    """The connection broke while the body was being read."""


def open_input(uri: str) -> io.BufferedReader:
    """Returns a reader of the file at a path, file://, s3://, https:// or http:// URI.

    Remote readers cannot seek. Raises InputError (MissingInputError when there is no such file), here or
    while reading, with the URI, the cause and what to do.
    """
    scheme = urlsplit(uri).scheme.lower() if "://" in uri else ""
    if scheme in ("", "file"):
        return _open_path(uri)
    if scheme in ("http", "https"):
        return _open_remote(uri, lambda offset: _http_body(uri, offset))
    if scheme == "s3":
        return _open_remote(uri, lambda offset: _s3_body(uri, offset))
    raise InputError(f"cannot read {uri}: {scheme}:// is not supported; use a path, s3:// or https://")


def read_input(uri: str, max_bytes: int) -> bytes:
    """Returns the whole file; raises InputError when it is longer than `max_bytes`."""
    with open_input(uri) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(f"cannot read {uri}: it is longer than {max_bytes:,} bytes; check the path")
    return data


def _open_path(uri: str) -> io.BufferedReader:
    path = Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else Path(uri).expanduser()
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot read {uri}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"cannot read {uri}: {error.strerror}; check the path and its owner") from error


def _open_remote(uri: str, body_from: Callable[[int], _Body]) -> io.BufferedReader:
    return io.BufferedReader(_Resuming(uri, body_from), _BUFFER_BYTES)


class _Resuming(io.RawIOBase):
    """A remote body; after a broken connection it is resumed where it broke, up to _RETRIES times."""

    def __init__(self, uri: str, body_from: Callable[[int], _Body]) -> None:
        self._uri = uri
        self._body_from = body_from
        self._offset = 0
        self._body: _Body | None = body_from(0)  # so a missing file is reported when it is opened

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._read(len(view))
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def _read(self, amount: int) -> bytes:
        cause: BaseException | None = None
        for attempt in range(_RETRIES + 1):
            if self._body is None:
                time.sleep(0.1 * 2**attempt)
                self._body = self._body_from(self._offset)
            try:
                return _read_some(self._body, amount)
            except _Dropped as error:
                cause = error.__cause__
                self._body.close()
                self._body = None
        raise InputError(
            f"cannot read {self._uri} beyond byte {self._offset:,}: {cause}; check the network and try again"
        ) from cause

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
        super().close()


def _read_some(body: _Body, amount: int) -> bytes:
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    try:
        return body.read(amount)
    except (HTTPError, BotoCoreError, OSError) as error:
        raise _Dropped from error


@cache
def _pool() -> "PoolManager":
    from urllib3 import PoolManager, Retry, Timeout

    retries = Retry(
        total=6,
        connect=_RETRIES,
        read=_RETRIES,
        status=_RETRIES,
        redirect=3,
        backoff_factor=0.2,
        backoff_max=20,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )
    return PoolManager(retries=retries, timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S))


def _http_body(uri: str, offset: int) -> _Body:
    from urllib3.exceptions import HTTPError

    headers = {"User-Agent": "laion_etl", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = _pool().request("GET", uri, headers=headers, preload_content=False, decode_content=False)
    except HTTPError as error:
        cause = getattr(error, "reason", None) or error
        raise InputError(f"cannot read {uri}: {cause}; check the address and the network") from error
    expected = HTTPStatus.PARTIAL_CONTENT if offset else HTTPStatus.OK
    if response.status == expected:
        return cast("_Body", response)
    response.close()
    status = f"HTTP status {response.status}"
    if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise MissingInputError(f"cannot read {uri}: {status}; check the address")
    if offset and response.status == HTTPStatus.OK:
        raise InputError(
            f"cannot read {uri} beyond byte {offset:,}: the connection broke and the server cannot resume; "
            "try again"
        )
    raise InputError(f"cannot read {uri}: {status}; check the address, or try again later")


def _s3_body(uri: str, offset: int) -> _Body:
    from botocore.exceptions import BotoCoreError, ClientError

    from laion_etl.io.storage import s3_reader

    parts = urlsplit(uri, allow_fragments=False)
    wanted = {"Range": f"bytes={offset}-"} if offset else {}
    try:
        answer = s3_reader().get_object(
            Bucket=parts.netloc,
            Key=parts.path.lstrip("/"),
            **wanted,  # type: ignore[arg-type]
        )
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("NoSuchKey", "NoSuchBucket", "404"):
            raise MissingInputError(f"cannot read {uri}: {code}; check bucket and key") from error
        raise InputError(f"cannot read {uri}: {error}; check the AWS credentials") from error
    except BotoCoreError as error:
        raise InputError(
            f"cannot read {uri}: {error}; check the AWS credentials and AWS_ENDPOINT_URL"
        ) from error
    return cast("_Body", answer["Body"])

"""Reads input files, local or from s3://, https:// and http://, as one kind of stream.

Remote files are streamed, never held in memory. A transfer that breaks is resumed at the byte where it
broke: WAT files are 300 MB, and within an hour there are many small failures. A server that is busy is asked
again, for as long as a RetryPolicy allows; http_answers.py says which answers mean that.
"""

import errno
import io
import os
import stat
from collections.abc import Callable, Mapping
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from laion_etl.core.busy_codes import BUSY_S3_CODES
from laion_etl.core.errors import InputError, MissingInputError
from laion_etl.core.one_line import one_line
from laion_etl.core.quantities import quantity
from laion_etl.core.usage_counters import Counter, count
from laion_etl.core.user_paths import user_path
from laion_etl.io.http_answers import busy_answer, retry_after_s
from laion_etl.io.retries import DEFAULT_POLICY, Retries, RetryPolicy, TryAgainError

if TYPE_CHECKING:
    from urllib3 import PoolManager

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0  # of silence of the server, not of the whole transfer
_BUFFER_BYTES = 256 * 1024
_MAX_ERROR_CHARS = 500
_ERROR_PAGE_BYTES = 16 * 1024


class _Body(Protocol):
    def read(self, amt: int) -> bytes: ...
    def close(self) -> None: ...


def open_input(uri: str, policy: RetryPolicy = DEFAULT_POLICY) -> io.BufferedReader:
    """Returns a reader of the file at a path, file://, s3://, https:// or http:// URI.

    Remote readers cannot seek; they repeat requests as the policy says. Raises InputError (MissingInputError
    when there is no such file), here or while reading, with the URI, the cause and what to do.
    """
    scheme = urlsplit(uri).scheme.lower() if "://" in uri else ""
    if scheme in ("", "file"):
        return _open_path(uri)
    if scheme in ("http", "https"):
        return _open_remote(uri, lambda offset: _http_body(uri, offset), policy)
    if scheme == "s3":
        return _open_remote(uri, lambda offset: _s3_body(uri, offset), policy)
    raise InputError(f"cannot read {uri}: {scheme}:// is not supported; use a path, s3:// or https://")


def read_input(uri: str, max_bytes: int, policy: RetryPolicy = DEFAULT_POLICY) -> bytes:
    """Returns the whole file; raises InputError when it is longer than `max_bytes`."""
    with open_input(uri, policy) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(
            f"cannot read {uri}: it is longer than {quantity(max_bytes, 'byte')}; check the path"
        )
    return data


def _open_path(uri: str) -> io.BufferedReader:
    path = Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else user_path(uri)
    try:
        return open(path, "rb", opener=_open_unless_fifo)
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot read {uri}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"cannot read {uri}: {error.strerror}; check the path and its owner") from error


def _open_unless_fifo(path: str, flags: int) -> int:
    """Open a file, or what a shell passes as /dev/fd/N. A FIFO that no process writes blocks forever."""
    if not path.startswith("/dev/") and stat.S_ISFIFO(Path(path).stat().st_mode):
        raise OSError(errno.ESPIPE, "it is a pipe, not a file")
    return os.open(path, flags)


def _open_remote(uri: str, body_from: Callable[[int], _Body], policy: RetryPolicy) -> io.BufferedReader:
    return io.BufferedReader(_Resuming(uri, body_from, policy), _BUFFER_BYTES)


class _Resuming(io.RawIOBase):
    """A remote body; after a broken connection it is resumed where it broke."""

    def __init__(self, uri: str, body_from: Callable[[int], _Body], policy: RetryPolicy) -> None:
        self._uri = uri
        self._body_from = body_from
        self._retries = Retries(uri, policy)
        self._offset = 0
        self._body: _Body | None = self._opened()  # so a missing file is reported when it is opened

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._read(len(view))
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def _read(self, amount: int) -> bytes:
        while True:
            self._body = self._body or self._opened()
            try:
                data = _read_some(self._body, amount)
            except TryAgainError as broken:
                self._body.close()
                self._body = None
                self._retries.wait(broken, f"it broke off at byte {self._offset:,}: check the network")
            else:
                self._retries.succeeded()
                count(Counter.WEB_BYTES, len(data))
                return data

    def _opened(self) -> _Body:
        while True:
            self._retries.before_request()
            count(Counter.WEB_REQUESTS)
            try:
                return self._body_from(self._offset)
            except TryAgainError as failure:
                self._retries.wait(failure, "check the address and the network, or try again later")

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
        raise TryAgainError(str(error)) from error


@cache
def _pool() -> "PoolManager":
    from urllib3 import PoolManager, Retry, Timeout

    retries = Retry(
        total=None,
        connect=0,
        read=0,
        status=0,
        other=0,
        redirect=3,
        respect_retry_after_header=False,
        raise_on_status=False,
    )
    return PoolManager(retries=retries, timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S))


def _http_body(uri: str, offset: int) -> _Body:
    from urllib3.exceptions import HTTPError, LocationParseError

    headers = {"User-Agent": "laion_etl", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = _pool().request("GET", uri, headers=headers, preload_content=False, decode_content=False)
    except LocationParseError as error:
        raise InputError(f"cannot read {uri}: {error}; check the address") from error
    except HTTPError as error:
        raise TryAgainError(str(getattr(error, "reason", None) or error), unreachable=True) from error
    expected = HTTPStatus.PARTIAL_CONTENT if offset else HTTPStatus.OK
    if response.status == expected and _begins_at(offset, response.headers.get("Content-Range")):
        return cast("_Body", response)
    try:
        page = response.read(_ERROR_PAGE_BYTES)
    except (HTTPError, OSError):
        page = b""
    response.close()
    if offset and _ends_at(offset, response.status, response.headers):
        return io.BytesIO()
    status = f"HTTP status {response.status}"
    if busy_answer(response.status, response.headers, page):
        raise TryAgainError(status, retry_after_s(response.headers))
    if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise MissingInputError(f"cannot read {uri}: {status}; check the address")
    if offset and response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise _cannot_resume(uri, offset)
    raise InputError(f"cannot read {uri}: {status}; check the address, or try again later")


def _begins_at(offset: int, content_range: str | None) -> bool:
    """Whether an answer has the bytes from an offset on (RFC 9110 14.4), as far as it says so."""
    return not offset or content_range is None or content_range.strip().startswith(f"bytes {offset}-")


def _cannot_resume(uri: str, offset: int) -> InputError:
    return InputError(
        f"cannot read {uri} beyond byte {offset:,}: the connection broke and the server cannot resume; "
        "try again"
    )


def _ends_at(offset: int, status: int, headers: Mapping[str, str]) -> bool:
    """Whether the file has no bytes from an offset on: the end of a chunked transfer was lost after its last.

    RFC 9110 15.5.17: an answer 416 has the length of the file.
    """
    length = headers.get("Content-Range", "").removeprefix("bytes").strip()
    return status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and length == f"*/{offset}"


def _s3_body(uri: str, offset: int) -> _Body:
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    from laion_etl.io.storage import s3_reader
    from laion_etl.io.storage.s3_answers import answered

    parts = urlsplit(uri, allow_fragments=False)
    wanted: Any = {"Range": f"bytes={offset}-"} if offset else {}
    get = partial(s3_reader().get_object, Bucket=parts.netloc, Key=parts.path.lstrip("/"), **wanted)
    try:
        answer = answered(get)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        answer_head = error.response.get("ResponseMetadata", {})
        headers = answer_head.get("HTTPHeaders", {})
        if code in BUSY_S3_CODES or busy_answer(answer_head.get("HTTPStatusCode", 0), headers, b""):
            raise TryAgainError(_in_short(error), retry_after_s(headers)) from error
        if code in ("NoSuchKey", "NoSuchBucket", "404"):
            raise MissingInputError(f"cannot read {uri}: {code}; check bucket and key") from error
        raise InputError(f"cannot read {uri}: {_in_short(error)}; check the AWS credentials") from error
    except (ConnectionError, HTTPClientError) as error:
        raise TryAgainError(f"{_in_short(error)}; check AWS_ENDPOINT_URL", unreachable=True) from error
    except BotoCoreError as error:
        raise InputError(
            f"cannot read {uri}: {_in_short(error)}; check the AWS credentials and AWS_ENDPOINT_URL"
        ) from error
    if not _begins_at(offset, answer.get("ContentRange", "")):
        answer["Body"].close()
        raise _cannot_resume(uri, offset)
    return cast("_Body", answer["Body"])


def _in_short(error: Exception) -> str:
    """Returns what an error says, without what a server may have put into it to forge lines of a log."""
    return one_line(str(error))[:_MAX_ERROR_CHARS]

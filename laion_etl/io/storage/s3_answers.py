"""Answers of an S3 server that may be anything: another's server, or a proxy that answers in its place.

botocore reads listings and errors into memory however long they are, takes a login page with status 200 for
a file that was written, asks without end where a bucket lies if that is answered by a redirect, and raises
what Python does of a length or a date that is none. Here documents have a limit, every answer must have what
S3's has, and whatever else is wrong is one error, OddAnswerError.
"""

import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from boto3.exceptions import RetriesExceededError
from botocore.awsrequest import AWSResponse
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError as BrokenOffError
from urllib3.exceptions import HTTPError

from laion_etl.core.errors import StorageError
from laion_etl.core.quantities import quantity

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ResultT = TypeVar("ResultT")

_DOCUMENT_BYTES = 16 << 20  # a page of a listing has at most 5 MB
_STEP_BYTES = 16 << 20
_ERROR_STATUS = 300
_REDIRECTS = (301, 302, 307, 308)
_REGION = "x-amz-bucket-region"
_NO_DOCUMENT = re.compile(rb"<!DOCTYPE|\0", re.IGNORECASE)  # what S3 sends is UTF-8, and has no entities
_ODD = (ResponseParserError, ValueError, KeyError, TypeError)
_NEEDED = {
    **dict.fromkeys(("HeadObject", "GetObject", "PutObject", "UploadPart"), "ETag"),
    "CompleteMultipartUpload": "ETag",
    "CopyObject": "CopyObjectResult",
    "CreateMultipartUpload": "UploadId",
    "ListObjectsV2": "IsTruncated",
}


class OddAnswerError(BotoCoreError):
    """An answer that no S3 server gives."""

    fmt = "the answer is not one of S3 ({cause})"


def answered(action: Callable[[], ResultT]) -> ResultT:
    """Return what an action returns; raise OddAnswerError where an answer is not as expected."""
    try:
        return action()
    except BrokenOffError as error:  # which boto3 makes of it in some of its functions
        raise RetriesExceededError(cast("Any", error.last_exception)) from error
    except _ODD as error:
        raise OddAnswerError(cause=_in_words(error)) from error


def _in_words(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def checked(client: "S3Client") -> "S3Client":
    """Return the client, whose documents are bounded, and whose answers have what S3's have."""
    session = client._endpoint.http_session  # type: ignore[attr-defined] # there is no public way to it
    send: Any = lambda request, **_: _sent(session, request)  # noqa: E731
    client.meta.events.register("before-send.s3", send)
    client.meta.events.register("after-call.s3", _check)
    return client


def _sent(session: Any, request: Any) -> AWSResponse:
    """Send a request as botocore does, but read only as much of a document as one may have."""
    is_file, request.stream_output = request.stream_output, True
    response: AWSResponse = session.send(request)
    if is_file and response.status_code < _ERROR_STATUS:
        return response
    if response.status_code in _REDIRECTS and request.method == "HEAD" and _REGION not in response.headers:
        raise OddAnswerError(cause="it redirects, and names no region")
    try:
        data = b"".join(_document(response.raw))
    except HTTPError as error:
        raise HTTPClientError(error=error) from error
    if _NO_DOCUMENT.search(data):
        if response.status_code < _ERROR_STATUS:
            raise OddAnswerError(cause="it is a page, or a document with entities")
        data = b""  # a proxy's page: the status says what is wrong
    return AWSResponse(response.url, response.status_code, cast("Any", response.headers), _Read(data))


def _document(raw: Any) -> Iterator[bytes]:
    left = _DOCUMENT_BYTES
    for part in raw.stream(1 << 16):
        left -= len(part)
        if left < 0:
            raw.close()
            raise OddAnswerError(cause=f"it is longer than {quantity(_DOCUMENT_BYTES, 'byte')}")
        yield part
    raw.release_conn()


class _Read(io.BytesIO):
    """A body that was read, as botocore asks for it."""

    def stream(self) -> Iterator[bytes]:
        yield self.getvalue()


def _check(parsed: dict[str, Any], model: Any, **_: Any) -> None:
    status = parsed.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    needed = _NEEDED.get(model.name)
    if status < _ERROR_STATUS and needed is not None and needed not in parsed:
        if "Body" in parsed:
            parsed["Body"].close()
        raise KeyError(needed)


def body_of(found: Any, most: int, uri: str) -> bytes:
    """Return the body of an answer. Raises StorageError where it has more than `most` bytes."""
    length = found.get("ContentLength")
    if length is not None and length < 0:
        raise ValueError("its length is below zero")
    parts, left = [], most + 1
    if length is None or length <= most:
        step = length or _STEP_BYTES
        while left and (part := found["Body"].read(min(step, left))):
            parts.append(part)
            left -= len(part)
        if left:
            return b"".join(parts)
    found["Body"].close()
    raise StorageError(f"cannot read {uri}: it has more than {quantity(most, 'byte')}; find out who wrote it")


class BoundedFile:
    """A file for a download of at most `most` bytes, whatever the server sends."""

    def __init__(self, file: io.BufferedRandom, most: int) -> None:
        self._file = file
        self._most = most
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._most:
            raise OddAnswerError(cause="it is longer than it is said to be")
        return self._file.write(data)

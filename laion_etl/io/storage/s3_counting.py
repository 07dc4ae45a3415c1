"""Counts the requests of a bucket and their bytes, as the bucket's owner is charged for them.

It uses botocore's events, so that retries, the parts of an upload and the pages of a listing are counted,
too.
"""

from typing import TYPE_CHECKING, Any

from laion_etl.core.usage_counters import Counter, count

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_WRITES = frozenset({"PUT", "POST"})


def counted(client: "S3Client") -> "S3Client":
    """Return the client, whose requests are counted from now on."""
    client.meta.events.register("before-send.s3", _sent)
    client.meta.events.register("response-received.s3", _received)
    return client


def _sent(request: Any, event_name: str, **_: Any) -> None:
    if request.method in _WRITES or _operation(event_name).startswith("List"):
        count(Counter.STORE_WRITES)
    elif request.method != "DELETE":
        count(Counter.STORE_READS)
    count(Counter.STORE_BYTES_SENT, _length(request.headers))


def _received(response_dict: Any, event_name: str, **_: Any) -> None:
    # A response to HEAD has the length of a body that is not sent.
    if response_dict is not None and not _operation(event_name).startswith("Head"):
        count(Counter.STORE_BYTES_RECEIVED, _length(response_dict["headers"]))


def _operation(event_name: str) -> str:
    return event_name.rpartition(".")[2]


def _length(headers: Any) -> int:
    value = headers.get("Content-Length", 0)
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return int(text) if text.isdecimal() else 0

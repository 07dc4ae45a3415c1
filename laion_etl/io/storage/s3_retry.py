"""Repeats requests to S3 that failed for a moment, beyond what botocore repeats itself.

botocore repeats a request twice, but not the reading of a body that breaks off, and it stops when its quota
of repetitions is used up, as it is sooner or later where 30 in 100 requests fail. A service that cannot be
connected to at all is not tried again here: who waits for that needs minutes (core/outages.py), and a wrong
AWS_ENDPOINT_URL should be reported within seconds.

Both numbers multiply with the time that a server may be silent. So nothing is repeated LIMIT_S after the
first try began: a store that accepts connections and never answers is noticed after minutes, not after half
an hour.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from laion_etl.core.busy_codes import BUSY_S3_CODES, BUSY_STATUS

ResultT = TypeVar("ResultT")

PAUSES_S: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LIMIT_S = 120.0
# Of boto3's clients.
ATTEMPTS = 3
READ_TIMEOUT_S = 30
# NoSuchUpload: the first answer to a completed multipart upload was lost.
_PASSING_CODES = BUSY_S3_CODES | {"NoSuchUpload"}


def retried(action: Callable[[], ResultT], clock: Callable[[], float] = time.monotonic) -> ResultT:
    """Return what an idempotent action returns; repeat it after errors that pass within seconds."""
    from laion_etl.io.storage.s3_answers import answered

    began = clock()
    for pause_s in PAUSES_S:
        try:
            return answered(action)
        except Exception as error:
            if not _passes(error) or clock() - began >= LIMIT_S:
                raise
        time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
    return answered(action)


def _passes(error: Exception) -> bool:
    from boto3.exceptions import RetriesExceededError
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in BUSY_STATUS or error.response.get("Error", {}).get("Code") in _PASSING_CODES
    if isinstance(error, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError):
        return False
    broken = (
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        RetriesExceededError,
        HTTPError,
    )
    return isinstance(error, broken)

"""Outages of the store and the database: which errors are one, and how a worker waits for the end of one.

The problem: while a store is unreachable, or a key has expired, every unit of work fails at once. A worker
that counts this as a failure of the unit parks thousands of units a minute (2,802 in 20 s were measured). The
choice: `is_outage` and `is_refusal` decide from the library's error whether a single file or statement is to
blame, or the service as a whole, and whether that passes by itself. If it does, a worker keeps its unit and
waits (`Outages`), longer each time, and with jitter, so that a fleet does not come back at the same moment.
After a while it gives the unit back and ends with OUTAGE_EXIT_CODE, so that the scheduler or the person who
started it sees that nothing moves. A missing permission or a wrong name does not pass: then the command ends
at once, for waiting and starting it again would only hide that.
"""

import errno
import logging
import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from laion_etl.core.busy_codes import BUSY_S3_CODES, BUSY_STATUS
from laion_etl.core.errors import OutageError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

ResultT = TypeVar("ResultT")

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0
_CHECK_EVERY_S = 0.5

# What passes without a change of settings. Of S3's errors these and all with one of BUSY_STATUS; a key that
# has expired is replaced by what gives it to the command, and 400 is how HEAD, which has no body, says so.
_PASSING_S3 = BUSY_S3_CODES | {
    "ExpiredToken",
    "TokenRefreshRequired",
    "OperationAborted",
    "QuotaExceeded",
    "400",
    "507",
}
_REFUSED_S3 = frozenset(
    (
        "403",
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "InvalidAccessKeyId",
        "InvalidBucketName",
        "InvalidToken",
        "NoSuchBucket",
        "NotSignedUp",
        "PermanentRedirect",
        "301",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    )
)
_OF_ONE_FILE = (
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.EEXIST,
    errno.ELOOP,
)
_REFUSED_FILE = (errno.EACCES, errno.EPERM, errno.EROFS)
# Classes of SQLSTATE: the connection, resources (disk, memory, connections), a server that stops or starts,
# its system; and a server that is read-only, as the former primary is after a failover.
_PASSING_SQL = ("08", "53", "57P", "58", "25006")
_REFUSED_SQL = ("28", "3D", "3F", "42501")  # the login, no such database or schema, no permission
# libpq gives no SQLSTATE for a connection that the server refuses; these are Postgres' own words.
_REFUSED_LOGIN = re.compile(
    r"FATAL:\s+(?:password authentication failed|no pg_hba\.conf entry|permission denied for database|"
    r"(?:role|database) \".*\" does not exist|role \".*\" is not permitted to log in)"
)

_log = logging.getLogger(__name__)


def is_outage(error: Exception) -> bool:
    """Whether an error of the file system, of S3 or of Postgres is one of the service, and passes."""
    from boto3.exceptions import Boto3Error
    from botocore import exceptions as botocore
    from psycopg import Error, InterfaceError, OperationalError

    if isinstance(error, botocore.ClientError):
        return _s3_code(error) in _PASSING_S3 or _http_status(error) in BUSY_STATUS
    if isinstance(error, Error):
        if error.sqlstate is None:  # of the client: there is no connection
            return isinstance(error, OperationalError | InterfaceError) and not is_refusal(error)
        return error.sqlstate.startswith(_PASSING_SQL)
    if isinstance(error, botocore.BotoCoreError | Boto3Error):
        return isinstance(
            error,
            botocore.HTTPClientError
            | botocore.ConnectionError
            | botocore.IncompleteReadError
            | botocore.ChecksumError
            | botocore.FlexibleChecksumError
            | botocore.CredentialRetrievalError
            | botocore.MetadataRetrievalError
            | botocore.TokenRetrievalError
            | Boto3Error,
        )
    return isinstance(error, OSError) and error.errno not in (*_OF_ONE_FILE, *_REFUSED_FILE)


def is_refusal(error: Exception) -> bool:
    """Whether it is an error of the service that stays until a permission or a setting is changed."""
    from botocore.exceptions import BotoCoreError, ClientError
    from psycopg import Error

    if isinstance(error, ClientError):
        return _s3_code(error) in _REFUSED_S3
    if isinstance(error, Error):
        return (error.sqlstate or "").startswith(_REFUSED_SQL) or bool(_REFUSED_LOGIN.search(str(error)))
    if isinstance(error, BotoCoreError):
        return not is_outage(error)
    return isinstance(error, OSError) and error.errno in _REFUSED_FILE


def _s3_code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _http_status(error: "ClientError") -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class Outages:
    """The patience of one worker: repeats what failed by an outage, for at most `limit_s` a unit of work.

    `check` is called twice a second during a pause; it ends the pause by raising. Limit 0: never waits.
    """

    def __init__(
        self,
        limit_s: float,
        check: Callable[[], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._check = check
        self._sleep = sleep
        self._clock = clock
        self._spent_s = 0.0
        self._pauses = 0

    def outlast(self, action: Callable[[], ResultT]) -> ResultT:
        """Return what an idempotent action returns; raise its OutageError only when patience is used up."""
        while True:
            began = self._clock()
            try:
                return action()
            except OutageError as error:
                self.pause(error, self._clock() - began)

    def pause(self, error: OutageError, lost_s: float = 0.0) -> None:
        """Wait before the next try, of which the last one took `lost_s`. Raises the error after `limit_s`."""
        self._spent_s += lost_s
        left_s = self._limit_s - self._spent_s
        if left_s <= 0:
            raise error
        longest_s = min(_FIRST_PAUSE_S * 2**self._pauses, _LONGEST_PAUSE_S)
        pause_s = min(longest_s * random.uniform(0.5, 1), left_s)  # noqa: S311 - no secret
        _log.warning("%s; trying again in %.0f s, for at most %.0f s more", error, pause_s, left_s)
        self._pauses += 1
        self._spent_s += pause_s
        while pause_s > 0:
            if self._check is not None:
                self._check()
            self._sleep(min(pause_s, _CHECK_EVERY_S))
            pause_s -= _CHECK_EVERY_S

    def over(self) -> None:
        """Note that a unit of work is finished: the next one finds full patience."""
        self._spent_s = 0.0
        self._pauses = 0


NO_PATIENCE = Outages(0)

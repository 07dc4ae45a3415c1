"""Outages of the store and the database: which errors are one, and how a worker waits for the end of one.

The problem: while a store is unreachable, or a key has expired, every unit of work fails at once. A worker
that counts this as a failure of the unit parks thousands of units a minute (2,802 in 20 s were measured). The
choice: `is_outage` decides from the library's error whether a single file or statement is to blame, or the
service as a whole. For the latter a worker keeps its unit and waits (`Outages`), longer each time, and with
jitter, so that a fleet does not come back at the same moment. After a while it gives the unit back and ends
with OUTAGE_EXIT_CODE, so that the scheduler or the person who started it sees that nothing moves.
"""

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from laion_etl.core.errors import OutageError

ResultT = TypeVar("ResultT")

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0
_CHECK_EVERY_S = 0.5

_OF_ONE_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST)
_OF_ONE_OBJECT = ("404", "NoSuchKey", "NotFound", "412", "PreconditionFailed", "InvalidRange", "416")
# Classes of SQLSTATE: the connection, the login, no such database, resources (disk, memory, connections), an
# administrator or a timeout; and two codes of other classes: no permission, and a server that is read-only,
# as the former primary is after a failover.
_OF_THE_SERVER = ("08", "28", "3D", "53", "57", "58", "42501", "25006")

_log = logging.getLogger(__name__)


def is_outage(error: Exception) -> bool:
    """Whether an error of the file system, of S3 or of Postgres is to be blamed on the service as a whole.

    That is everything but a file that does not exist, a statement that is wrong, and the like.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
    from psycopg import Error, InterfaceError, OperationalError

    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code", "") not in _OF_ONE_OBJECT
    if isinstance(error, Error):
        if error.sqlstate is None:  # of the client: there is no connection
            return isinstance(error, OperationalError | InterfaceError)
        return error.sqlstate.startswith(_OF_THE_SERVER)
    if isinstance(error, BotoCoreError | Boto3Error):
        return not isinstance(error, ParamValidationError)
    return isinstance(error, OSError) and error.errno not in _OF_ONE_FILE


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

"""Opens the database: the URL of the settings or the embedded server, with the schema up to date.

Nothing in this package needs more of a connection than one transaction: no prepared statements, no session
settings, locks or temporary tables that outlive it. So PgBouncer may be used in transaction mode.
Transactions are short: see locks.py.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import Connection

from laion_etl.core.errors import DatabaseError, DatabaseOutageError, DatabaseRefusedError
from laion_etl.core.outages import is_outage, is_refusal
from laion_etl.database.embedded import exists, running_server, with_log_cause
from laion_etl.database.interrupts import transaction
from laion_etl.database.migrations import migrate
from laion_etl.database.queries import query
from laion_etl.database.server_url import public_name, url_parts
from laion_etl.settings import DatabaseSettings, Settings

ResultT = TypeVar("ResultT")
Keys = dict[str, Any]

# Conflicts with another transaction: the same work may succeed a moment later.
_CONFLICTS = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
    psycopg.errors.ForeignKeyViolation,  # a partition was added to a crawl that was just forgotten
)
# The server is stopping, has crashed or is starting, or the connection broke.
_LOST_STATES = ("57P01", "57P02", "57P03", "08006")
_LONGEST_PAUSE_S = 5.0
_CONNECT_TIMEOUT_S = 10


class Database:
    """Postgres through one connection, which is reopened when it is lost. For one thread only.

    `further`: URLs of the other servers that hold key ranges; servers.py opens them.
    """

    def __init__(self, url: str, settings: DatabaseSettings, further: Sequence[str] = ()) -> None:
        self._url = url
        self._settings = settings
        self.further = tuple(further)
        self._connection: Connection | None = None
        self._succeeded_s = 0.0  # when a transaction was last committed

    @property
    def connection(self) -> Connection:
        """The open connection, in autocommit mode; use `run` for work that should survive its loss."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def run(self, work: Callable[[Connection], ResultT], timeout_s: float | None = None) -> ResultT:
        """Runs `work` in one transaction, and again after a lost connection or a conflict with another one.

        `work` must be idempotent: it is retried after a lost connection even if the first commit succeeded.
        A statement may take `timeout_s`, by default LAION_ETL_DATABASE_STATEMENT_TIMEOUT_S. Raises
        DatabaseError when Postgres refuses, or is not back after LAION_ETL_DATABASE_RETRY_FOR_S.
        """
        limit_s = self._settings.statement_timeout_s if timeout_s is None else timeout_s
        return self.with_retry(lambda: self._transaction(work, limit_s))

    def with_retry(
        self, action: Callable[[], ResultT], also: tuple[type[DatabaseError], ...] = ()
    ) -> ResultT:
        """Runs an action that opens its own transactions; otherwise like `run`. `also`: more errors to retry.

        LAION_ETL_DATABASE_RETRY_FOR_S begins with the first failure, and again with the first one after a
        transaction that succeeded: hours of work, or of waiting for a lock, use up none of it.
        """
        failed_s, attempt = -1.0, 0
        while True:
            try:
                return action()
            except (psycopg.Error, DatabaseError) as error:
                if isinstance(error, DatabaseError) and not isinstance(error, also):
                    raise
                now_s = time.monotonic()
                if failed_s < 0 or (self._succeeded_s >= failed_s and isinstance(error, psycopg.Error)):
                    failed_s, attempt = now_s, 0
                attempt += 1
                is_late = now_s - failed_s >= self._settings.retry_for_s
                if isinstance(error, psycopg.Error):
                    if is_late or not self._is_temporary(error):
                        raise _database_error(error, self._url) from error
                elif is_late:
                    raise
                # Random, so that two transactions in conflict do not meet again.
                jitter = random.uniform(0.5, 1)  # noqa: S311 - no secret
                time.sleep(min(_LONGEST_PAUSE_S, 0.05 * 2**attempt) * jitter)

    def rows(self, name: str, keys: Keys | None = None) -> list[Any]:
        """Returns the rows of a named query, run in its own transaction."""
        return self.run(lambda connection: connection.execute(query(name), keys).fetchall())

    @contextmanager
    def another(self) -> "Iterator[Database]":
        """Opens the same database through another connection, for another thread, until the block ends."""
        other = Database(self._url, self._settings, self.further)
        try:
            yield other
        finally:
            other.close()

    @property
    def settings(self) -> DatabaseSettings:
        """The settings of the connection."""
        return self._settings

    @property
    def public_name(self) -> str:
        """Host, port and name of the database, for people."""
        return public_name(self._url)

    def open(self, pair_leaves: int, key_ranges: int) -> None:
        """Connect, and bring the schema up to date; the numbers are for a new one. Raises DatabaseError."""
        with database_errors(self._url):
            _ = self.connection  # fail fast: do not retry the very first connection
            self.with_retry(lambda: migrate(self.connection, pair_leaves, key_ranges))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _transaction(self, work: Callable[[Connection], ResultT], timeout_s: float) -> ResultT:
        connection = self.connection
        with transaction(connection):
            self._set_limits(connection, timeout_s)
            result = work(connection)
        self._succeeded_s = time.monotonic()
        return result

    def _set_limits(self, connection: Connection, timeout_s: float) -> None:
        limits = {"statement_s": f"{timeout_s}s", "idle_s": f"{self._settings.idle_timeout_s}s"}
        connection.execute(query("connect.limits"), limits)

    def _is_temporary(self, error: psycopg.Error) -> bool:
        if isinstance(error, _CONFLICTS):
            return True
        lost = self._connection is None or self._connection.closed  # or it was that of a lock
        lost |= isinstance(error, psycopg.OperationalError) and error.sqlstate in (None, *_LOST_STATES)
        return (
            lost
            and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            and not _refused(error)
        )

    def _connect(self) -> Connection:
        # Prepared statements need a session that keeps its server process; behind a pooler it does not.
        return psycopg.connect(self._url, autocommit=True, prepare_threshold=None, **self._options())

    def _options(self) -> dict[str, Any]:
        """Options the URL does not set: a dead network is noticed within a minute, TLS by the settings."""
        tls = {
            name: getattr(self._settings, name) for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")
        }
        given = url_parts(self._url)
        if tls["sslrootcert"] and "sslmode" not in given:
            tls["sslmode"] = tls["sslmode"] or "verify-full"  # libpq's default would go on without TLS
        wanted = {
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "application_name": "laion_etl",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
            **{name: value for name, value in tls.items() if value},
        }
        return {name: value for name, value in wanted.items() if name not in given}


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Opens a migrated database; an embedded server runs as long as the block.

    With several servers it is the first one, which has the queue. Raises DatabaseError when Postgres cannot
    be reached or refuses a statement, or when it is one of the other servers.
    """
    with database_url(settings) as url:
        database = Database(url, settings.database, settings.core.server_urls[1:])
        try:
            with database_errors(url):
                database.open(settings.database.pair_leaves, settings.database.key_ranges)
                _check_is_first(database)
                yield database
        finally:
            database.close()


def _check_is_first(database: Database) -> None:
    ((_, server_no, _),) = database.rows("servers.this")
    if server_no:
        raise DatabaseError(
            f"cannot use Postgres at {database.public_name} alone: it is server {server_no} of several, "
            "counted from 0; name all of them in LAION_ETL_DATABASE_URLS, in their order"
        )


def has_database(settings: Settings) -> bool:
    """Whether a server is set, or an embedded one has been used before."""
    return bool(settings.core.server_urls) or exists(Path(settings.core.data_dir))


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Yields the URL of the settings, or of the embedded server, which runs as long as the block."""
    if settings.core.server_urls:
        yield settings.core.server_urls[0]
        return
    folder = Path(settings.core.data_dir)
    with running_server(folder) as server, with_log_cause(folder):
        yield server.url("laion")


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turns errors of Postgres into DatabaseError, whose message names the server but no password."""
    try:
        yield
    except psycopg.Error as error:
        raise _database_error(error, url) from error


def _database_error(error: psycopg.Error, url: str) -> DatabaseError:
    kind: type[DatabaseError] = DatabaseError
    if is_outage(error):
        kind = DatabaseOutageError
    elif is_refusal(error):
        kind = DatabaseRefusedError
    return kind(_explanation(error, public_name(url), _first_line(error)))


def _explanation(error: psycopg.Error, name: str, cause: str) -> str:
    if isinstance(error, psycopg.errors.DiskFull):
        return (
            f"cannot write to Postgres at {name}: its disk is full ({cause}); nothing of this step was kept, "
            "free space and run it again"
        )
    if isinstance(error, psycopg.errors.QueryCanceled):
        return (
            f"cannot finish a statement of Postgres at {name}: {cause}; raise "
            "LAION_ETL_DATABASE_STATEMENT_TIMEOUT_S or LAION_ETL_DATABASE_BULK_TIMEOUT_S"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        advice = "this step needs another role, see docs/how-to/postgres.md"
        return f"cannot use Postgres at {name}: {cause}; {advice}"
    if is_refusal(error):
        return (
            f"cannot connect to Postgres at {name}: {cause}; "
            "check user, password and name of the database in LAION_ETL_DATABASE_URL"
        )
    if isinstance(error, psycopg.OperationalError) and error.sqlstate in (None, *_LOST_STATES):
        return (
            f"cannot connect to Postgres at {name}: {cause}; "
            "check that it is running and that LAION_ETL_DATABASE_URL is right"
        )
    return f"cannot use Postgres at {name}: {cause}; see the server's log"


def _refused(error: psycopg.Error) -> bool:
    """Whether the server refused the connection for a reason that does not change within minutes."""
    return is_refusal(error) or (error.sqlstate or "").startswith("53")


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

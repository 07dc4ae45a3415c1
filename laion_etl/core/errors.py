"""The errors a stage may raise. Messages have one form: `cannot <verb> <object>: <cause>; <what to do>`.

The command line prints the message as one line and exits with `exit_code`; anything that is not a
LaionEtlError is a bug and keeps its traceback.
"""

from laion_etl.core.hidden_secrets import hide_secrets

# Of a command that an outage ended: nothing is wrong with its input, and the same command goes on where it
# ended. The number is EX_TEMPFAIL of sysexits.h, "temporary failure; the user is invited to retry".
OUTAGE_EXIT_CODE = 75


class LaionEtlError(Exception):
    """Base of all expected errors."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message without secrets: it reaches logs, pages, the database and stats files."""
        return hide_secrets(super().__str__())


class Stopped(LaionEtlError):  # noqa: N818 - a requested end, not a failure
    """The command was asked to end (Ctrl-C, SIGTERM) and did so cleanly."""

    exit_code = 130


class SettingsError(LaionEtlError):
    """A setting is unknown, malformed or contradicts another."""

    exit_code = 2


class ServiceError(LaionEtlError):
    """A service cannot be used. No unit of work is to blame, so none may be counted as failed for it."""


class OutageError(ServiceError):
    """A service is unreachable, overloaded or full; the same command continues once it is back."""

    exit_code = OUTAGE_EXIT_CODE


class RefusedError(ServiceError):
    """A service refuses: no permission, or a name or setting that is wrong. Waiting does not help."""

    exit_code = 2


class StorageError(LaionEtlError):
    """A file of the store cannot be used; if the store as a whole is the cause, it is a ServiceError, too."""


class StoreOutageError(OutageError, StorageError):
    """The store cannot be read or written for now: unreachable, busy, full disk, expired key."""


class StoreRefusedError(RefusedError, StorageError):
    """The store may not be read or written as the settings say: no permission, no such bucket."""


class MissingFileError(StorageError):
    """The store answers and does not have the file; other files are not affected."""


class DamagedFileError(StorageError):
    """A file of the store does not have the content that its name promises; other files are not affected."""


class ChangedError(StorageError):
    """Another process modified a file since it was read."""


class InputError(LaionEtlError):
    """An input as a whole cannot be read (single bad records are counted, never raised)."""


class NewerFormatError(InputError):
    """A file was written by a newer laion-etl, which may have given a value another meaning."""


class DamagedInputError(InputError):
    """An input has no readable content; a retry that reads the same file cannot help."""

    exit_code = 2


class InternalError(LaionEtlError):
    """Rules raised unexpected exceptions for too many records: a broken installation, or a bug."""


class KilledError(LaionEtlError):
    """A process of the command was killed from outside, most often because memory ran out."""


class MissingInputError(InputError):
    """There is no such input."""


class CrawlError(LaionEtlError):
    """The crawl is not known at its source, or its file list cannot be read."""


class DatabaseError(LaionEtlError):
    """Postgres cannot do the work; if it cannot be used at all, it is a ServiceError, too."""


class DatabaseOutageError(OutageError, DatabaseError):
    """Postgres cannot be used for now: unreachable, starting, full, read-only."""


class DatabaseRefusedError(RefusedError, DatabaseError):
    """Postgres does not let this user in, or not do this; or the database does not exist."""


class NotLoadedError(DatabaseError):
    """The database has nothing of a crawl."""


class IncompleteError(LaionEtlError):
    """More of a crawl is missing than the run allows; a retry alone cannot help."""

    exit_code = 2


class ModelError(LaionEtlError):
    """A CLIP model, checkpoint or head cannot be loaded."""


class DemoError(LaionEtlError):
    """A service of the demo did not come up or its run failed."""

"""The errors a stage may raise. Messages have one form: `cannot <verb> <object>: <cause>; <what to do>`.

The command line prints the message as one line and exits with `exit_code`; anything that is not a
LaionEtlError is a bug and keeps its traceback.
"""

# Of a command that an outage ended: nothing is wrong with its input, and the same command goes on where it
# ended. The number is EX_TEMPFAIL of sysexits.h, "temporary failure; the user is invited to retry".
OUTAGE_EXIT_CODE = 75


class LaionEtlError(Exception):
    """Base of all expected errors."""

    exit_code = 1


class Stopped(LaionEtlError):  # noqa: N818 - a requested end, not a failure
    """The command was asked to end (Ctrl-C, SIGTERM) and did so cleanly."""

    exit_code = 130


class SettingsError(LaionEtlError):
    """A setting is unknown, malformed or contradicts another."""

    exit_code = 2


class OutageError(LaionEtlError):
    """A service is unreachable, refuses access or is full; the same command continues once it is back.

    No unit of work is to blame, so none may be counted as failed for it.
    """

    exit_code = OUTAGE_EXIT_CODE


class StorageError(LaionEtlError):
    """The store cannot be used; `StoreOutageError` where the store as a whole is the cause."""


class StoreOutageError(OutageError, StorageError):
    """The store cannot be read or written: unreachable, missing bucket, full disk, no permission."""


class MissingFileError(StorageError):
    """The store works, but has no such file."""


class ChangedError(StorageError):
    """Another process modified a file since it was read."""


class InputError(LaionEtlError):
    """An input as a whole cannot be read (single bad records are counted, never raised)."""


class DamagedInputError(InputError):
    """An input has no readable content; a retry that reads the same file cannot help."""

    exit_code = 2


class MissingInputError(InputError):
    """There is no such input."""


class CrawlError(LaionEtlError):
    """The crawl is not known at its source, or its file list cannot be read."""


class DatabaseError(LaionEtlError):
    """Postgres refuses the work; `DatabaseOutageError` where it cannot be used at all."""


class DatabaseOutageError(OutageError, DatabaseError):
    """Postgres cannot be reached, does not let us in, is full or too slow."""


class IncompleteError(LaionEtlError):
    """Too much of a crawl is missing to publish it; a retry alone cannot help."""

    exit_code = 2


class ModelError(LaionEtlError):
    """A CLIP model, checkpoint or head cannot be loaded."""


class DemoError(LaionEtlError):
    """A service of the demo did not come up or its run failed."""

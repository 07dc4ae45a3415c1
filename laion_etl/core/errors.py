"""The errors a stage may raise. Messages have one form: `cannot <verb> <object>: <cause>; <what to do>`.

The command line prints the message as one line and exits with `exit_code`; anything that is not a
LaionEtlError is a bug and keeps its traceback.
"""


class LaionEtlError(Exception):
    """Base of all expected errors."""

    exit_code = 1


class Stopped(LaionEtlError):  # noqa: N818 - a requested end, not a failure
    """The command was asked to end (Ctrl-C, SIGTERM) and did so cleanly."""

    exit_code = 130


class SettingsError(LaionEtlError):
    """A setting is unknown, malformed or contradicts another."""

    exit_code = 2


class StorageError(LaionEtlError):
    """The store cannot be read or written: missing bucket, full disk, no permission."""


class ChangedError(StorageError):
    """Another process modified a file since it was read."""


class InputError(LaionEtlError):
    """An input as a whole cannot be read (single bad records are counted, never raised)."""


class DamagedInputError(InputError):
    """An input has no readable content; a retry that reads the same file cannot help."""

    exit_code = 2


class InternalError(LaionEtlError):
    """Rules raised unexpected exceptions for too many records: a broken installation, or a bug."""


class MissingInputError(InputError):
    """There is no such input."""


class CrawlError(LaionEtlError):
    """The crawl is not known at its source, or its file list cannot be read."""


class DatabaseError(LaionEtlError):
    """Postgres cannot be reached or refuses the work."""


class IncompleteError(LaionEtlError):
    """Too much of a crawl is missing to publish it; a retry alone cannot help."""

    exit_code = 2


class ModelError(LaionEtlError):
    """A CLIP model, checkpoint or head cannot be loaded."""


class DemoError(LaionEtlError):
    """A service of the demo did not come up or its run failed."""

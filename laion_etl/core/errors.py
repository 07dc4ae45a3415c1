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


class MissingFileError(StorageError):
    """The store answers and does not have the file; other files are not affected."""


class DamagedFileError(StorageError):
    """A file of the store does not have the content that its name promises; other files are not affected."""


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
    """Postgres cannot be reached or refuses the work."""


class IncompleteError(LaionEtlError):
    """More of a crawl is missing than the run allows; a retry alone cannot help."""

    exit_code = 2


class ModelError(LaionEtlError):
    """A CLIP model, checkpoint or head cannot be loaded."""


class DemoError(LaionEtlError):
    """A service of the demo did not come up or its run failed."""

"""The errors a stage may raise. A message says what was being done, to which object, and what to do next.

The command line prints the message as one line and exits with `exit_code`; anything that is not a
LaionEtlError is a bug and keeps its traceback.
"""


class LaionEtlError(Exception):
    """Base of all expected errors."""

    exit_code = 1


class Stopped(LaionEtlError):  # noqa: N818 - an end that was asked for
    """The command was asked to end (Ctrl-C, SIGTERM) and did so cleanly."""

    exit_code = 130


class SettingsError(LaionEtlError):
    """A setting is unknown, malformed or contradicts another."""

    exit_code = 2


class StorageError(LaionEtlError):
    """The store can't be read or written: missing bucket, full disk, no permission."""


class ChangedError(StorageError):
    """A file is not what it was when it was read: somebody else wrote it meanwhile."""


class InputError(LaionEtlError):
    """An input as a whole can't be read (single bad records are counted, never raised)."""


class MissingInputError(InputError):
    """There is no such input."""


class CrawlError(LaionEtlError):
    """The crawl is not known at its source, or its file list can't be read."""


class DatabaseError(LaionEtlError):
    """Postgres can't be reached or refuses the work."""


class IncompleteError(LaionEtlError):
    """Too much of a crawl is missing to publish it; another try alone can't help."""

    exit_code = 2


class ModelError(LaionEtlError):
    """A CLIP model, checkpoint or head can't be loaded."""


class DemoError(LaionEtlError):
    """A service of the demo did not come up or its run failed."""

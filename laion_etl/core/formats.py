"""Numbers of file formats: written into a file, and compared with what this version knows when it is read.

Readers accept all earlier numbers. A higher one was written by a newer laion-etl, which may have given a
value another meaning, so the file is refused. docs/formats.md lists them ("Versions of formats").

Does not import pyarrow: Airflow imports this module whenever it parses the DAGs.
"""

from laion_etl.core.errors import NewerFormatError


def check_format(what: str, written: object, known: int, kind: str = "format") -> int:
    """Return the number written into a file; None, in files that have no number, is 1.

    Raises NewerFormatError for a number above `known`, and ValueError for what is not such a number. `what`
    is the URI of the file, or what else the number belongs to; `kind` says what is numbered.
    """
    if written is None:
        return 1
    if not isinstance(written, int) or isinstance(written, bool) or written < 1:
        raise ValueError(f"{written!r} is not the number of a {kind}")
    if written > known:
        raise NewerFormatError(
            f"cannot read {what}: it was written by {kind} {written} of a newer laion-etl, this one reads up "
            f"to {known}; upgrade laion-etl"
        )
    return written

"""Errors shown on a page while the store or the database is unavailable: the source and its message."""

import psycopg

from laion_etl.core.errors import LaionEtlError

Problem = dict[str, str]


def problem(what: str, error: LaionEtlError) -> Problem:
    """Describe an error; a database without tables is new, which is not a failure."""
    if isinstance(error.__cause__, psycopg.errors.UndefinedTable):
        return {"what": "schema", "message": ""}
    return {"what": what, "message": str(error)}

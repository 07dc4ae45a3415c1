"""What is said when a place does not answer: a word for which one it is, and its own message."""

import psycopg

from laion_etl.core.errors import LaionEtlError

Problem = dict[str, str]


def problem(what: str, error: LaionEtlError) -> Problem:
    """A database without tables is a new one, and no failure."""
    if isinstance(error.__cause__, psycopg.errors.UndefinedTable):
        return {"what": "schema", "message": ""}
    return {"what": what, "message": str(error)}

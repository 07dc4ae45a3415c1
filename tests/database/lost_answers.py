"""Loses the answers of the database: what is asked of it is done, and the caller doesn't learn that."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from laion_etl.core.errors import DatabaseOutageError
from laion_etl.database.connection import Database


@contextmanager
def answers_lost(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the block, all that is run through `database` is committed and then raises DatabaseOutageError."""
    run = database.run

    def lost(*work: object) -> None:
        run(*work)  # type: ignore[arg-type]
        raise DatabaseOutageError("cannot connect")

    with monkeypatch.context() as outage:
        outage.setattr(database, "run", lost)
        yield

"""Bring parked batches back to the queue, with all their attempts, once what parked them is repaired."""

from collections import Counter
from typing import Any

from psycopg import Connection

from laion_etl.core.causes import cause_of
from laion_etl.core.errors import InputError
from laion_etl.database.connection import Database
from laion_etl.database.load import crawl_number
from laion_etl.database.queries import query
from laion_etl.database.rollups import roll_up

_PAGE = 5_000  # rows of one transaction


def requeue(
    crawl: str,
    database: Database,
    cause: str = "",
    batch: int | None = None,
    *,
    dry_run: bool = False,
) -> dict[str, int]:
    """Make parked batches of a crawl ready again; return how many by cause, the most frequent cause first.

    `cause`: only batches whose error contains this text, as it is or as `cause_of` gives it; case does not
    matter. `batch`: only this one. `dry_run`: only count them. It may be interrupted and run again. Raises
    DatabaseError for an unknown crawl, InputError if `batch` is not parked.
    """
    crawl_no = database.run(lambda connection: crawl_number(connection, crawl))
    found: Counter[str] = Counter()
    after = -1
    while True:
        keys = {"crawl_no": crawl_no, "after": after, "batch": batch, "page": _PAGE}
        parked = database.rows("queue.parked", keys)
        if not parked:
            break
        after = parked[-1][0]
        wanted = {number: cause_of(error) for number, error in parked if _matches(error, cause)}
        numbers = sorted(wanted) if dry_run else _make_ready(crawl_no, sorted(wanted), database)
        found.update(wanted[number] for number in numbers)
        roll_up(database)
    if batch is not None and not found:
        raise InputError(
            f"cannot requeue batch {batch} of {crawl}: it is not parked{' by this cause' if cause else ''}; "
            f"see `laion-etl status --crawl {crawl}`"
        )
    return dict(found.most_common())


def _matches(error: str, cause: str) -> bool:
    return cause.lower() in error.lower() or cause.lower() in cause_of(error)


def _make_ready(crawl_no: int, batches: list[int], database: Database) -> list[int]:
    """Return the batches that were parked; others may have been requeued meanwhile."""
    keys: dict[str, Any] = {"crawl_no": crawl_no, "batches": batches}

    def work(connection: Connection) -> list[int]:
        return [number for (number,) in connection.execute(query("queue.requeue"), keys).fetchall()]

    return database.run(work)

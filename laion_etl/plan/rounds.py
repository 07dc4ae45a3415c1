"""Rounds of planning and their windows in Postgres.

A round is all new pairs of a crawl, its windows equal slices of the key space. Both are decided when it
begins, in the transaction that marks its partitions: from then on loaders leave their rows alone. Each window
is recorded in one short transaction, and the last one finishes the round.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from laion_etl.core.errors import DatabaseError
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import Output, fingerprint
from laion_etl.database.connection import Database
from laion_etl.database.key_ranges import key_ranges
from laion_etl.database.locks import HeldLocks
from laion_etl.database.partition_copies import freeze_copies, refresh_stats
from laion_etl.database.polling import poll
from laion_etl.database.queries import query
from laion_etl.database.servers import RangeServers
from laion_etl.io.planned import PlannedBatch, runs
from laion_etl.plan.batch_numbers import BatchNumbers, Slot
from laion_etl.plan.slots import slots
from laion_etl.settings import PlanSettings

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Window:
    """A slice of the key space. `pairs` and `batches` are 0 until it is done."""

    number: int
    keys: tuple[UUID, UUID]  # the first and the last
    slot: Slot
    is_done: bool
    pairs: int
    batches: int


@dataclass(frozen=True, slots=True)
class Round:
    """New pairs of a crawl that are being cut into batches."""

    crawl: str
    crawl_no: int
    number: int
    pairs: int
    fingerprint: str
    windows: tuple[Window, ...]

    @property
    def first_number(self) -> int:
        """The first number of all slots; those below were given before the round."""
        return min(window.slot.first for window in self.windows)

    def share(self, index: int, of: int) -> tuple[Window, ...]:
        """Return the windows of range `index` of `of`, counted from 1: neighbours, which may share files."""
        count = len(self.windows)
        return self.windows[count * (index - 1) // of : count * index // of]


def open_round(crawl: str, crawl_no: int, database: Database) -> Round | None:
    """Return the round of a crawl that is not done."""

    def read(connection: Connection) -> Round | None:
        row = connection.execute(query("plan.open_round"), {"crawl_no": crawl_no}).fetchone()
        if row is None:
            return None
        number, pairs, made_of = row
        keys = {"crawl_no": crawl_no, "round": number}
        windows = connection.execute(query("plan.open_windows"), keys).fetchall()
        return Round(crawl, crawl_no, number, pairs, made_of, tuple(map(_window, windows)))

    return database.run(read)


def _window(row: tuple[Any, ...]) -> Window:
    number, first_key, last_key, first_batch, last_batch, is_done, pairs, batches = row
    slot = Slot(first_batch, last_batch)
    return Window(number, (first_key, last_key), slot, is_done, pairs or 0, batches or 0)


def begin_round(
    crawl: str,
    crawl_no: int,
    held: HeldLocks,
    numbers: BatchNumbers,
    settings: PlanSettings,
    servers: RangeServers,
) -> None:
    """Freeze the partitions of a crawl that are not planned yet, if there are any, and decide the windows.

    With several servers they are frozen on each of them before the pairs are counted. After a kill in
    between, the next planner freezes them again, together with those loaded meanwhile.
    """
    following = numbers.following()
    purpose = f"plan of {crawl}"
    frozen: list[int] | None = None
    if servers.further:
        frozen = _when_free(held, partial(_frozen, crawl_no=crawl_no), purpose)
        freeze_copies(frozen, servers, purpose)
        refresh_stats(frozen, servers)
    _when_free(
        held,
        partial(
            _begun, crawl_no=crawl_no, following=following, end=numbers.last, settings=settings, frozen=frozen
        ),
        purpose,
    )


def _when_free(held: HeldLocks, work: Callable[[Connection], ResultT | None], purpose: str) -> ResultT:
    """Repeat work that does nothing, and returns None, while a loader is recording a partition."""
    return poll(lambda: held.run(work), lambda: "a loader that is just recording its partition", purpose)


def _unplanned(connection: Connection, crawl_no: int) -> list[Any] | None:
    """Lock the partitions that are not planned; returns None if a loader is recording one."""
    keys = {"crawl_no": crawl_no}
    rows = connection.execute(query("plan.unplanned_partitions"), keys).fetchall()
    total = connection.execute(query("plan.unplanned"), keys).fetchone()
    return rows if total is not None and total[0] == len(rows) else None


def _frozen(connection: Connection, crawl_no: int) -> list[int] | None:
    """Mark the partitions that are not planned; returns them, or None if a loader is recording one."""
    if (rows := _unplanned(connection, crawl_no)) is None:
        return None
    numbers = [number for number, *_ in rows]
    connection.execute(query("plan.mark_planning"), {"partitions": numbers})
    return numbers


def _begun(
    connection: Connection,
    crawl_no: int,
    following: int,
    end: int,
    settings: PlanSettings,
    frozen: Sequence[int] | None,
) -> bool | None:
    """Begin a round; returns None, having done nothing, if a loader is recording a partition.

    `frozen`: the only partitions that may be in it.
    """
    keys: dict[str, object] = {"crawl_no": crawl_no}
    if (rows := _unplanned(connection, crawl_no)) is None:
        return None
    if frozen is not None:
        rows = [row for row in rows if row[0] in set(frozen)]
    if not rows:
        return True
    pairs = sum(kept for _, kept, _ in rows)
    windows = _ceil(pairs, settings.window_pairs)
    batches = _ceil(_ceil(pairs, max(1, windows)), settings.batch_size)
    parts = (
        list(zip(key_ranges(windows), slots(following, end, windows, batches), strict=True)) if pairs else []
    )
    last = connection.execute(query("plan.last_round"), keys).fetchone()
    keys |= {"round": ((last and last[0]) or 0) + 1, "pairs": pairs, "done": not parts}
    made_of = sorted((fingerprint, kept) for _, kept, fingerprint in rows)  # whatever the order of loading
    keys["fingerprint"] = fingerprint("round", keys["round"], made_of, settings)
    connection.execute(query("plan.mark_planning"), {"partitions": [number for number, *_ in rows]})
    connection.execute(query("plan.add_round"), keys)
    if not parts:  # every pair was known before
        connection.execute(query("plan.mark_round_planned"), keys)
    with connection.cursor() as cursor, cursor.copy(query("plan.copy_windows")) as copy:
        for number, ((first, end_key), slot) in enumerate(parts):
            copy.write_row((crawl_no, keys["round"], number, first, end_key, slot.first, slot.last))
    return True


def is_done(of: Round, window: Window, database: Database) -> bool:
    """Whether a window is recorded by now. Raises DatabaseError if the crawl was forgotten."""
    keys = {"crawl_no": of.crawl_no, "round": of.number, "window_no": window.number}
    rows = database.rows("plan.is_window_done", keys)
    if not rows:
        raise _forgotten(of.crawl)
    return bool(rows[0][0])


def record_window(
    of: Round, window: Window, batches: Sequence[PlannedBatch], file: Output, database: Database
) -> None:
    """Put the batches of a window into the queue; the last window finishes its round.

    Does nothing if the window is recorded already. Raises DatabaseError if the crawl was forgotten, or if not
    all of its pairs were found.
    """
    keys = {
        "crawl_no": of.crawl_no,
        "round": of.number,
        "window_no": window.number,
        "pairs": sum(batch.pairs for batch in batches),
        "batches": len(batches),
        "numbers": Jsonb(runs(sorted(batch.number for batch in batches))),
        "file": Jsonb(asdict(file)),
    }

    def record(connection: Connection) -> None:
        expected = connection.execute(query("plan.lock_round"), keys).fetchone()
        row = connection.execute(query("plan.is_window_done"), keys).fetchone()
        if expected is None or row is None:
            raise _forgotten(of.crawl)
        if row[0]:
            return  # by another planner, or a first attempt was committed and its answer lost
        with connection.cursor() as cursor, cursor.copy(query("plan.copy_batches")) as copy:
            for batch in batches:
                copy.write_row((batch.number, of.crawl_no, batch.pairs, Jsonb(asdict(batch.file))))
        connection.execute(query("plan.record_window"), keys)
        left, found = connection.execute(query("plan.round_progress"), keys).fetchone() or (0, 0)
        if left:
            return
        if found != expected[0]:
            raise DatabaseError(
                f"cannot plan {of.crawl}: {found:,} of its {quantity(expected[0], 'new pair')} were found; "
                f"its last window was not planned, run `laion-etl db forget --crawl {of.crawl}` and load it "
                "again"
            )
        connection.execute(query("plan.mark_round_planned"), keys)
        connection.execute(query("plan.finish_round"), keys)

    database.run(record)


def _forgotten(crawl: str) -> DatabaseError:
    return DatabaseError(f"cannot plan {crawl}: it was forgotten meanwhile; load it, and run it again")


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)

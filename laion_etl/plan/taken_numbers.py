"""Which batch numbers the database has."""

from collections.abc import Sequence
from dataclasses import dataclass

from laion_etl.database.connection import Database
from laion_etl.plan.rounds import Round, Window, is_done


class WindowDoneError(Exception):
    """Another planner has recorded the window meanwhile."""


@dataclass(frozen=True, slots=True)
class TakenNumbers:
    """The batch numbers that a database has; see batch_numbers.Taken.

    For a window: a batch that another planner of it has put into the queue is not one of other pairs.
    """

    database: Database
    of: Round | None = None
    window: Window | None = None

    def highest(self, first: int, last: int) -> int | None:
        ((number,),) = self.database.rows("plan.highest_number", {"first": first, "last": last})
        return None if number is None else int(number)

    def among(self, numbers: Sequence[int]) -> set[int]:
        """Return those of some numbers that are taken. Raises WindowDoneError."""
        rows = self.database.rows("plan.numbers_among", {"numbers": list(numbers)}) if numbers else []
        if rows and self.of and self.window and is_done(self.of, self.window, self.database):
            raise WindowDoneError
        return {int(number) for (number,) in rows}

"""The grids of a crawl: a letter for the state of every partition and batch, and a digit for its duration.

Cells are encoded as short strings, and numbers as runs: [first, count]. Of a crawl with many batches a cell
is a thousand of them, with counts.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from laion_etl.dataset.score_progress import ScoreProgress

DEPTHS = 5
BatchRow = tuple[int, str, bool, float | None]  # number, state, whether its lease ran out, seconds it took


class Cell(StrEnum):
    """States of cells, in the order of a unit's life."""

    WAITING = "."
    PARSED = "p"
    LOADING = "g"
    LOADED = "l"
    PLANNED = "b"  # its pairs are cut into batches
    HELD = "r"  # a worker holds it
    SCORING = "c"
    SILENT = "x"  # its worker's lease ran out
    FAILED = "f"
    DOWNLOADED = "d"
    SCORED = "s"


_CELLS = {
    "downloading": Cell.HELD,
    "downloaded": Cell.DOWNLOADED,
    "scoring": Cell.SCORING,
    "scored": Cell.SCORED,
    "parked": Cell.FAILED,
}


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells in the order of their numbers. `depths`: how long each took, 0 to 4, '-' if unknown; `edges`: the
    seconds at which a depth ends."""

    numbers: list[tuple[int, int]]
    states: str
    depths: str = ""
    edges: tuple[float, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ThousandCell:
    """A thousand batch numbers of a crawl, its first and last batch, and how many are in which state."""

    thousand: int
    first: int
    last: int
    batches: int
    done: int
    failed: int
    held: int
    silent: int
    scored: int

    def to_plain(self, score: ScoreProgress) -> dict[str, int]:
        """Return plain JSON values; `scored`: by the queue, or by the records of groups without it."""
        return asdict(self) | {"scored": max(self.scored, score.count_between(self.first, self.last))}


def partition_grid(
    parsed: Iterable[int],
    loaded: Iterable[int],
    rows: Iterable[tuple[int, bool, bool]] | None,
    failed: Iterable[tuple[str, int]] = (),
) -> Grid:
    """Build the grid from the numbers that the store has of parse and load, from Postgres (number, whether it
    is being loaded, whether it is planned), and from failures (stage, number) not resolved since, even if an
    earlier run finished the partition.

    If Postgres is available it alone decides what is loaded; otherwise `rows` is None.
    """
    states: dict[int, Cell] = dict.fromkeys(parsed, Cell.PARSED)
    if rows is None:
        states |= dict.fromkeys(loaded, Cell.LOADED)
    for number, loading, planned in rows or ():
        known = Cell.PLANNED if planned else Cell.LOADED
        states[number] = Cell.LOADING if loading else known
    for _, number in failed:
        if states.get(number) is not Cell.LOADING:  # otherwise it is being retried
            states[number] = Cell.FAILED
    numbers = sorted(states)
    return Grid(runs(numbers), "".join(states[number].value for number in numbers))


def batch_grid(rows: Sequence[BatchRow], score: ScoreProgress) -> Grid:
    """Build the grid of some batches from Postgres and from what the score stage has recorded."""
    done = score.between(rows[0][0], rows[-1][0]) if rows else set()
    seconds = [row[3] for row in rows]
    edges = _edges([s for s in seconds if s is not None])
    return Grid(
        runs([row[0] for row in rows]),
        "".join(
            _batch_cell(state, silent=silent, scored=number in done) for number, state, silent, _ in rows
        ),
        "".join("-" if s is None else str(bisect_right(edges, s)) for s in seconds),
        tuple(round(edge, 1) for edge in edges),
    )


def runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Encode ascending numbers as runs: [3, 4, 5, 9] is [(3, 3), (9, 1)]."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return found


def _batch_cell(state: str, *, silent: bool, scored: bool) -> str:
    if scored and state == "downloaded":  # without the queue
        return Cell.SCORED.value
    return (Cell.SILENT if silent else _CELLS.get(state, Cell.WAITING)).value


def _edges(seconds: list[float]) -> list[float]:
    """Return four edges between five depths: equal steps from fast to slow, without outliers."""
    if not seconds:
        return []
    ordered = sorted(seconds)
    low, high = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.02, 0.98))
    return [low + (high - low) * step / DEPTHS for step in range(1, DEPTHS)]

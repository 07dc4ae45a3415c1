"""The grids of a crawl: a letter for the state of every partition and batch, and a digit for its duration.

Thousands of cells are encoded as short strings, and numbers as runs: [first, count].
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from laion_etl.core.stage_stats import StageStats
from laion_etl.io.planned import batches_in

DEPTHS = 5


class Cell(StrEnum):
    """States of cells, in the order of a unit's life."""

    WAITING = "."
    PARSED = "p"
    LOADING = "g"
    LOADED = "l"
    PLANNED = "b"  # its pairs are cut into batches
    HELD = "r"  # a worker holds it
    SILENT = "x"  # its worker's lease ran out
    FAILED = "f"
    DOWNLOADED = "d"
    SCORED = "s"


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


def partition_grid(
    stats: Mapping[str, Sequence[StageStats]],
    rows: Iterable[tuple[int, bool, bool]] | None,
    failed: Iterable[tuple[str, int]] = (),
) -> Grid:
    """Build the grid from the stats of parse and load, from Postgres (number, whether it is being loaded,
    whether it is planned), and from failures (stage, number) not resolved since, even if an earlier run
    finished the partition.

    If Postgres is available it alone decides what is loaded; otherwise `rows` is None.
    """
    states: dict[int, Cell] = {}
    for stage, state in (("parse", Cell.PARSED), ("load", Cell.LOADED)):
        if stage == "parse" or rows is None:
            states |= dict.fromkeys(finished_numbers(stats[stage]), state)
    for number, loading, planned in rows or ():
        known = Cell.PLANNED if planned else Cell.LOADED
        states[number] = Cell.LOADING if loading else known
    for _, number in failed:
        if states.get(number) is not Cell.LOADING:  # otherwise it is being retried
            states[number] = Cell.FAILED
    numbers = sorted(states)
    return Grid(runs(numbers), "".join(states[number].value for number in numbers))


def batch_grid(rows: Sequence[tuple[int, str, bool, float | None]], scored: Iterable[StageStats]) -> Grid:
    """Build the grid from Postgres (number, state, lease expired or not, seconds taken) and score stats."""
    done = finished_numbers(scored)
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


def batch_grid_of_store(stats: Mapping[str, Sequence[StageStats]]) -> Grid:
    """Build the grid from the store alone, if Postgres is unavailable."""
    planned = {number for unit in stats["plan"] for number in batches_in(unit)}
    fetched, scored = finished_numbers(stats["download"]), finished_numbers(stats["score"])
    numbers = sorted(planned | fetched | scored)
    cells = (
        Cell.SCORED if n in scored else Cell.DOWNLOADED if n in fetched else Cell.WAITING for n in numbers
    )
    return Grid(runs(numbers), "".join(cell.value for cell in cells))


def finished_numbers(units: Iterable[StageStats]) -> set[int]:
    """Return the numbers of the partitions or batches that have stats."""
    return {number for unit in units if (number := _number(unit.unit)) is not None}


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
    if scored:
        return Cell.SCORED.value
    if state == "leased":
        return (Cell.SILENT if silent else Cell.HELD).value
    return {"done": Cell.DOWNLOADED, "failed": Cell.FAILED}.get(state, Cell.WAITING).value


def _edges(seconds: list[float]) -> list[float]:
    """Return four edges between five depths: equal steps from fast to slow, without outliers."""
    if not seconds:
        return []
    ordered = sorted(seconds)
    low, high = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.02, 0.98))
    return [low + (high - low) * step / DEPTHS for step in range(1, DEPTHS)]


def _number(unit: str) -> int | None:
    digits = unit.removeprefix("part-")
    return int(digits) if digits.isdigit() else None

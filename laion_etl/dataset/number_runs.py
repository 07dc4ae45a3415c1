"""Ascending numbers as runs of equal steps: 3, 5, 7, 20 is (3, 2, 3), (20, 1, 1)."""

from collections.abc import Iterable
from typing import Any

Run = tuple[int, int, int]  # first number, step, count

_MOST_NUMBERS = 10_000_000  # of a run in a file: more batches than crawls have


def runs_of(numbers: Iterable[int]) -> list[Run]:
    """Return ascending numbers as runs."""
    found: list[Run] = []
    for number in numbers:
        if found:
            first, step, count = found[-1]
            if count == 1 or number == first + step * count:
                found[-1] = (first, number - first if count == 1 else step, count + 1)
                continue
        found.append((number, 1, 1))
    return found


def read_runs(plain: Iterable[Any]) -> list[Run]:
    """Return the runs of a JSON document. Raises ValueError, TypeError or OverflowError for anything else."""
    found = [(int(first), int(step), int(count)) for first, step, count in plain]
    if not all(step > 0 and 0 <= count <= _MOST_NUMBERS for _, step, count in found):
        raise ValueError("its batches are not runs of numbers")
    return found


def within(run: Run, first: int, last: int) -> range:
    """Return the numbers of a run from `first` to `last`."""
    start, step, count = run
    skipped = max(0, -(-(first - start) // step))
    end = min(start + step * (count - 1), last)
    return range(start + step * skipped, end + 1, step)

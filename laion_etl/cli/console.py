"""Terminal output: progress bars on a terminal, plain lines elsewhere, results as one line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from laion_etl.core.stage_stats import StageStats

Report = Callable[[int, int], None]  # done, total

_PLAIN_INTERVAL_S = 5.0


@contextmanager
def progress(console: "Console", title: str) -> Iterator[Report]:
    """A `report(done, total)` function that draws a bar, or prints a line every few seconds."""
    if not console.is_terminal:
        yield _plain_lines(console, title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_lines(console: "Console", title: str) -> Report:
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_S:
            last = now
            console.print(f"{title}: {done:,} of {total:,}", highlight=False)

    return report


def summary(stats: "StageStats") -> str:
    """One line: `parse part-00001: 412 of 1,034 kept (no_alt 300, duplicate_in_partition 200, ...)`."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in list(stats.dropped.items())[:4])
    more = ", ..." if len(stats.dropped) > 4 else ""
    dropped = f" ({reasons}{more})" if reasons else ""
    return f"{stats.stage} {stats.unit}: {stats.kept:,} of {stats.input:,} kept{dropped}"

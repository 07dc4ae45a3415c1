"""Numbers with what they count, as printed texts, cards, reports and pages have them: 1 pair, 2,000 pairs.

Pages that draw in the browser have the same words from quantities.js.
"""

from collections.abc import Sequence
from pathlib import Path

QUANTITIES_JS = Path(__file__).with_suffix(".js")


def quantity(number: int, one: str, several: str = "") -> str:
    """Return a number and its noun; `several` is the plural where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def first_items(items: Sequence[str], most: int) -> list[str]:
    """Return the first `most` items, and if there are more, a last one that says how many."""
    return [*items[:most], *_rest(len(items) - most)]


def first_in_line(items: Sequence[str], most: int) -> str:
    """Return the first `most` items in a line, and how many more there are: a, b and 1,200 more."""
    return " ".join([", ".join(items[:most]), *_rest(len(items) - most)])


def _rest(number: int) -> list[str]:
    return [f"and {number:,} more"] if number > 0 else []

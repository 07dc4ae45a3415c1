"""Exceptions that rules raise, built-in and custom ones: how they are shown, and how many are too many.

Each costs the record, link or image it came from, and no other. Two things are not contained: a
LaionEtlError, which says what is wrong with a setting or an input, and a lack of memory. A few failures say
that a rule has a bug; many say that the installation is broken (a missing model, say), and an almost empty
unit must not pass for a finished one.

Most rules work on columns. Where one raises, it is called again for halves of the column, down to the rows
that it fails for (`apply_by_rows`).
"""

from collections.abc import Callable

from laion_etl.core.errors import LaionEtlError
from laion_etl.core.hidden_secrets import hide_secrets

NOT_CONTAINED = (LaionEtlError, MemoryError)

_MAX_CHARS = 300
_MAX_SHARE = 0.01
_FEW = 10  # of a short file, these are more than 1%


def too_many(failed: int, total: int) -> bool:
    """Whether rules failed for more than 1% of what they saw, and more than ten times."""
    return failed > max(_FEW, _MAX_SHARE * total)


def apply_by_rows(
    rule: Callable[[int, int], None], rows: int, failed: Callable[[int, Exception], None]
) -> None:
    """Calls `rule(start, end)` for all rows, in order; a row that it raises for goes to `failed` instead.

    A rule that raised is called again for parts of the same rows, so it must not have changed anything.
    """
    waiting = [(0, rows)] if rows else []
    while waiting:
        start, end = waiting.pop()
        try:
            rule(start, end)
        except NOT_CONTAINED:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a rule raises
            if end - start == 1:
                failed(start, error)
            else:
                middle = (start + end + 1) // 2
                waiting += [(middle, end), (start, middle)]


def described(error: Exception) -> str:
    """Return type and message of an exception, printable and without secrets, of some 300 characters."""
    return printable(hide_secrets(f"{type(error).__name__}: {error}"))


def printable(text: str) -> str:
    """Return a text of some 300 characters at most, with U+FFFD for those that cannot be printed."""
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return shown if len(shown) <= _MAX_CHARS else f"{shown[:_MAX_CHARS]}..."

"""Exceptions that rules raise, built-in and custom ones: how they are shown, and how many are too many.

Each costs the record, link or image it came from, and no other. Two things are not contained: a
LaionEtlError, which says what is wrong with a setting or an input, and a lack of memory. A few failures say
that a rule has a bug; many say that the installation is broken (a missing model, say), and an almost empty
unit must not pass for a finished one.
"""

from laion_etl.core.errors import LaionEtlError

NOT_CONTAINED = (LaionEtlError, MemoryError)

_MAX_CHARS = 300
_MAX_SHARE = 0.01
_FEW = 10  # of a short file, these are more than 1%


def too_many(failed: int, total: int) -> bool:
    """Whether rules failed for more than 1% of what they saw, and more than ten times."""
    return failed > max(_FEW, _MAX_SHARE * total)


def described(error: Exception) -> str:
    """Return type and message of an exception, printable, of some 300 characters at most."""
    return printable(f"{type(error).__name__}: {error}")


def printable(text: str) -> str:
    """Return a text of some 300 characters at most, with U+FFFD for those that cannot be printed."""
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return shown if len(shown) <= _MAX_CHARS else f"{shown[:_MAX_CHARS]}..."

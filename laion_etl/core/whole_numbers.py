"""Numbers in what users write: options, file names and labels."""

_MOST_DIGITS = 18


def whole_number(text: str) -> int | None:
    """Return the number that up to 18 ASCII digits stand for; None for any other text.

    `str.isdigit` is also true of ², which int() refuses, and of the digits of other scripts.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None

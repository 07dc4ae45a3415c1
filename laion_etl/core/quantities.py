"""Numbers with what they count, as printed texts, cards, reports and pages have them: 1 pair, 2,000 pairs."""


def quantity(number: int, one: str, several: str = "") -> str:
    """Return a number and its noun; `several` is the plural where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"

"""Text from elsewhere on one line, for terminals, logs and alerts."""


def one_line(text: str) -> str:
    """Replace line ends, control characters and those that change the reading direction by spaces."""
    return "".join(char if char.isprintable() else " " for char in text)

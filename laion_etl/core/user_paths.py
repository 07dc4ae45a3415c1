"""Paths as users write them."""

from pathlib import Path


def user_path(text: str) -> Path:
    """Return a path, in a home folder if it begins with `~`; that of an unknown user stays as it is."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user: a file of this name is not found either
        return path

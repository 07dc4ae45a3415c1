"""Ranges of mapped stages on the command line."""

from laion_etl.core.errors import SettingsError


def range_of(text: str) -> tuple[int, int]:
    """Return I and N of `I/N`, range I of N, counted from 1. Raises SettingsError."""
    index, _, of = text.partition("/")
    if not (index.isdigit() and of.isdigit() and 1 <= int(index) <= int(of)):
        raise SettingsError(f"invalid --range {text}; expected I/N with I from 1 to N, for example 1/16")
    return int(index), int(of)

"""How a knob is written down: a field of a group's dataclass with its default and what it means."""

from dataclasses import field
from typing import Any

PREFIX = "LAION_ETL_"

Entries = tuple[tuple[str, str], ...]  # a TOML table of texts


def knob(default: Any, doc: str) -> Any:
    """A field with a default, its unit and reason."""
    return field(default=default, metadata={"doc": doc})


def secret(default: str, doc: str) -> Any:
    """A knob that is never logged and never written into a pod."""
    return field(default=default, metadata={"doc": doc, "secret": True})

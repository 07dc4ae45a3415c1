"""How a setting is written down: a field of a group's dataclass with its default and what it means."""

from dataclasses import field
from typing import Any

PREFIX = "LAION_ETL_"

Entries = tuple[tuple[str, str], ...]  # a TOML table of texts


def setting(default: Any, doc: str) -> Any:
    """A field with a default, its unit and reason."""
    return field(default=default, metadata={"doc": doc})


def secret_setting(default: str, doc: str) -> Any:
    """A setting that is never logged and never written into a pod."""
    return field(default=default, metadata={"doc": doc, "secret": True})

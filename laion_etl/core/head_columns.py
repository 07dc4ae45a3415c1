"""Columns that custom heads add: each describes itself, in the files it is in and in stats and manifests.

They come after the columns of the schema, in scored shards and published files alike. The description in the
metadata of a field tells such a column from one that does not belong into the file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from laion_etl.core.errors import SettingsError

TYPES: Mapping[str, pa.DataType] = {
    "float32": pa.float32(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_MAX_CHARS = 300
_MEANING, _HEAD = "laion_etl.meaning", "laion_etl.head"


@dataclass(frozen=True, slots=True)
class HeadColumn:
    """A column that a head writes: its name, what a value means, and its type.

    `type` is float32, int32, int64, bool or string. `meaning` is a short sentence for the dataset's card.
    `head` is the identity of the head, which scoring fills in. Raises SettingsError for anything else.
    """

    name: str
    meaning: str
    type: str = "float32"
    head: str = ""

    def __post_init__(self) -> None:
        for value, problem in (
            (bool(_NAME.match(self.name)), f"the name {self.name[:80]!r} has other characters than a-z0-9_"),
            (
                0 < len(self.meaning) <= _MAX_CHARS and self.meaning.isprintable(),
                "it has no meaning, in a line",
            ),
            (self.type in TYPES, f"{self.type!r} is not a type; use {', '.join(TYPES)}"),
        ):
            if not value:
                raise SettingsError(f"cannot use the column {self.name[:80]!r} of a head: {problem}")

    @property
    def field(self) -> pa.Field:
        """The field of a schema, which is null where the score was not computed."""
        return pa.field(self.name, TYPES[self.type], metadata={_MEANING: self.meaning, _HEAD: self.head})

    def to_plain(self) -> dict[str, str]:
        """Return plain JSON values; `from_plain` reads them back."""
        return asdict(self)


def from_plain(entries: Iterable[Mapping[str, Any]]) -> tuple[HeadColumn, ...]:
    """Read columns from stats or a manifest. Raises TypeError or SettingsError for anything else."""
    return tuple(HeadColumn(**{name: str(value) for name, value in entry.items()}) for entry in entries)


def with_columns(schema: pa.Schema, columns: Sequence[HeadColumn]) -> pa.Schema:
    """Return a schema with columns of heads at its end."""
    return pa.schema([*schema, *(column.field for column in columns)], schema.metadata)


def without_columns(schema: pa.Schema) -> pa.Schema:
    """Return a file's schema without the columns of heads at its end, to compare it with the declared one."""
    return pa.schema(list(schema)[: _declared(schema)], schema.metadata)


def head_columns(schema: pa.Schema) -> pa.Schema:
    """Return the columns of heads at the end of a file's schema."""
    return pa.schema(list(schema)[_declared(schema) :])


def has_columns(schema: pa.Schema, columns: Sequence[HeadColumn]) -> bool:
    """Whether a file has these columns of heads and no others."""
    return bool(head_columns(schema).equals(pa.schema([column.field for column in columns])))


def _declared(schema: pa.Schema) -> int:
    count = len(schema)
    while count and _MEANING.encode() in (schema.field(count - 1).metadata or {}):
        count -= 1
    return count


def merged(columns: Iterable[HeadColumn]) -> tuple[HeadColumn, ...]:
    """Return the columns of several files, each once, in the order in which they first occur.

    Raises ValueError, naming it, for a column that is not the same in all of them.
    """
    found: dict[str, HeadColumn] = {}
    for column in columns:
        if found.setdefault(column.name, column) != column:
            raise ValueError(column.name)
    return tuple(found.values())

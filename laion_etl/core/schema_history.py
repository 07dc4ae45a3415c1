"""The columns of a parquet file in every version of its format, so that files of earlier versions are read.

A schema may change in two ways: a column is added, which is null in the rows of earlier files and therefore
has to be nullable, or a column is renamed. Each change raises the number of the format. A column of another
type, or one less, needs a converter.

A file is of the format whose columns it has, exactly: one that lacks a column, or has one of another type, is
refused. The number in the metadata of its schema tells a file of a newer version from a damaged one.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from laion_etl.core.errors import InputError
from laion_etl.core.formats import check_format
from laion_etl.core.head_columns import head_columns, without_columns

METADATA_KEY = b"laion_etl.format"


class SchemaHistory:
    """The schema of a kind of file, and what changed since format 1.

    `added`: the columns that a format added, by its number. `renamed`: former names by new ones, by the
    number of the format that renamed them. `in_file`: the number is in the metadata of each file. Raises
    ValueError for an added column that is not nullable.
    """

    def __init__(
        self,
        what: str,
        fields: Sequence[pa.Field],
        *,
        added: Mapping[int, Sequence[str]] | None = None,
        renamed: Mapping[int, Mapping[str, str]] | None = None,
        in_file: bool = True,
    ) -> None:
        self.what = what
        self.added = dict(added or {})
        self.renamed = dict(renamed or {})
        self.number = max([1, *self.added, *self.renamed])
        metadata = {METADATA_KEY: str(self.number).encode()} if in_file else None
        self.schema = pa.schema(fields, metadata=metadata)
        for name in (name for names in self.added.values() for name in names):
            if not self.schema.field(name).nullable:
                raise ValueError(
                    f"cannot add {name} to {what}: earlier files have no value; make it nullable"
                )

    def columns(self, number: int) -> pa.Schema:
        """Return the schema of a format, without metadata."""
        fields = list(self.schema)
        for later in range(self.number, number, -1):
            former = self.renamed.get(later, {})
            left = (field for field in fields if field.name not in self.added.get(later, ()))
            fields = [field.with_name(former.get(field.name, field.name)) for field in left]
        return pa.schema(fields)

    def number_of(self, schema: pa.Schema) -> int | None:
        """Return the format whose columns a file has, before those of heads; None if there is none."""
        numbers, own = range(self.number, 0, -1), without_columns(schema)
        return next((number for number in numbers if own.equals(self.columns(number))), None)

    def check_number(self, schema: pa.Schema, uri: str) -> None:
        """Raise InputError if a newer laion-etl wrote the file, whatever its columns are."""
        written = (schema.metadata or {}).get(METADATA_KEY)
        if written is None:
            return
        try:
            check_format(uri, int(written) if written.isdigit() else written, self.number)
        except ValueError as error:
            raise InputError(f"cannot read {uri}: {error}; restore the file, or make it again") from error

    def check(self, schema: pa.Schema, uri: str, advice: str) -> int:
        """Return the format of a file. Raises InputError for a newer one, and for columns of no format."""
        self.check_number(schema, uri)
        if (number := self.number_of(schema)) is None:
            raise InputError(f"cannot read {uri}: it does not have the columns of {self.what}; {advice}")
        return number

    def former_names(self, columns: Sequence[str], schema: pa.Schema) -> list[str]:
        """Return the names that some of today's columns have in a file with this schema."""
        former = {new: old for names in self.renamed.values() for new, old in names.items()}
        return [
            former[name] if name not in schema.names and former.get(name) in schema.names else name
            for name in columns
        ]

    def with_todays_names(self, table: pa.Table) -> pa.Table:
        """Return a table with its columns named as today; other columns stay as they are."""
        todays = self.schema.names
        names = dict(zip(self.former_names(todays, table.schema), todays, strict=True))
        return table.rename_columns([names.get(name, name) for name in table.column_names])

    def upgraded(
        self, rows: pa.Table, columns: Sequence[str] | None = None, heads: Sequence[pa.Field] = ()
    ) -> pa.Table:
        """Return rows of any format with today's columns and those of heads, or with some of them.

        A column that the file does not have is null. `heads`: columns of heads to have in any case, beside
        those of the file.
        """
        found = self.with_todays_names(rows)
        known = {field.name: field for field in (*self.schema, *heads, *head_columns(found.schema))}
        if columns is None:
            wanted = pa.schema(known.values(), self.schema.metadata)
        else:
            wanted = pa.schema([known[name] for name in columns])
        return pa.table(
            [
                found[field.name] if field.name in found.column_names else pa.nulls(len(found), field.type)
                for field in wanted
            ],
            schema=wanted,
        )

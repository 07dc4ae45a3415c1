"""Files of labels that users make: CSV with a header, as spreadsheets write it."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from laion_etl.core.errors import InputError
from laion_etl.core.quantities import quantity

_DELIMITERS = ",;\t"  # the first is the usual one; some languages of spreadsheets write others
_VALUES = {"1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a label file."""

    path: Path
    number: int
    values: dict[str, str]

    def error(self, cause: str) -> InputError:
        """Return the error of this line."""
        return InputError(f"cannot read {self.path} line {self.number}: {cause}; correct or remove the line")

    def truth(self, column: str) -> bool:
        """Return a label. Raises InputError for anything but 1 and 0."""
        if (value := self.values[column]) not in _VALUES:
            raise self.error(f"{column} is {value[:40]!r}, which is not 1 or 0")
        return _VALUES[value]


def rows_by_key(path: Path) -> dict[str, Row]:
    """Return the lines of a file with the columns `key` and `label`. Raises InputError if a key repeats."""
    found: dict[str, Row] = {}
    for row in read_rows(path, ("key", "label")):
        if (former := found.setdefault(row.values["key"], row)) is not row:
            raise row.error(f"it has the key of line {former.number}")
    return found


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """Return the lines of a CSV file that has at least the needed columns, without blank lines.

    Raises InputError, one line, for a file that cannot be read, other columns, and lines of another length.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(_DELIMITERS, key=first.count))
            lines = [(reader.line_num, line) for line in reader if any(field.strip() for field in line)]
    except OSError as error:
        raise InputError(f"cannot read labels from {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read labels from {path}: {error}; save it as CSV in UTF-8") from error
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    if not set(needed) <= set(header) or len(set(header)) < len(header):
        raise InputError(
            f"cannot read labels from {path}: it needs a first line with the columns {' and '.join(needed)}, "
            f"each once; it has {','.join(header)[:80]!r}"
        )
    rows = []
    for number, line in lines[1:]:
        row = Row(path, number, dict(zip(header, (field.strip() for field in line), strict=False)))
        if len(line) != len(header):
            raise row.error(f"it has {quantity(len(line), 'field')}, the first line has {len(header)}")
        rows.append(row)
    if not rows:
        raise InputError(f"cannot read labels from {path}: it has no labels; add a line for each sample")
    return rows

"""The rows of an index, for filters and display: a mapped Arrow file in the same order as the vectors.

It has the columns of the dataset, and the position of the image in the scored shard's tar, so that one range
request reads it.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from laion_etl.core.errors import InputError
from laion_etl.core.schema_history import SchemaHistory
from laion_etl.core.schemas import DATASET_FILES
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import TarError, member_places
from laion_etl.score.pixels import FORMATS
from laion_etl.urls.public_suffix import registered_domain

Place = tuple[str, int, int]  # ending, offset, bytes
_NO_PLACE = (None, None, None)


def row_files() -> SchemaHistory:
    """Return the columns of the rows of an index, today's and those of earlier versions."""
    fields = [
        *DATASET_FILES.schema,
        pa.field("domain", pa.string(), nullable=False),  # registered domain of the URL's host
        pa.field("picture_ending", pa.string()),
        pa.field("picture_offset", pa.int64()),
        pa.field("picture_bytes", pa.int64()),
    ]
    return SchemaHistory("the rows of an index", fields, added=DATASET_FILES.added, in_file=False)


def with_places(table: pa.Table, places: dict[str, Place]) -> pa.Table:
    """Add domains and image positions (by key) to published rows."""
    found = [places.get(key, _NO_PLACE) for key in table["key"].to_pylist()]
    endings, offsets, sizes = zip(*found, strict=True) if found else ((), (), ())
    columns = {name: table[name] for name in DATASET_FILES.schema.names} | {
        "domain": [_domain(url) for url in table["URL"].to_pylist()],
        "picture_ending": list(endings),
        "picture_offset": list(offsets),
        "picture_bytes": list(sizes),
    }
    return pa.table(columns, schema=row_files().schema)


def image_places(name: str, store: Store) -> dict[str, Place]:
    """Return the positions of a tar's images by key; on S3 this downloads the tar once."""
    found: dict[str, Place] = {}
    with store.open(name) as file:
        try:
            for member, offset, size in member_places(file):
                key, _, ending = member.partition(".")
                if ending in FORMATS:
                    found[key] = (ending, offset, size)
        except TarError as error:
            raise InputError(f"cannot read {store.uri(name)}: {error}; score its batch again") from error
    return found


def open_rows(path: Path, rows: int) -> pa.Table:
    """Map the file of a part, with today's columns: null where an earlier version wrote it without them.

    Raises InputError if it does not match its stats.
    """
    advice = "delete it and run `laion-etl search index` again"
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path}: {error}; {advice}") from error
    files = row_files()
    files.check(table.schema, str(path), advice)
    if table.num_rows != rows:
        raise InputError(f"cannot read {path}: it does not hold the {rows} rows of its index; {advice}")
    return files.upgraded(table)


def counted(table: pa.Table, column: str) -> Iterator[tuple[str, int]]:
    """Yield each value of a column and how often it occurs."""
    for entry in table[column].value_counts().to_pylist():
        yield str(entry["values"] or ""), entry["counts"]


def _domain(url: str) -> str:
    try:
        return _domain_of_host(urlsplit(url).hostname or "")
    except ValueError:  # Python cannot parse the URL
        return ""


@lru_cache(1 << 16)
def _domain_of_host(host: str) -> str:
    return registered_domain(host)

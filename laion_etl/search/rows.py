"""The rows of an index, for filters and display: a mapped Arrow file in the same order as the vectors.

It has the columns of the dataset, the position of the image in the scored shard's tar, so that one range
request reads it, and the node of the graph that has the row's vector. Rows with equal vectors share a node.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.schema_history import SchemaHistory
from laion_etl.core.schemas import DATASET_FILES
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import TarError, member_places
from laion_etl.score.pixels import FORMATS
from laion_etl.urls.public_suffix import registered_domain

Place = tuple[str, int, int]  # ending, offset, bytes
_NO_PLACE = (None, None, None)
_NODE = "node"

Nodes = NDArray[np.int64]


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


def stored_schema() -> pa.Schema:
    """Return the columns of the file: those of the rows, and the node of each."""
    return row_files().schema.append(pa.field(_NODE, pa.int64(), nullable=False))


def with_nodes(table: pa.Table, nodes: Nodes) -> pa.Table:
    """Add the node of each row."""
    return table.append_column(stored_schema().field(_NODE), pa.array(nodes))


def with_places(table: pa.Table, places: dict[str, Place]) -> pa.Table:
    """Add domains and image positions (by key) to published rows."""
    columns = {name: table[name] for name in DATASET_FILES.schema.names} | {
        "domain": [_domain(url) for url in table["URL"].to_pylist()],
        **_place_columns(table, places),
    }
    return pa.table(columns, schema=row_files().schema)


def with_new_places(table: pa.Table, places: dict[str, Place]) -> pa.Table:
    """Replace the image positions of rows whose scored shard was rewritten."""
    for name, values in _place_columns(table, places).items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def _place_columns(table: pa.Table, places: dict[str, Place]) -> dict[str, list[str | int | None]]:
    found = [places.get(key, _NO_PLACE) for key in table["key"].to_pylist()]
    endings, offsets, sizes = zip(*found, strict=True) if found else ((), (), ())
    return {
        "picture_ending": list(endings),
        "picture_offset": list(offsets),
        "picture_bytes": list(sizes),
    }


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


def open_rows(path: Path, rows: int, nodes: int) -> tuple[pa.Table, Nodes]:
    """Map the file of a part; return its rows and the node of each.

    Rows have today's columns, null where an earlier version wrote them without; there, every row was a node.
    Raises InputError if the file does not match its stats.
    """
    advice = "delete it and run `laion-etl search index` again"
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path}: {error}; {advice}") from error
    if _NODE in table.column_names:
        node_of_row = table[_NODE].to_numpy()
        table = table.drop_columns(_NODE)
    else:
        node_of_row = np.arange(table.num_rows)
    files = row_files()
    files.check(table.schema, str(path), advice)
    if table.num_rows != rows:
        raise InputError(f"cannot read {path}: it does not hold the {rows} rows of its index; {advice}")
    if rows and not 0 <= node_of_row.min() <= node_of_row.max() < nodes:
        raise InputError(f"cannot read {path}: its rows have other vectors than its graph; {advice}")
    return files.upgraded(table), node_of_row


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

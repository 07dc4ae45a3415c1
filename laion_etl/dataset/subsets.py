"""The subsets of a dataset: which row belongs where, in LAION-5B's columns, and their parquet files.

Columns whose name does not explain them:
- SAMPLE_ID is the key of the sample as a number, which no other sample has, in whatever crawl.
- hash is the first 8 bytes of the pair's MD5 (url + caption) as a big-endian signed integer.
- WIDTH and HEIGHT are those of the image as it was fetched, before any scaling.
- LANGUAGE is the code from CLD3, or 'nolang' if no language is reliable, as LAION-5B names that set
  (the pipeline's own files have '').
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import InputError
from laion_etl.core.head_columns import HeadColumn, with_columns
from laion_etl.core.published_columns import PUBLISHED_COLUMNS
from laion_etl.core.schemas import DATASET_FILES, SUBSET_EN, SUBSET_MULTI, SUBSET_NOLANG, pair_id
from laion_etl.dataset.expressions import Condition
from laion_etl.dataset.new_files import NewFiles, RowGroups
from laion_etl.io.storage import Guard, NewFile, Store
from laion_etl.settings import PublishSettings

NO_LANGUAGE = "nolang"
SUBSET_HIGH_RESOLUTION = "laion-high-resolution"
SUBSET_AESTHETIC = "laion-aesthetic"
LANGUAGE_SUBSETS = (SUBSET_EN, SUBSET_MULTI, SUBSET_NOLANG)


@dataclass(frozen=True, slots=True)
class Subset:
    """A named choice of rows; `selects` maps a table of DATASET_SCHEMA to a boolean per row (no nulls)."""

    name: str
    rule: str
    selects: Callable[[pa.Table], pa.ChunkedArray]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A finished file of a dataset; `rows` is None unless parquet, `crawl` is "" if all crawls share it."""

    name: str
    subset: str
    rows: int | None
    bytes: int
    sha256: str
    crawl: str = ""


def subsets(settings: PublishSettings) -> tuple[Subset, ...]:
    """Return the language subsets (disjoint, together all rows), the overlapping ones, and the user's own.

    Raises SettingsError for an invalid expression.
    """
    side, score = settings.high_resolution_px, settings.aesthetic_min
    return (
        Subset(SUBSET_EN, "English captions", lambda t: pc.equal(t["LANGUAGE"], "en")),
        Subset(SUBSET_MULTI, "captions in another language", _in_another_language),
        Subset(
            SUBSET_NOLANG,
            "captions without a reliable language",
            lambda t: pc.equal(t["LANGUAGE"], NO_LANGUAGE),
        ),
        Subset(
            SUBSET_HIGH_RESOLUTION,
            f"both sides at least {side} px",
            lambda t: pc.greater_equal(pc.min_element_wise(t["WIDTH"], t["HEIGHT"]), side),
        ),
        Subset(
            SUBSET_AESTHETIC,
            f"aesthetic score at least {score:g}, where there is a score",
            lambda t: pc.fill_null(pc.greater_equal(t["aesthetic"], score), False),
        ),
        *(_own_subset(name, expression) for name, expression in settings.subsets),
    )


def _own_subset(name: str, expression: str) -> Subset:
    condition = Condition(name, expression)
    return Subset(name, condition.sql, condition.selects)


def _in_another_language(table: pa.Table) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(table["LANGUAGE"], pa.array(["en", NO_LANGUAGE])))


def published_rows(rows: pa.RecordBatch, crawl: str, heads: Sequence[HeadColumn] = ()) -> pa.Table:
    """Return the kept rows of a scored batch in LAION-5B's columns, and in those of custom heads.

    A column of a head that did not score this batch is null. Raises InputError if a kept row lacks a required
    value.
    """
    kept = pa.Table.from_batches([rows]).filter(pc.field("reason").is_null())
    language = kept["language"]
    computed = {
        "SAMPLE_ID": kept["key"].cast(pa.int64()),
        "LANGUAGE": pc.if_else(pc.equal(language, ""), NO_LANGUAGE, language),
        "hash": _hashes(kept["pair_id"]),
        "crawl": pa.repeat(crawl, kept.num_rows),
        "pair_id": pa.array([one.hex() for one in kept["pair_id"].to_pylist()], pa.string()),
    }
    columns = computed | {one.name: kept[one.source] for one in PUBLISHED_COLUMNS if one.source}
    for field in DATASET_FILES.schema:
        if not field.nullable and columns[field.name].null_count:
            raise InputError(f"cannot publish {crawl}: a kept row has no {field.name}; score the crawl again")
    columns |= {
        head.name: kept[head.name]
        if head.name in kept.column_names
        else pa.nulls(kept.num_rows, head.field.type)
        for head in heads
    }
    return pa.table(columns, schema=with_columns(DATASET_FILES.schema, heads))


def published_pair_ids(rows: pa.Table) -> list[str]:
    """Return the ids of published pairs, hexadecimal; files of earlier formats do not have them."""
    known = zip(rows["pair_id"].to_pylist(), rows["URL"].to_pylist(), rows["TEXT"].to_pylist(), strict=True)
    return [found or pair_id(url, text).hex() for found, url, text in known]


def _hashes(pair_ids: pa.ChunkedArray) -> pa.Array:
    halves = np.frombuffer(b"".join(pair_ids.to_pylist()), dtype=">i8").reshape(-1, 2)
    return pa.array(halves[:, 0].astype(np.int64))


class SubsetWriter(AbstractContextManager["SubsetWriter"]):
    """Writes the rows of one subset to part-00000.parquet, part-00001.parquet ...; `stem` replaces `part`.

    Row groups and files are cut at fixed row counts, so the bytes do not depend on how rows arrive.
    When the block raises, the file being written does not appear.
    """

    def __init__(
        self,
        subset: Subset,
        folder: str,
        crawl: str,
        rows_per_file: int,
        store: Store,
        stem: str = "part",
        guard: Guard | None = None,
    ) -> None:
        self._subset = subset
        self._guard = guard
        self._stem = stem
        self._crawl = crawl
        self._folder = folder
        self._rows_per_file = rows_per_file
        self._store = store
        self._file: _SubsetFile | None = None
        self.files: list[DataFile] = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        if error is not None:
            self._file.new.__exit__(kind, error, traceback)
        else:
            self._end(self._file)

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table (DATASET_SCHEMA) that belong to the subset."""
        chosen = table.filter(self._subset.selects(table))
        start = 0
        while start < chosen.num_rows:
            file = self._file or self._begin(chosen.schema)
            part = chosen.slice(start, self._rows_per_file - file.groups.rows)
            file.groups.add(part)
            start += part.num_rows
            if file.groups.rows == self._rows_per_file:
                self._end(file)

    def _begin(self, schema: pa.Schema) -> "_SubsetFile":
        name = f"{self._folder}/{self._subset.name}/{self._stem}-{len(self.files):05d}.parquet"
        new = NewFiles([name], self._store, self._guard)
        self._file = _SubsetFile(new, new[name], new.row_groups(name, schema))
        return self._file

    def _end(self, file: "_SubsetFile") -> None:
        self._file = None
        with file.new:
            file.groups.finish()
        output, rows = file.file.output, file.groups.rows
        self.files.append(
            DataFile(output.name, self._subset.name, rows, output.bytes, output.sha256, self._crawl)
        )


@dataclass(frozen=True, slots=True)
class _SubsetFile:
    new: NewFiles
    file: NewFile
    groups: RowGroups


def count_rows(chosen: Sequence[Subset], table: pa.Table) -> dict[str, int]:
    """Count the rows of a table in each subset."""
    return {subset.name: pc.sum(subset.selects(table)).as_py() or 0 for subset in chosen}

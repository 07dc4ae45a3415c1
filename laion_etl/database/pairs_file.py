"""The pairs parquet of a partition: its keys, and its texts by key range, whatever its size.

The file is in the order of the WAT files, and is loaded in the order of the keys. A file of up to a million
rows is held in memory. The texts of a larger one are sorted into key ranges, a million rows at a time, and
wait in an unlinked file on the local disk: the texts of one key range are then some consecutive blocks.
Reading the parquet again for every range was refused: decoding it takes half as long as loading it.
"""

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from laion_etl.core.caption_source import CaptionSource
from laion_etl.core.schemas import PAIR_FILES
from laion_etl.database.binary_copy import Texts, page_numbers, page_rows, pair_rows
from laion_etl.database.dedupe_keys import (
    Candidates,
    DedupeRule,
    as_keys,
    ascending,
    bytes_of,
    firsts,
    key_bytes,
    stacked,
    text_ranks,
    url_keys,
)
from laion_etl.database.kernels import Bytes, Ints, Longs
from laion_etl.database.key_ranges import KeyRanges
from laion_etl.io.storage import Store

_ROWS_PER_SEGMENT = 1 << 20  # some 250 megabytes
_ROWS_PER_READ = 1 << 16
_ALIGNMENT = 64  # bytes, of Arrow's buffers
_SOURCE = "caption_source"
_TEXTS = ["url", "caption", "language", _SOURCE, "page_url", "license"]


class PairsFile:
    """The pairs parquet of a partition, read once for its keys and a second time for its texts."""

    def __init__(self, store: Store, name: str, rule: DedupeRule) -> None:
        self._store = store
        self._name = name
        self._rule = rule

    def candidates(self) -> Candidates:
        """Returns all keys of the file; takes about 60 bytes of memory per pair."""
        if self._rule is DedupeRule.URL:
            return self._candidates_by_url()
        ids = stacked([key_bytes(batch.column(0)) for batch in self._batches(["pair_id"])])
        keys, order = as_keys(ids), ascending(ids)
        rows = order[firsts(keys[order])]
        return Candidates(keys[rows], rows)

    def _candidates_by_url(self) -> Candidates:
        keys, ranks, hashes = [], [], []
        for batch in self._batches(["pair_id", "url", "caption", "language"]):
            keys.append(url_keys(batch.column("url")))
            ranks.append(text_ranks(batch))
            hashes.append(key_bytes(batch.column("pair_id")))
        key, pair = as_keys(stacked(keys)), as_keys(stacked(hashes))
        rank = np.concatenate(ranks) if ranks else np.empty(0, np.int32)
        order = np.lexsort((pair, -rank, key))
        rows = order[firsts(key[order])]
        return Candidates(key[rows], rows, rank[rows], pair[rows])

    def texts(self, candidates: Candidates, ranges: KeyRanges) -> "RangeTexts":
        """Returns the texts of these candidates; to be used in a with statement.

        Pages are numbered from 0 in the order of the file.
        """
        texts = RangeTexts(candidates, ranges)
        wanted = np.sort(candidates.rows)
        for start, segment in self._segments():
            first, end = np.searchsorted(wanted, (start, start + len(segment)))
            rows = wanted[first:end]
            texts.add(segment if len(rows) == len(segment) else segment.take(pa.array(rows - start)))
        texts.finish()
        return texts

    def _segments(self) -> Iterator[tuple[int, pa.Table]]:
        """Yields the rows of the file in pieces, each with the number of its first row."""
        start, page, last = 0, -1, None
        waiting: list[pa.RecordBatch] = []

        def numbered() -> pa.Table:
            nonlocal start, page, last, waiting
            table = pa.Table.from_batches(waiting).combine_chunks()
            columns = [table.column(name).chunk(0) for name in ("page_url", "license")]
            first = page + (last != [column[0].as_py() for column in columns])
            url, licence = map(Texts.from_column, columns)
            pages = page_numbers(url, licence, first)
            rows = np.arange(start, start + len(table))
            start, page, last, waiting = (
                start + len(table),
                int(pages[-1]),
                [column[-1].as_py() for column in columns],
                [],
            )
            return table.append_column("row", pa.array(rows)).append_column("page", pa.array(pages))

        for batch in self._batches(_TEXTS):
            waiting.append(batch)
            if sum(map(len, waiting)) >= _ROWS_PER_SEGMENT:
                yield start, numbered()
        if waiting:
            yield start, numbered()

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._store.open(self._name) as file:
            parquet = pq.ParquetFile(file)
            PAIR_FILES.check_number(parquet.schema_arrow, self._store.uri(self._name))
            names = PAIR_FILES.former_names(columns, parquet.schema_arrow)
            found = [name for name in names if name != _SOURCE or name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_ROWS_PER_READ, columns=found):
                if len(batch):
                    yield _complete(batch.select(found), names).rename_columns(columns)


def _complete(batch: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
    """Returns rows in which the source of a caption is empty if it is alt, as in rows of earlier formats."""
    if _SOURCE not in names:
        return batch
    if _SOURCE in batch.schema.names:
        found = pc.fill_null(batch.column(_SOURCE), "")
        sources = pc.if_else(pc.equal(found, CaptionSource.ALT.value), "", found)
    else:
        sources = pa.repeat(pa.scalar(""), len(batch))
    columns = [sources if name == _SOURCE else batch.column(name) for name in names]
    return pa.RecordBatch.from_arrays(columns, names)


class PairTexts:
    """Rows of a pairs file in memory: everything of a pair but its key."""

    def __init__(self, table: pa.Table) -> None:
        columns = {name: table.column(name).combine_chunks() for name in (*_TEXTS, "row", "page")}
        self._rows: Longs = columns["row"].to_numpy()
        self._pages: Ints = columns["page"].to_numpy()
        self._texts = [Texts.from_column(columns[name]) for name in _TEXTS]
        count = len(self._rows)
        self._is_whole = count > 0 and bool((np.diff(self._rows) == 1).all())
        self._order = None if self._is_whole else np.argsort(self._rows)
        self._known_pages, self._row_of_page = np.unique(self._pages, return_index=True)

    def pages(self, candidates: Candidates) -> Ints:
        """Returns the pages of candidates, ascending."""
        found: Ints = np.unique(self._pages[self._places(candidates.rows)])
        return found

    def pair_rows(self, candidates: Candidates, partition_no: int, first_page: int) -> Bytes:
        """Returns rows of table pair in the format of COPY; pages are numbered from `first_page` on."""
        places, (url, caption, language, source, _, _) = self._places(candidates.rows), self._texts
        pages = self._pages + np.int32(first_page) if first_page else self._pages
        texts = (url, caption, language, source)
        return pair_rows(places, partition_no, pages, bytes_of(candidates.keys), texts)

    def page_rows(self, pages: Ints, partition_no: int, first_page: int) -> Bytes:
        """Returns rows of table page in the format of COPY."""
        places = self._row_of_page[np.searchsorted(self._known_pages, pages)]
        numbers = self._pages + np.int32(first_page) if first_page else self._pages
        return page_rows(places, partition_no, numbers, *self._texts[4:])

    def _places(self, rows: Longs) -> Longs:
        places: Longs
        if self._order is None:
            places = rows - self._rows[0]
        else:
            places = self._order[np.searchsorted(self._rows, rows, sorter=self._order)]
        return places


@dataclass(frozen=True, slots=True)
class _Block:
    """Where the rows of a segment in a range are in the file."""

    at: int
    size: int


class RangeTexts:
    """The texts of candidates by key range. Several threads may read at once."""

    def __init__(self, candidates: Candidates, ranges: KeyRanges) -> None:
        self._candidates = candidates
        self._places = ranges.places(candidates.keys)
        self._held: list[pa.Table] = []
        self._whole: PairTexts | None = None
        self._file: IO[bytes] | None = None
        self._bytes: mmap.mmap | None = None
        self._schema: pa.Schema | None = None
        self._blocks: list[list[_Block]] = [[] for _ in ranges.numbers]

    def __enter__(self) -> "RangeTexts":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, segment: pa.Table) -> None:
        """Adds rows, which follow those added before."""
        self._held.append(segment)
        if self._file is not None or sum(map(len, self._held)) > _ROWS_PER_SEGMENT:
            self._spill()

    def finish(self) -> None:
        """Ends the adding; then `of` may be called."""
        if self._file is not None:
            self._file.flush()
            self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        elif any(map(len, self._held)):
            self._whole = PairTexts(pa.concat_tables(self._held))
        self._held = []

    def of(self, ranges: Sequence[int]) -> PairTexts:
        """Returns texts that include those of the candidates in these ranges, of which there are some."""
        if self._whole is not None:
            return self._whole
        view = memoryview(self._bytes or b"")
        blocks = [
            pa.ipc.read_record_batch(pa.py_buffer(view[block.at : block.at + block.size]), self._schema)
            for number in ranges
            for block in self._blocks[number]
        ]
        return PairTexts(pa.Table.from_batches(blocks, self._schema))

    def _spill(self) -> None:
        """Moves the rows held to the file, sorted by range and key."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="laion_etl-pairs-")  # noqa: SIM115 - closed at exit
        for segment in self._held:
            if not len(segment):
                continue
            self._schema = segment.schema
            rows = segment.column("row").to_numpy()
            for blocks, (first, end) in zip(self._blocks, pairwise(self._places), strict=True):
                mine = self._candidates.rows[first:end]
                mine = mine[(mine >= rows[0]) & (mine <= rows[-1])]
                if len(mine):
                    chosen = segment.take(pa.array(np.searchsorted(rows, mine))).combine_chunks()
                    (batch,) = chosen.to_batches()
                    blocks.append(_written(self._file, batch.serialize()))
        self._held = []


def _written(file: IO[bytes], data: pa.Buffer) -> _Block:
    """Writes a block at the end of the file."""
    at = file.tell()
    file.write(data)
    file.write(bytes(-data.size % _ALIGNMENT))
    return _Block(at, data.size)

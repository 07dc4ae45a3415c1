"""The texts of the pairs of a file in the format of COPY, by row of the file.

They are encoded once, in the order of the file, while they are read: what is left for a row is to copy them
behind its numbers and key. The texts of a page are kept once. Up to a million rows are held in memory. The
texts of a larger file are sorted by key, a million rows at a time, and wait in an unlinked file on the local
disk: those of one key range are then a few consecutive pieces.
"""

import mmap
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import pyarrow as pa

from laion_etl.core.caption_source import CaptionSource
from laion_etl.database import kernels
from laion_etl.database.binary_copy import Texts, page_numbers, read_only
from laion_etl.database.dedupe_keys import Candidates, bytes_of
from laion_etl.database.kernels import PAGE_HEAD, PAIR_HEAD, Bytes, Ints, Longs

_ROWS_PER_SEGMENT = 1 << 20  # some 200 megabytes
_ROWS_PER_PIECE = 1 << 16  # written to the file at once
_BYTES_PER_BLOCK = 1 << 18  # sent at once; in the processor's cache until then
_MANY_ROWS = 4  # so many of a file for each candidate: those of the others are not kept
_USUAL_SOURCE = np.frombuffer(CaptionSource.ALT.value.encode(), np.uint8)  # stored as null


@dataclass(frozen=True, slots=True)
class Encoded:
    """Text fields: those of item i are sizes[i] bytes from starts[i] on."""

    starts: Longs
    sizes: Ints

    @classmethod
    def joined(cls, parts: "list[Encoded]") -> "Encoded":
        """Returns the items of all parts."""
        starts = [np.empty(0, np.int64), *(part.starts for part in parts)]
        sizes = [np.empty(0, np.int32), *(part.sizes for part in parts)]
        return cls(np.concatenate(starts), np.concatenate(sizes))

    @classmethod
    def until(cls, starts: Longs, end: int) -> "Encoded":
        """Returns items that follow each other, the last one until `end`."""
        return cls(starts, np.diff(starts, append=end).astype(np.int32))

    @property
    def longest(self) -> int:
        """The size of the longest item."""
        return int(self.sizes.max(initial=0))


@dataclass(frozen=True, slots=True)
class PairTexts:
    """Everything of the pairs of a file but their keys. Several threads may read at once.

    `rows`: the rows of the file that there are, ascending; None: all of them. `pages`: the page of each, by
    number from 0 in the order of the file. `data`, `page_data`: read-only.
    """

    rows: Longs | None
    pairs: Encoded
    pages: Ints
    data: Bytes
    page_texts: Encoded
    page_data: Bytes
    file: IO[bytes] | None = None

    @classmethod
    def of_nothing(cls, rows: int) -> "PairTexts":
        """Returns rows with empty texts, all of page 0, which has no texts."""
        empty = Texts.from_column(pa.array([""]))
        starts, data = np.empty(1, np.int64), np.empty(16, np.uint8)
        size = _encode(data, 0, starts, (empty, empty, empty, empty))
        pairs = Encoded(np.zeros(rows, np.int64), np.full(rows, size, np.int32))
        pages = np.zeros(rows, np.int32)
        return cls(None, pairs, pages, read_only(data), Encoded.joined([]), read_only(data))

    def __enter__(self) -> "PairTexts":
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def pages_of(self, candidates: Candidates) -> Ints:
        """Returns the pages of candidates, ascending."""
        is_wanted = np.zeros(len(self.page_texts.starts), np.bool_)
        is_wanted[self.pages[self._places(candidates)]] = True
        return np.flatnonzero(is_wanted).astype(np.int32)

    def _places(self, candidates: Candidates) -> Longs:
        return candidates.rows if self.rows is None else np.searchsorted(self.rows, candidates.rows)

    def pair_rows(self, candidates: Candidates, partition_no: int, first_page: int) -> Iterator[Bytes]:
        """Yields rows of table pair in the format of COPY; pages are numbered from `first_page` on.

        Each block is overwritten by the next one.
        """
        out = np.empty(max(_BYTES_PER_BLOCK, PAIR_HEAD + self.pairs.longest), np.uint8)
        rows, keys, done = self._places(candidates), bytes_of(candidates.keys), 0
        texts = (self.pages, self.pairs.starts, self.pairs.sizes, self.data)
        while done < len(candidates):
            done, size = kernels.pair_rows(out, rows, done, keys, partition_no, first_page, *texts)
            yield out[:size]

    def page_rows(self, pages: Ints, partition_no: int, first_page: int) -> Iterator[Bytes]:
        """Yields rows of table page, like pair_rows."""
        out = np.empty(max(_BYTES_PER_BLOCK, PAGE_HEAD + self.page_texts.longest), np.uint8)
        texts, done = (self.page_texts.starts, self.page_texts.sizes, self.page_data), 0
        while done < len(pages):
            done, size = kernels.page_rows(out, pages, done, partition_no, first_page, *texts)
            yield out[:size]


def _encode(out: Bytes, at: int, starts: Longs, texts: tuple[Texts, Texts, Texts, Texts]) -> int:
    """Encodes url, caption, language and caption_source; returns where they end."""
    url, caption, language, source = texts
    return kernels.encode_texts(
        out,
        at,
        starts,
        url.offsets,
        url.data,
        caption.offsets,
        caption.data,
        language.offsets,
        language.data,
        source.offsets,
        source.data,
        _USUAL_SOURCE,
    )


@dataclass(slots=True)
class TextsReader:
    """Encodes the rows of a file, batch by batch.

    Rows that no candidate has are left out where most are such, and from what is written to the disk.
    """

    candidates: Candidates
    rows: int
    _kept: Longs | None = None
    _data: Bytes = field(default_factory=lambda: np.empty(0, np.uint8))
    _used: int = 0
    _parts: list[Encoded] = field(default_factory=list)
    _held: int = 0  # rows in _data, the last ones in _parts
    _pages: list[Ints] = field(default_factory=list)
    _page_numbers: list[Ints] = field(default_factory=list)
    _page_parts: list[Encoded] = field(default_factory=list)
    _page_data: list[Bytes] = field(default_factory=list)
    _page_bytes: int = 0
    _seen: int = 0  # rows of the file
    _page: int = -1
    _kept_page: int = -1
    _last: tuple[str, str] | None = None
    _file: IO[bytes] | None = None
    _written: int = 0  # rows in the file
    _size: int = 0  # of the file

    def __post_init__(self) -> None:
        if len(self.candidates) < min(self.rows // _MANY_ROWS, _ROWS_PER_SEGMENT):
            self._kept = np.sort(self.candidates.rows)

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds rows that follow those before: url, caption, language, caption_source, page_url, license."""
        rows = np.arange(len(batch))
        if self._kept is not None:
            first, end = np.searchsorted(self._kept, (self._seen, self._seen + len(batch)))
            rows = self._kept[first:end] - self._seen
        elif self._held and self._held + len(batch) > _ROWS_PER_SEGMENT and self.rows > _ROWS_PER_SEGMENT:
            self._spill()
        self._seen += len(batch)
        self._add_pages(batch, rows)
        self._add_texts(batch if len(rows) == len(batch) else batch.take(pa.array(rows)))

    def _add_texts(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        url, caption, language, source = map(Texts.from_column, batch.columns[:4])
        texts = (url, caption, language, source)
        self._make_room(sum(text.size for text in texts) + 16 * len(batch), len(batch))
        starts = np.empty(len(batch), np.int64)
        self._used = _encode(self._data, self._used, starts, texts)
        self._parts.append(Encoded.until(starts, self._used))
        self._held += len(batch)

    def _add_pages(self, batch: pa.RecordBatch, rows: Longs) -> None:
        """Numbers the pages of a batch, and encodes those of some rows of it."""
        url, licence = map(Texts.from_column, batch.columns[4:])
        first = self._page + (self._last != self._page_at(batch, 0))
        numbers = page_numbers(url, licence, first)
        self._page, self._last = int(numbers[-1]), self._page_at(batch, len(batch) - 1)
        if not len(rows):
            return
        mine = numbers[rows]
        new = rows[np.diff(mine, prepend=np.int32(self._kept_page)) > 0]
        starts, out = np.empty(len(new), np.int64), np.empty(_page_bytes(new, url, licence), np.uint8)
        size = kernels.encode_pages(out, starts, new, url.offsets, url.data, licence.offsets, licence.data)
        self._pages.append(mine)
        self._kept_page = int(mine[-1])
        self._page_numbers.append(numbers[new])
        self._page_parts.append(Encoded.until(starts + self._page_bytes, self._page_bytes + size))
        self._page_data.append(out)
        self._page_bytes += size

    @staticmethod
    def _page_at(batch: pa.RecordBatch, row: int) -> tuple[str, str]:
        return batch.column(4)[row].as_py(), batch.column(5)[row].as_py()

    def _make_room(self, size: int, rows: int) -> None:
        """Enlarges the buffer for `size` bytes more; the first time for all rows, if all are as long."""
        if self._used + size <= len(self._data):
            return
        all_rows = min(self.rows if self._kept is None else len(self._kept), _ROWS_PER_SEGMENT)
        expected = all_rows * size // rows if not self._used else 3 * self._used // 2
        larger = np.empty(max(expected + expected // 16, self._used + size), np.uint8)
        larger[: self._used] = self._data[: self._used]
        self._data = larger

    def _spill(self) -> None:
        """Moves the texts held to the file, in the order of the candidates."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="laion_etl-pairs-")  # noqa: SIM115 - closed by PairTexts
        count = sum(len(part.starts) for part in self._parts) - self._held
        held = Encoded.joined(self._parts)
        starts, sizes = held.starts[count:], held.sizes[count:].astype(np.int64)
        rows = self.candidates.rows
        mine = rows[(rows >= self._written) & (rows < self._written + self._held)] - self._written
        data = read_only(self._data)
        for begin in range(0, len(mine), _ROWS_PER_PIECE):
            piece = mine[begin : begin + _ROWS_PER_PIECE]
            self._file.write(kernels.gathered(data, starts[piece], sizes[piece]).data)
        ends = self._size + np.cumsum(sizes[mine])
        starts[mine] = ends - sizes[mine]
        self._parts = [Encoded(held.starts, held.sizes)]
        self._size = int(ends[-1]) if len(mine) else self._size
        self._written, self._held, self._used = self._written + self._held, 0, 0

    def finish(self) -> PairTexts:
        """Ends the adding; the texts are to be used in a with statement."""
        if self._file is not None:
            self._spill()
            self._file.flush()
        return PairTexts(
            self._kept,
            Encoded.joined(self._parts),
            np.concatenate([np.empty(0, np.int32), *self._pages]),
            _mapped(self._file) if self._size and self._file is not None else read_only(self._data),
            self._page_texts(),
            read_only(np.concatenate([np.empty(0, np.uint8), *self._page_data])),
            self._file,
        )

    def _page_texts(self) -> Encoded:
        """Where the texts of each page are, by its number; pages that are not kept are empty."""
        kept = Encoded.joined(self._page_parts)
        numbers = np.concatenate([np.empty(0, np.int32), *self._page_numbers])
        starts, sizes = np.zeros(self._page + 1, np.int64), np.zeros(self._page + 1, np.int32)
        starts[numbers], sizes[numbers] = kept.starts, kept.sizes
        return Encoded(starts, sizes)


def _mapped(file: IO[bytes]) -> Bytes:
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _page_bytes(rows: Longs, url: Texts, licence: Texts) -> int:
    """The size of the encoded pages of some rows."""
    lengths = [int((text.offsets[rows + 1] - text.offsets[rows]).sum()) for text in (url, licence)]
    return sum(lengths) + 8 * len(rows)

"""The texts of the pairs of a file in the format of COPY, by row of the file.

They are encoded once, in the order of the file, while they are read: what is left for a row is to copy them
behind its numbers and key. The texts of a page are kept once. Up to a million rows, or half a gigabyte, are
held in memory. The texts of a larger file are sorted by key, as many rows at a time, and wait in an unlinked
file on the local disk: those of one key range are then a few consecutive pieces. So do the texts of pages, in
the order of the file, if there are more than half a gigabyte.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from laion_etl.core.caption_source import CaptionSource
from laion_etl.database import kernels
from laion_etl.database.binary_copy import Texts, page_numbers
from laion_etl.database.dedupe_keys import Candidates, bytes_of
from laion_etl.database.kernels import PAGE_HEAD, PAIR_HEAD, Bytes, Ints, Longs
from laion_etl.database.text_buffer import TextBuffer

_ROWS_PER_SEGMENT = 1 << 20  # some 200 megabytes
_ROWS_PER_PIECE = 1 << 12  # written to the file at once
_BYTES_PER_BLOCK = 1 << 18  # sent at once; in the processor's cache until then
_MANY_ROWS = 4  # if a file has more rows than this for each candidate, only those of candidates are kept
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


@dataclass(frozen=True, slots=True)
class PairTexts:
    """Everything of the pairs of a file but their keys. Several threads may read at once.

    `rows`: the rows of the file that there are, ascending; None: all of them. `pages`: the page of each, by
    number from 0 in the order of the file. `page_numbers`: the pages that there are, like `rows`.
    """

    rows: Longs | None
    pairs: Encoded
    pages: Ints
    data: TextBuffer
    page_numbers: Ints | None
    page_texts: Encoded
    page_data: TextBuffer

    @classmethod
    def of_nothing(cls, rows: int) -> "PairTexts":
        """Returns rows with empty texts, all of page 0, which has no texts."""
        empty = Texts.from_column(pa.array([""]))
        starts, data = np.empty(1, np.int64), np.empty(16, np.uint8)
        size = _encode(data, 0, starts, (empty, empty, empty, empty))
        pairs = Encoded(np.zeros(rows, np.int64), np.full(rows, size, np.int32))
        pages = np.zeros(rows, np.int32)
        return cls(None, pairs, pages, TextBuffer(data, size), None, Encoded.joined([]), TextBuffer())

    def __enter__(self) -> "PairTexts":
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()
        self.page_data.close()

    def pages_of(self, candidates: Candidates) -> Ints:
        """Returns the pages of candidates, ascending."""
        pages = np.sort(self.pages[self._places(candidates)])  # np.unique takes four times as long
        return pages[np.diff(pages, prepend=np.int32(-1)) > 0]

    def _places(self, candidates: Candidates) -> Longs:
        return candidates.rows if self.rows is None else np.searchsorted(self.rows, candidates.rows)

    def pair_rows(self, candidates: Candidates, partition_no: int, first_page: int) -> Iterator[Bytes]:
        """Yields rows of table pair in the format of COPY; pages are numbered from `first_page` on.

        Each block is overwritten by the next one.
        """
        places, keys = self._places(candidates), bytes_of(candidates.keys)
        pages, starts, sizes = self.pages[places], self.pairs.starts[places], self.pairs.sizes[places]
        out, data, done = _block(PAIR_HEAD, sizes), self.data.content, 0
        while done < len(candidates):
            done, size = kernels.pair_rows(
                out, done, keys, partition_no, first_page, pages, starts, sizes, data
            )
            yield out[:size]

    def page_rows(self, pages: Ints, partition_no: int, first_page: int) -> Iterator[Bytes]:
        """Yields rows of table page, like pair_rows."""
        places = pages if self.page_numbers is None else np.searchsorted(self.page_numbers, pages)
        starts, sizes = self.page_texts.starts[places], self.page_texts.sizes[places]
        out, data, done = _block(PAGE_HEAD, sizes), self.page_data.content, 0
        while done < len(pages):
            done, size = kernels.page_rows(out, pages, done, partition_no, first_page, starts, sizes, data)
            yield out[:size]


def _block(head: int, sizes: Ints) -> Bytes:
    """Returns memory for rows whose texts have these sizes: at least for the longest one."""
    return np.empty(max(_BYTES_PER_BLOCK, head + int(sizes.max(initial=0))), np.uint8)


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
    """Encodes the rows of a file, batch by batch. To be closed if it is not finished.

    Rows that no candidate has are left out where most are such, and from what is written to the disk.
    """

    candidates: Candidates
    rows: int
    _kept: Longs | None = None
    _order: Longs = field(init=False)  # of the candidates, by number in the file or in _kept
    _data: TextBuffer = field(default_factory=TextBuffer)
    _moved: list[Encoded] = field(default_factory=list)
    _moved_rows: int = 0
    _parts: list[Encoded] = field(default_factory=list)
    _held: int = 0  # rows in _parts
    _pages: list[Ints] = field(default_factory=list)
    _page_numbers: list[Ints] = field(default_factory=list)  # only of those that are kept, if not all are
    _page_parts: list[Encoded] = field(default_factory=list)
    _page_data: TextBuffer = field(default_factory=TextBuffer)
    _seen: int = 0  # rows of the file
    _page: int = -1
    _kept_page: int = -1
    _last: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self._order = self.candidates.rows
        if len(self.candidates) < min(self.rows // _MANY_ROWS, _ROWS_PER_SEGMENT):
            self._kept = np.sort(self.candidates.rows)
            self._order = np.searchsorted(self._kept, self.candidates.rows)

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds rows that follow those before: url, caption, language, caption_source, page_url, license."""
        rows = np.arange(len(batch))
        if self._kept is not None:
            first, end = np.searchsorted(self._kept, (self._seen, self._seen + len(batch)))
            rows = self._kept[first:end] - self._seen
        self._seen += len(batch)
        self._add_pages(batch, rows)
        self._add_texts(batch if len(rows) == len(batch) else batch.take(pa.array(rows)))

    def _add_texts(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        url, caption, language, source = map(Texts.from_column, batch.columns[:4])
        texts = (url, caption, language, source)
        size = sum(text.size for text in texts) + 16 * len(batch)
        if self._held and (self._held + len(batch) > _ROWS_PER_SEGMENT or self._data.is_full(size)):
            self._move()
        out = self._data.room(size, self._expected(size, len(batch)))
        starts = np.empty(len(batch), np.int64)
        self._data.used = _encode(out, self._data.used, starts, texts)
        self._parts.append(Encoded.until(starts, self._data.used))
        self._held += len(batch)

    def _expected(self, size: int, rows: int) -> int:
        """The bytes of all rows that are held at once, if they are as long as these."""
        all_rows = self.rows if self._kept is None else len(self._kept)
        return min(all_rows, _ROWS_PER_SEGMENT) * size // rows

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
        self._pages.append(mine)
        self._kept_page = int(mine[-1])
        if self._kept is not None:
            self._page_numbers.append(numbers[new])
        size, pages = _page_bytes(new, url, licence), self._page_data
        if pages.is_full(size):
            pages.move()
        out = pages.room(size, self._expected(size, len(rows)))[pages.used : pages.used + size]
        starts = np.empty(len(new), np.int64)
        kernels.encode_pages(out, starts, new, url.offsets, url.data, licence.offsets, licence.data)
        starts += pages.written + pages.used
        pages.used += size
        self._page_parts.append(Encoded.until(starts, pages.written + pages.used))

    @staticmethod
    def _page_at(batch: pa.RecordBatch, row: int) -> tuple[str, str]:
        return batch.column(4)[row].as_py(), batch.column(5)[row].as_py()

    def _move(self) -> None:
        """Moves the texts held to the file, in the order of the candidates."""
        held, first = Encoded.joined(self._parts), self._moved_rows
        mine = self._order[(self._order >= first) & (self._order < first + self._held)] - first
        ends = self._data.written + np.cumsum(held.sizes[mine], dtype=np.int64)
        self._data.move(_pieces(self._data.content, held, mine))
        starts = np.zeros(self._held, np.int64)
        starts[mine] = ends - held.sizes[mine]
        self._moved.append(Encoded(starts, held.sizes))
        self._moved_rows, self._parts, self._held = first + self._held, [], 0

    def finish(self) -> PairTexts:
        """Ends the adding; the texts are to be used in a with statement."""
        if self._data.has_file:
            self._move()
        if self._page_data.has_file:
            self._page_data.move()
        self._data.finish()
        self._page_data.finish()
        none = np.empty(0, np.int32)
        return PairTexts(
            self._kept,
            Encoded.joined([*self._moved, *self._parts]),
            np.concatenate([none, *self._pages]),
            self._data,
            None if self._kept is None else np.concatenate([none, *self._page_numbers]),
            Encoded.joined(self._page_parts),
            self._page_data,
        )

    def close(self) -> None:
        """Frees memory and disk, where there will be no texts."""
        self._data.close()
        self._page_data.close()


def _pieces(data: Bytes, texts: Encoded, rows: Longs) -> Iterator[Bytes]:
    """Yields the texts of some rows, in this order."""
    for begin in range(0, len(rows), _ROWS_PER_PIECE):
        piece = rows[begin : begin + _ROWS_PER_PIECE]
        yield kernels.gathered(data, texts.starts[piece], texts.sizes[piece].astype(np.int64))


def _page_bytes(rows: Longs, url: Texts, licence: Texts) -> int:
    """The size of the encoded pages of some rows."""
    lengths = [int((text.offsets[rows + 1] - text.offsets[rows]).sum()) for text in (url, licence)]
    return sum(lengths) + 8 * len(rows)

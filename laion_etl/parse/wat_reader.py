"""Reads WAT files in batches: some megabytes of records, with their image links as columns of spans.

Kernels extract the links from records in the usual form of the extractor; every other record is parsed as a
whole by wat_record.py and its links are inserted in their place. That goes for records that are spread over
several gzip members, too.
"""

from collections.abc import Callable, Collection, Iterator

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.caption_source import CaptionSource
from laion_etl.core.errors import DamagedInputError
from laion_etl.core.funnel import Outcomes, RecordReason
from laion_etl.core.kernels import Ints
from laion_etl.core.quantities import quantity
from laion_etl.core.rule_failures import NOT_CONTAINED
from laion_etl.parse.gzip_members import TOO_LARGE, ByteSource, Damage, Members, read_members
from laion_etl.parse.kernels.records import LINK_START, LINKS, NOT_A_PAGE, ODD, PAGE, PREVIEWS, cut_links
from laion_etl.parse.kernels.spans import Links, Records, new_links, new_records
from laion_etl.parse.link_batch import LinkBatch, without_surrogates
from laion_etl.parse.member_runs import RunRecords, spans_of
from laion_etl.parse.page import Page
from laion_etl.parse.warc_records import NoRecord, WarcRecord, split_records
from laion_etl.parse.wat_record import json_text, page_of
from laion_etl.urls.legacy_queries import rows_with_foreign_query
from laion_etl.urls.normalize import page_base

_BATCH_BYTES = 4 << 20  # inflated; smaller batches cost more calls, larger ones more memory
_HEAD_BYTES = 16_384  # of a record, with the beginning of its payload
_SHOWN_BYTES = 40
_FETCH_AGAIN = "fetch it again"


def read_batches(
    stream: ByteSource, uri: str, captions: Collection[str] = (CaptionSource.ALT,)
) -> Iterator[LinkBatch]:
    """Yields the file batch by batch; the arena of a batch is reused for the next one.

    `captions`: the sources of captions; links to images, and previews, are read for their sources only.
    A damaged gzip member is counted and listed in its batch. Raises DamagedInputError for a file that has not
    a single record of a WAT file (metadata in JSON): one that is cut off, empty or of another kind.
    """
    reader = _Reader(frozenset(map(CaptionSource, captions)))
    for group in read_members(stream, reader.arena, _BATCH_BYTES):
        yield reader.batch(group)
    if reader.has_rest:
        reader.arena.clear()
        yield reader.batch(Members().cut(), ended=True)
    if not reader.is_wat:
        cause, advice = reader.why_not_wat()
        raise DamagedInputError(f"cannot read {uri} {cause}; {advice}, or leave it out with --wat-files")


class _Reader:
    """Turns groups of gzip members into batches; remembers what it needs of earlier ones."""

    def __init__(self, wanted: frozenset[CaptionSource]) -> None:
        self._wanted = wanted
        self._bits = LINKS * (CaptionSource.LINK in wanted) | PREVIEWS * (CaptionSource.OG in wanted)
        self.arena = ByteArena(_BATCH_BYTES + (_BATCH_BYTES >> 1))
        self.is_wat = False
        self._runs = RunRecords()
        self._records = 0
        self._damage: Damage | None = None
        self._begins = b""

    @property
    def has_rest(self) -> bool:
        """Whether the last batch ended within a record."""
        return self._runs.has_rest

    def batch(self, group: Members, ended: bool = False) -> LinkBatch:
        """Returns the links of a group of members; after the last one, those of what was left."""
        starts, ends = spans_of(group)
        if not self._begins and ends.size:
            self._begins = self.arena.bytes(0, min(int(ends[-1]), _SHOWN_BYTES))
        records = new_records(starts, ends)
        links = new_links(self.arena.size // len(LINK_START) + 1)  # an upper bound; unused rows cost nothing
        count = cut_links(self.arena.data, records, links, self._bits)
        links = Links(*(column[:count] for column in links))
        bases, links = _finished(self.arena, records, links)
        counts = Outcomes[RecordReason]()
        counts.keep(int(np.count_nonzero(records.state == PAGE)))
        counts.drop(RecordReason.NOT_A_PAGE, int(np.count_nonzero(records.state == NOT_A_PAGE)))
        counts.drop(RecordReason.DAMAGED, len(group.damages))
        batch = LinkBatch(
            arena=self.arena,
            links=links,
            offsets=group.offsets,
            page_urls=(records.url_start, records.url_end),
            bases=bases,
            records=counts,
            damages=group.damages,
        )
        self._damage = self._damage or next(iter(group.damages), None)
        self._look_for_wat_records(records)
        self._add_odd_records(batch, records, ended)
        self._records += batch.records.input - len(batch.damages)
        return batch

    def why_not_wat(self) -> tuple[str, str]:
        """Returns where and why the file turned out not to be a WAT file, and what helps, as parts of a
        sentence.
        """
        if self._records:
            return (
                f"as a WAT file: not one of its {quantity(self._records, 'record')} is metadata in JSON, so "
                "it is of another kind, such as WARC or WET"
            ), "read WARC files with LAION_ETL_PARSE_SOURCE=warc"
        if self._begins.startswith(b"\x1f\x8b"):
            return "from byte 0: it was compressed twice", f"unpack it once, or {_FETCH_AGAIN}"
        if self._damage is None:
            return "from byte 0: it is empty", _FETCH_AGAIN
        begins = f" (it begins with {self._begins!r})" if self._begins else ""
        cause = f"from byte {self._damage.offset}: {self._damage.cause}{begins}"
        if self._damage.cause == TOO_LARGE:
            return cause, "compress each record as a member of its own (`warcio recompress`)"
        return cause, _FETCH_AGAIN

    def _look_for_wat_records(self, records: Records) -> None:
        """Looks at the records that are not pages, until a record of a WAT file was seen."""
        self.is_wat = self.is_wat or bool(np.any(records.state == PAGE))
        if self.is_wat:
            return
        for row in np.flatnonzero(records.state == NOT_A_PAGE).tolist():
            start, end = int(records.start[row]), int(records.end[row])
            for record in split_records(self.arena.bytes(start, min(end, start + _HEAD_BYTES))):
                self.is_wat = isinstance(record, WarcRecord) and record.is_of_a_wat_file
                break
            if self.is_wat:
                return

    def _add_odd_records(self, batch: LinkBatch, records: Records, ended: bool) -> None:
        """Adds the records of irregular members in their places; keeps one that goes on in the next group."""
        odd = np.flatnonzero(records.state == ODD).tolist()
        members = (records.start, records.end, batch.offsets)
        after_damage = np.searchsorted(batch.offsets, [damage.offset for damage in batch.damages]).tolist()
        pages: list[Page] = []
        places: list[tuple[int, int]] = []  # of their records: row, offset
        for place, record in self._runs.records(batch.arena, members, odd, after_damage, ended=ended):
            page = self._page(batch, record)
            if isinstance(page, Page):
                pages.append(page)
                places.append(place)
            else:
                batch.records.drop(page)
                if page is RecordReason.DAMAGED:
                    batch.damages.append(Damage(place[1], "not a WARC record"))
        self._damage = self._damage or next(iter(batch.damages), None)
        if pages:
            _insert(batch, pages, places)

    def _page(self, batch: LinkBatch, record: WarcRecord | NoRecord) -> Page | RecordReason:
        if isinstance(record, NoRecord):
            return RecordReason.DAMAGED
        self.is_wat = self.is_wat or record.is_of_a_wat_file
        try:
            return page_of(record, self._wanted)
        except NOT_CONTAINED:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a rule raises for it
            batch.errors.note(record.target, error)
            return RecordReason.INTERNAL_ERROR


def _finished(arena: ByteArena, records: Records, links: Links) -> tuple[tuple[Ints, Ints], Links]:
    """Returns the bases of the records, and the links with their texts unescaped.

    A page for which that fails is left to Python as a whole, like every other irregular one, and so is one
    with a link whose query may be in the page's encoding, which only the whole JSON says.
    """
    starts, ends = records.url_start.copy(), records.url_end.copy()
    failed: list[int] = []

    def finish(step: Callable[[int], None], row: int, record: int) -> None:
        try:
            step(row)
        except NOT_CONTAINED:
            raise
        except Exception:  # noqa: BLE001 - Python raises it again, and then it is counted
            failed.append(record)

    def resolve_base(row: int) -> None:
        base = arena.text(records.base_start[row], records.base_end[row])
        starts[row], ends[row] = arena.add(page_base(arena.text(starts[row], ends[row]), base).encode())

    for row in np.flatnonzero((records.base_end > 0) & (records.state == PAGE)).tolist():
        finish(resolve_base, row, row)
    for row in np.flatnonzero(links.escaped).tolist():
        finish(lambda row: _unescape(arena, links, row), row, int(links.record[row]))
    foreign = rows_with_foreign_query(arena, (links.url_start, links.url_end))
    failed += links.record[foreign].tolist()
    if failed:
        records.state[failed] = ODD
        kept = ~np.isin(links.record, failed)
        links = Links(*(column[kept] for column in links))
    return (starts, ends), links


def _unescape(arena: ByteArena, links: Links, row: int) -> None:
    """Replaces the spans of a link that contain JSON escapes by their unescaped text."""
    spans = (
        (1, links.url_start, links.url_end),
        (2, links.alt_start, links.alt_end),
        (4, links.title_start, links.title_end),
        (8, links.text_start, links.text_end),
    )
    for bit, starts, ends in spans:
        if links.escaped[row] & bit:
            text = json_text(b'"' + arena.bytes(starts[row], ends[row]) + b'"')
            starts[row], ends[row] = arena.add(without_surrogates(text).encode())


def _insert(batch: LinkBatch, pages: list[Page], places: list[tuple[int, int]]) -> None:
    """Adds pages to a batch, their links in the order of the records; places are (row, offset)."""
    rows = np.array([row for row, _ in places], np.int32)
    order = np.repeat(rows, [len(page.images) for page in pages])
    place = np.argsort(np.concatenate([batch.links.record, order]), kind="stable")
    batch.append(pages, [offset for _, offset in places])
    batch.links = Links(*(column[place] for column in batch.links))

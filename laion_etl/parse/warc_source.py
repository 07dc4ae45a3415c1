"""WARC files as a source of links: the HTML of their responses, of Common Crawl or of a folder of one's own.

A WARC file is several times as long as its WAT file, and its pages have to be parsed. In exchange it has what
the extractor of WAT files leaves out (html_links.py). Records are found as those of WAT files are, whatever
gzip members they are in, and damage costs the record that it hits; files without gzip are read, too. Refused:
warcio, which gives up a file at its first damaged member; it is the reference in the tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.errors import DamagedInputError
from laion_etl.core.funnel import RecordReason
from laion_etl.core.quantities import quantity
from laion_etl.core.rule_failures import NOT_CONTAINED
from laion_etl.io.remote_files import open_input
from laion_etl.io.retries import DEFAULT_POLICY, RetryPolicy
from laion_etl.parse.gzip_members import MAX_MEMBER_BYTES, ByteSource, Damage, read_members
from laion_etl.parse.html_parser import HtmlParser
from laion_etl.parse.http_response import html_of
from laion_etl.parse.link_batch import LinkBatch, checked, empty_batch
from laion_etl.parse.member_runs import RunRecords, spans_of
from laion_etl.parse.page import Page
from laion_etl.parse.warc_records import NoRecord, WarcRecord, split_records
from laion_etl.settings import ParseSettings

_BATCH_BYTES = 8 << 20  # inflated, as of WAT files
_GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class _Part:
    """Consecutive records of a file with their offsets, and the damages between them."""

    records: Iterator[tuple[int, WarcRecord | NoRecord]]
    damages: list[Damage] = field(default_factory=list)


class WarcSource:
    """WARC files: a path, or s3://, https:// or file://."""

    def __init__(self, settings: ParseSettings, policy: RetryPolicy = DEFAULT_POLICY) -> None:
        """Raises ModuleNotFoundError where the extra `warc` is not installed."""
        self._captions = settings.captions
        self._policy = policy
        HtmlParser(self._captions)

    def batches(self, uri: str) -> Iterator[LinkBatch]:
        """Yields the links of a file; raises InputError for one that is not a WARC file."""
        reader = _Reader()
        with open_input(uri, self._policy) as stream, HtmlParser(self._captions) as parser:
            is_gzip = stream.peek(len(_GZIP)).startswith(_GZIP)
            for part in _members(stream) if is_gzip else _plain(stream):
                yield reader.batch(part, parser)
        if problem := reader.problem:
            raise DamagedInputError(
                f"cannot read {uri} as a WARC file: {problem}; fetch it again, or leave it out with "
                "--wat-files"
            )


class _Reader:
    """Turns parts of a file into batches; their arena is reused."""

    def __init__(self) -> None:
        self._arena = ByteArena(_BATCH_BYTES)
        self._records = 0
        self._responses = 0
        self._is_derived = False

    @property
    def problem(self) -> str:
        """Why the file turned out to be no WARC file, '' if it is one."""
        if not self._records:
            return "it has no WARC record"
        if self._is_derived and not self._responses:
            return f"it has {quantity(self._records, 'record')} but no response, so it is a WAT or WET file"
        return ""

    def batch(self, part: _Part, parser: HtmlParser) -> LinkBatch:
        """Returns the pages of a part."""
        self._arena.clear()
        batch = empty_batch(self._arena)
        batch.damages = part.damages
        batch.records.drop(RecordReason.DAMAGED, len(part.damages))
        pages: list[Page] = []
        offsets: list[int] = []
        for offset, record in part.records:
            found = self._page(record, parser, batch)
            if isinstance(found, Page):
                pages.append(found)
                offsets.append(offset)
                continue
            batch.records.drop(found)
            if found is RecordReason.DAMAGED:
                batch.damages.append(Damage(offset, "not a WARC record"))
        batch.append(pages, offsets)
        return batch

    def _page(
        self, record: WarcRecord | NoRecord, parser: HtmlParser, batch: LinkBatch
    ) -> Page | RecordReason:
        if isinstance(record, NoRecord):
            return RecordReason.DAMAGED
        self._records += 1
        self._is_derived = self._is_derived or record.is_of_a_wat_file or record.is_conversion
        if not record.is_response:
            return RecordReason.NOT_A_PAGE
        self._responses += 1
        try:
            html = html_of(record.payload)
            if isinstance(html, RecordReason):
                return html
            page = parser.page(record.target, html)
            return RecordReason.PAGE_UNREADABLE if page is None else checked(page)
        except NOT_CONTAINED:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a rule raises for it
            batch.errors.note(record.target, error)
            return RecordReason.INTERNAL_ERROR


def _members(stream: ByteSource) -> Iterator[_Part]:
    """Yields the records of a file of gzip members; the offset of a record is that of its member."""
    arena, runs = ByteArena(_BATCH_BYTES), RunRecords()
    for group in read_members(stream, arena, _BATCH_BYTES):
        rows = list(range(group.ends.size))
        members = (*spans_of(group), group.offsets)
        after_damage = np.searchsorted(group.offsets, [damage.offset for damage in group.damages]).tolist()
        found = runs.records(arena, members, rows, after_damage, ended=False)
        yield _Part(((place[1], record) for place, record in found), group.damages)
    if runs.has_rest:
        yield _Part((place[1], record) for place, record in runs.rest_records())


def _plain(stream: ByteSource) -> Iterator[_Part]:
    """Yields the records of a file without gzip, with their offsets."""
    buffer, rest, base = bytearray(_BATCH_BYTES), b"", 0
    while size := stream.readinto(memoryview(buffer)):
        data = rest + buffer[:size]
        found, rest = _whole_records(data, base)
        base += len(data) - len(rest)
        yield _Part(iter(found))
    if rest:
        yield _Part((base + record.start, record) for record in split_records(rest))


def _whole_records(data: bytes, base: int) -> tuple[list[tuple[int, WarcRecord | NoRecord]], bytes]:
    """Returns the records of some bytes of a file, and the beginning of one that goes on after them."""
    found: list[tuple[int, WarcRecord | NoRecord]] = []
    for record in split_records(data):
        goes_on = isinstance(record, WarcRecord) and not record.is_whole
        if goes_on and len(data) - record.start <= MAX_MEMBER_BYTES:
            return found, data[record.start :]
        found.append((base + record.start, record))
    return found, b""

"""Filters the links of a batch into pairs, one filter after another, on columns.

Cheap filters come first: caption, URL, host, blocked URLs, placeholders, then duplicates. The language is
detected later, for what is left, because it costs more than all filters together. A link for which a filter
raises an exception is dropped and counted (internal_errors.py).

Which text is the caption: that of the first source that is long enough (captions.py). Where captions come
from other sources than alt, those of a page are put in the order of their sources, so that of two equal pairs
the one is kept whose source comes first.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from laion_etl.blocklists import Blocklists
from laion_etl.blocklists.syntax import ListKind
from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.caption_source import SOURCES, CaptionSource
from laion_etl.core.funnel import ParseReason
from laion_etl.core.kernels import Bytes, Ints
from laion_etl.core.reason_codes import REASON_CODES, count_drops
from laion_etl.core.rule_failures import apply_by_rows
from laion_etl.parse.absent_images import judge_absent
from laion_etl.parse.captions import CaptionRule
from laion_etl.parse.dedupe import RecentPairs, RepeatedTextCounter
from laion_etl.parse.file_counts import FileCounts
from laion_etl.parse.kernels.pairs import FRESH, SAME_ID, SEEN, gather, pair_ids, text_hashes
from laion_etl.parse.kernels.spans import Links
from laion_etl.parse.licence import NO_LICENCE
from laion_etl.parse.link_batch import LinkBatch
from laion_etl.parse.placeholders import PlaceholderRule
from laion_etl.parse.text import clean_texts
from laion_etl.settings import ParseSettings
from laion_etl.urls.hosts import HostRule
from laion_etl.urls.legacy_queries import encode_queries
from laion_etl.urls.normalize import UrlRule, form_by_rule, resolve_urls

# Raise it whenever the rules of this package, or of urls/hosts.py, keep other links than before, or give a
# caption, title, language or licence another value, with the same settings: then finished partitions are
# parsed again. The form of URLs has a version of its own (urls/normalize.py).
RULES_VERSION = 10

_CHUNK_ROWS = 1 << 14
_BLOCKED = {
    ListKind.DOMAINS: ParseReason.BLOCKED_DOMAIN,
    ListKind.URLS: ParseReason.BLOCKED_URL,
    ListKind.PAIRS: ParseReason.BLOCKED_PAIR,
}


_COLUMNS = 10  # of a batch of links, which are also those of _Rows


class _Rows(NamedTuple):
    """The links that are left; spans of the batch's arena, and the numbers of their hosts.

    They are the rows of one array of two dimensions, which is copied, and loses columns, in one step.
    """

    record: Ints
    url_start: Ints
    url_end: Ints
    alt_start: Ints
    alt_end: Ints
    title_start: Ints
    title_end: Ints
    text_start: Ints
    text_end: Ints
    source: Ints
    raw_start: Ints  # the URL as it is in the page
    raw_end: Ints
    host: Ints

    @property
    def texts(self) -> list[tuple[Ints, Ints]]:
        return [
            (self.alt_start, self.alt_end),
            (self.title_start, self.title_end),
            (self.text_start, self.text_end),
        ]


_Rule = Callable[[_Rows, Bytes], None]  # sets the reasons of rows that are dropped; may change spans


class LinkFilters:
    """All filters of the settings for the links of one WAT file, and the counts of their drops."""

    def __init__(
        self,
        settings: ParseSettings,
        blocklists: Blocklists,
        counts: FileCounts | None = None,
    ) -> None:
        counts = FileCounts() if counts is None else counts
        self.outcomes = counts.links
        self._errors = counts.errors
        self._sources = counts.sources
        self._captions = CaptionRule(settings)
        self._settings = settings
        self._blocklists = blocklists
        self._urls = UrlRule(settings)
        self._hosts = HostRule(settings, blocklists.domain_blocked if blocklists.blocks_domains else None)
        self._placeholders = PlaceholderRule(settings)
        self._recent = RecentPairs(settings.dedupe_pairs)
        self._repeated = RepeatedTextCounter(settings.max_text_repeats) if settings.max_text_repeats else None

    def pairs(self, batch: LinkBatch) -> Iterator[pa.Table]:
        """Yields the pairs of a batch in the order of their links, with the fields of PAIR_SCHEMA except the
        language and the WAT file.
        """
        size = batch.arena.size
        for chunk in _chunks(batch.links.record, whole_pages=self._captions.has_several_sources):
            table = self._chunk(batch, _rows_of(batch.links, chunk))
            if table.num_rows:
                yield table
            batch.arena.size = size  # what the filters wrote has been copied

    def _chunk(self, batch: LinkBatch, links: Ints) -> pa.Table:
        arena, settings = batch.arena, self._settings

        def absolute(rows: _Rows, reasons: Bytes) -> None:
            urls = (rows.url_start, rows.url_end)
            encode_queries(arena, urls, rows.record, batch.codecs, settings.max_url_chars)
            resolve_urls(arena, urls, batch.bases, rows.record, reasons, settings.max_url_chars)

        def within_limits(rows: _Rows, reasons: Bytes) -> None:
            self._urls.judge(arena, (rows.url_start, rows.url_end), reasons)

        def known_host(rows: _Rows, reasons: Bytes) -> None:
            rows.host[:] = self._hosts.judge(arena, (rows.url_start, rows.url_end), reasons)

        def caption(rows: _Rows, reasons: Bytes) -> None:
            self._captions.judge(arena, rows.texts, rows.source, reasons)
            reasons[rows.url_start >= rows.url_end] = REASON_CODES[ParseReason.NO_URL]

        def last_filters(rows: _Rows, reasons: Bytes) -> None:
            self._judge_last(batch, rows, reasons)

        def title(rows: _Rows, _: Bytes) -> None:
            clean_texts(arena, rows.title_start, rows.title_end, settings.max_alt_chars)

        reasons = self._reasons(batch, links, caption)
        self._sources.read(_Rows(*links).source)
        links = self._drop(links, reasons)
        if self._captions.has_several_sources:
            rows = _Rows(*links)
            links = np.take(links, np.lexsort((rows.source, rows.record)), axis=1)
        for rule in (absolute, within_limits, known_host, last_filters):
            links = self._drop(links, self._reasons(batch, links, rule))
        rows = _Rows(*links)
        ids = pair_ids(arena.data, rows.url_start, rows.url_end, rows.alt_start, rows.alt_end)
        reasons = self._duplicate_reasons(arena, rows, ids)
        ids, links = ids[reasons == 0], self._drop(links, reasons)
        reasons = self._reasons(batch, links, title)
        ids, links = ids[reasons == 0], self._drop(links, reasons)
        self.outcomes.keep(links.shape[1])
        return self._table(batch, _Rows(*links), ids)

    def _reasons(self, batch: LinkBatch, links: Ints, rule: _Rule) -> Bytes:
        """Applies a rule; links for which it raises an exception are dropped as internal errors."""
        reasons = np.zeros(links.shape[1], np.uint8)
        before = links.copy()

        def apply(start: int, end: int) -> None:
            part = links[:, start:end]
            try:
                rule(_Rows(*part), reasons[start:end])
            except Exception:
                part[:] = before[:, start:end]
                reasons[start:end] = 0
                raise

        def failed(row: int, error: Exception) -> None:
            reasons[row] = REASON_CODES[ParseReason.INTERNAL_ERROR]
            self._errors.note(batch.page_url(int(_Rows(*links).record[row])), error)

        apply_by_rows(apply, links.shape[1], failed)
        return reasons

    def _judge_last(self, batch: LinkBatch, rows: _Rows, reasons: Bytes) -> None:
        """Applies the last filters, to links that have a valid URL and a caption."""
        arena = batch.arena
        urls, raw = (rows.url_start, rows.url_end), (rows.raw_start, rows.raw_end)
        pages = batch.page_urls[0][rows.record], batch.page_urls[1][rows.record]
        judge_absent(arena, raw, urls, pages, reasons)
        if self._blocklists.blocks_urls:
            blocked = self._blocklists.urls_blocked(_strings(arena.data, rows.url_start, rows.url_end))
            reasons[blocked] = REASON_CODES[ParseReason.BLOCKED_URL]
        self._look_up_earlier_forms(batch, rows, reasons)
        self._placeholders.judge(arena, rows.alt_start, rows.alt_end, reasons)

    def _look_up_earlier_forms(self, batch: LinkBatch, rows: _Rows, reasons: Bytes) -> None:
        """Blocks links by entries that an earlier URL rule made (removal requests keep nothing else)."""
        if not self._blocklists.earlier:
            return
        arena, (base_starts, base_ends) = batch.arena, batch.bases
        captions = _strings(arena.data, rows.alt_start, rows.alt_end).to_pylist()
        spans = list(zip(rows.raw_start, rows.raw_end, rows.record, strict=True))
        for rule, lists in self._blocklists.earlier.items():
            forms = [
                form_by_rule(rule, arena.text(start, end), arena.text(base_starts[page], base_ends[page]))
                for start, end, page in spans
            ]
            for kind, mask in lists.masks(forms, captions):
                reasons[mask & (reasons == 0)] = REASON_CODES[_BLOCKED[kind]]

    def _duplicate_reasons(self, arena: ByteArena, rows: _Rows, ids: Bytes) -> Bytes:
        reasons = np.zeros(rows.record.size, np.uint8)
        if self._blocklists.blocks_pairs:
            first_halves = ids.view(">u8")[:, 0].astype(np.uint64)
            reasons[self._blocklists.pairs_blocked(first_halves)] = REASON_CODES[ParseReason.BLOCKED_PAIR]
        rest = np.flatnonzero(reasons == 0)
        found = self._recent.add(ids[rest], (rows.url_end - rows.url_start)[rest])
        reasons[rest[found == SEEN]] = REASON_CODES[ParseReason.DUPLICATE]
        reasons[rest[found == SAME_ID]] = REASON_CODES[ParseReason.SAME_ID]
        if self._repeated is not None:
            rest = rest[found == FRESH]
            hashes = text_hashes(arena.data, rows.alt_start[rest], rows.alt_end[rest])
            reasons[rest[self._repeated.mark(hashes) == 1]] = REASON_CODES[ParseReason.TEXT_REPEATED]
        return reasons

    def _drop(self, links: Ints, reasons: Bytes) -> Ints:
        """Counts the dropped links and returns the others."""
        if not reasons.any():
            return links
        count_drops(reasons, self.outcomes)
        return np.take(links, np.flatnonzero(reasons == 0), axis=1)

    def _table(self, batch: LinkBatch, rows: _Rows, ids: Bytes) -> pa.Table:
        arena = batch.arena
        pages = rows.record
        fields = {
            "pair_id": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), pages.size, [None, pa.py_buffer(np.ascontiguousarray(ids))]
            ),
            "url": _strings(arena.data, rows.url_start, rows.url_end),
            "caption": _strings(arena.data, rows.alt_start, rows.alt_end),
            "title": _strings(arena.data, rows.title_start, rows.title_end),
            "license": _of_pages(batch.licences, NO_LICENCE, batch.offsets.size, pages),
            "page_url": _strings(arena.data, batch.page_urls[0][pages], batch.page_urls[1][pages]),
            "domain": _strings(*self._hosts.domains(rows.host)),
            "record_offset": pa.array(batch.offsets[pages]),
            "caption_source": _source_names(rows.source),
            "page_lang": _of_pages(batch.langs, "", batch.offsets.size, pages),
        }
        return pa.table(fields)


def _chunks(records: Ints, *, whole_pages: bool) -> Iterator[slice]:
    """Yields slices of some thousand rows; with whole pages, no page is in two of them."""
    first = 0
    while first < records.size:
        end = min(first + _CHUNK_ROWS, records.size)
        if whole_pages and end < records.size:
            end = int(np.searchsorted(records, records[end - 1], side="right"))
        yield slice(first, end)
        first = end


def _rows_of(links: Links, chunk: slice) -> Ints:
    """Returns the columns of _Rows for some links, as one array; it may be changed."""
    number = links.record[chunk].size
    table = np.empty((len(_Rows._fields), number), np.int32)
    for row, column in zip(table, (*links[:_COLUMNS], links.url_start, links.url_end), strict=False):
        row[:] = column[chunk]
    table[-1] = 0
    return table


def _strings(data: Bytes, starts: Ints, ends: Ints) -> pa.StringArray:
    """Copies spans into Arrow strings."""
    offsets = np.empty(starts.size + 1, np.int32)
    data = gather(data, starts, ends, offsets)
    return pa.StringArray.from_buffers(starts.size, pa.py_buffer(offsets), pa.py_buffer(data))


def _source_names(sources: Ints) -> pa.StringArray:
    if not sources.any():
        return pa.repeat(pa.scalar(CaptionSource.ALT.value), sources.size)
    return pa.array([source.value for source in SOURCES], pa.string()).take(pa.array(sources))


def _of_pages(values: dict[int, str], default: str, page_count: int, pages: Ints) -> pa.StringArray:
    """Returns the value of the page of each row; most pages have the default."""
    if not values:
        return pa.repeat(pa.scalar(default), pages.size)
    names = [default, *sorted(set(values.values()))]
    place_of = {name: place for place, name in enumerate(names)}
    place_of_page = np.zeros(page_count, np.int32)
    for page, value in values.items():
        place_of_page[page] = place_of[value]
    return pa.array(names, pa.string()).take(pa.array(place_of_page[pages]))

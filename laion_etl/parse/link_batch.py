"""Pages and their image links, and the batches of them that the filters of parse work on.

A source of links (`link_source.py`) yields batches. The WAT reader fills them by kernels; every other source
has Python strings, and `link_batches` turns those into batches: 7 µs of CPU an image link; a
language takes 28.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.caption_source import CODES
from laion_etl.core.encodings import codec_of
from laion_etl.core.errors import SettingsError
from laion_etl.core.funnel import Outcomes, RecordReason
from laion_etl.core.kernels import Ints, Longs
from laion_etl.core.rule_failures import NOT_CONTAINED
from laion_etl.parse.gzip_members import MAX_MEMBER_BYTES, Damage
from laion_etl.parse.internal_errors import InternalErrors
from laion_etl.parse.kernels.record_head import MAX_PAGE_URL_BYTES
from laion_etl.parse.kernels.spans import Links
from laion_etl.parse.licence import NO_LICENCE
from laion_etl.parse.page import ImageLink, Page
from laion_etl.urls.normalize import page_base, without_credentials

_BATCH_BYTES = 8 << 20  # smaller batches cost more calls, larger ones more memory
_BATCH_PAGES = 1 << 14
_MAX_FAILED_IN_A_ROW = 100
_NO_SPANS = np.zeros(0, np.int32)


@dataclass(slots=True)
class LinkBatch:
    """Image links of some pages; all spans refer to `arena`.

    `links.record` indexes `offsets` (of the record in the file: bytes in a WAT file, else the number of the
    record), `page_urls` and `bases` (starts and ends), `licences` and `langs`, which hold only the pages that
    have one, and `codecs`, which holds those of pages in a legacy encoding, which queries are in.
    """

    arena: ByteArena
    links: Links
    offsets: Longs
    page_urls: tuple[Ints, Ints]
    bases: tuple[Ints, Ints]
    licences: dict[int, str] = field(default_factory=dict)
    langs: dict[int, str] = field(default_factory=dict)
    codecs: dict[int, str] = field(default_factory=dict)
    records: Outcomes[RecordReason] = field(default_factory=Outcomes)
    damages: list[Damage] = field(default_factory=list)
    errors: InternalErrors = field(default_factory=InternalErrors)  # of the records

    def page_url(self, record: int) -> str:
        """The URL of the page of a record."""
        return self.arena.text(int(self.page_urls[0][record]), int(self.page_urls[1][record]))

    def append(self, pages: Sequence[Page], offsets: Sequence[int]) -> None:
        """Add pages with their links, each with the offset of its record. They count as kept records."""
        known = self.offsets.size
        rows = [
            _link_row(self.arena, known + number, image)
            for number, page in enumerate(pages)
            for image in page.images
        ]
        self.records.keep(len(pages))
        self.licences |= {
            known + number: page.licence for number, page in enumerate(pages) if page.licence != NO_LICENCE
        }
        self.langs |= {known + number: page.lang for number, page in enumerate(pages) if page.lang}
        self.codecs |= {
            known + number: codec
            for number, page in enumerate(pages)
            if page.charset and (codec := codec_of(page.charset))
        }
        self.offsets = np.concatenate([self.offsets, np.array(offsets, np.int64)])
        self.page_urls = self._with_texts(self.page_urls, [page.url for page in pages])
        self.bases = self._with_texts(self.bases, [page.base or page.url for page in pages])
        if rows:
            columns = zip(self.links, np.array(rows, np.int32).T, strict=True)
            self.links = Links(*(np.concatenate([old, added]) for old, added in columns))

    def _with_texts(self, spans: tuple[Ints, Ints], texts: Sequence[str]) -> tuple[Ints, Ints]:
        added = [_add_text(self.arena, text) for text in texts]
        new = np.array(added, np.int32).reshape(-1, 2)
        return np.concatenate([spans[0], new[:, 0]]), np.concatenate([spans[1], new[:, 1]])


def link_batches(records: Iterable[Page | RecordReason]) -> Iterator[LinkBatch]:
    """Yield the records of a file, in order, as the batches that a LinkSource has to yield.

    Pages with a URL or base of more than 8,192 bytes, or more than 32 MiB of text, are counted and left out.
    An exception costs the record that it was raised for, where more records come after it: `map` goes on with
    the next one, a generator does not. The arena of a batch is reused for the next one.

    Args:
        records: The pages; a record that gives no page as its RecordReason, so that it is counted.

    Raises:
        SettingsError: A record is neither of them.
        Exception: The exception of a record after which no other record comes.
    """
    arena = ByteArena(_BATCH_BYTES + (_BATCH_BYTES >> 1))
    batch, waiting, size = empty_batch(arena), _Waiting(), 0
    for offset, record in enumerate(_every(records)):
        page = _contained(record, batch.errors)
        if isinstance(page, Page):
            size += waiting.add(page, offset)
        else:
            batch.records.drop(page)
        if size >= _BATCH_BYTES or batch.records.input + len(waiting.pages) >= _BATCH_PAGES:
            batch.append(waiting.pages, waiting.offsets)
            yield batch
            arena.clear()
            batch, waiting, size = empty_batch(arena), _Waiting(), 0
    if batch.records.input or waiting.pages:
        batch.append(waiting.pages, waiting.offsets)
        yield batch


def page_urls(url: str, base: str | None) -> tuple[str, str]:
    """Return the URL of a page as it is stored, without user name and password, and the base of its links.

    `base`: that which the page states. A URL that is too long to be kept is not parsed.
    """
    if len(url) > MAX_PAGE_URL_BYTES:
        return url, url
    url = without_credentials(url)
    return url, page_base(url, base)


def page_url_problem(url: str, base: str) -> RecordReason | None:
    """Returns why a page with this URL and base cannot be kept, None if it can."""
    if "\0" in url:
        return RecordReason.PAGE_URL_INVALID
    if max(len(text.encode(errors="replace")) for text in (url, base)) > MAX_PAGE_URL_BYTES:
        return RecordReason.PAGE_URL_TOO_LONG
    return None


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON allows and UTF-8 does not, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(slots=True)
class _Waiting:
    """Pages of the next batch, and the numbers of their records."""

    pages: list[Page] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def add(self, page: Page, offset: int) -> int:
        """Returns the size of its texts in characters, at least 1."""
        self.pages.append(page)
        self.offsets.append(offset)
        return _size(page)


def empty_batch(arena: ByteArena) -> LinkBatch:
    """Return a batch without pages."""
    links = Links(*(_NO_SPANS for _ in Links._fields))
    return LinkBatch(arena, links, np.zeros(0, np.int64), (_NO_SPANS, _NO_SPANS), (_NO_SPANS, _NO_SPANS))


def _every(records: Iterable[Page | RecordReason]) -> Iterator[Page | RecordReason | Exception]:
    """Yields records, and exceptions in their place."""
    iterator, failed_in_a_row = iter(records), 0
    while True:
        try:
            record: Page | RecordReason | Exception = next(iterator)
            failed_in_a_row = 0
        except StopIteration:
            return
        except NOT_CONTAINED:
            raise
        except Exception as error:
            failed_in_a_row += 1
            # A generator has ended, as if the file had, too. What fails again and again is the file.
            if isinstance(iterator, Generator) or failed_in_a_row > _MAX_FAILED_IN_A_ROW:
                raise
            record = error
        yield record


def _contained(record: object, errors: InternalErrors) -> Page | RecordReason:
    if isinstance(record, Exception):
        errors.note("", record)
        return RecordReason.INTERNAL_ERROR
    try:
        return checked(record)
    except NOT_CONTAINED:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a rule raises for it
        errors.note(str(getattr(record, "url", "")), error)
        return RecordReason.INTERNAL_ERROR


def checked(record: object) -> Page | RecordReason:
    """Return a record as parse takes it: pages with their absolute base, or why they are left out."""
    if isinstance(record, RecordReason):
        return record
    if not isinstance(record, Page):
        raise SettingsError(
            f"cannot read links: the source yields {type(record).__name__}; yield a Page, or a RecordReason"
        )
    if not isinstance(record.url, str):
        return RecordReason.NOT_A_PAGE
    if _size(record) > MAX_MEMBER_BYTES:
        return RecordReason.DAMAGED
    url, base = page_urls(record.url, record.base)
    if reason := page_url_problem(url, base):
        return reason
    licence, lang = without_surrogates(record.licence), without_surrogates(record.lang)
    return replace(record, url=url, base=base, licence=licence, lang=lang)


def _size(page: Page) -> int:
    texts = (text for image in page.images for text in (image.url, image.alt, image.title, image.text))
    return 1 + len(page.url) + sum(len(text) for text in texts if isinstance(text, str))


def _add_text(arena: ByteArena, text: object) -> tuple[int, int]:
    """Returns the span of a text; (-1, -1) for a missing one, and for what is not a text."""
    return arena.add(without_surrogates(text).encode()) if isinstance(text, str) else (-1, -1)


def _link_row(arena: ByteArena, record: int, image: ImageLink) -> list[int]:
    """Returns the fields of Links for a link that was read in Python."""
    spans = [_add_text(arena, text) for text in (image.url, image.alt, image.title, image.text)]
    return [record, *(edge for span in spans for edge in span), CODES[image.source], 0]

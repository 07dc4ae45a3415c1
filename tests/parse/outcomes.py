"""What the parse rules say of one link, and what the reader says of records, in plain values for tests."""

from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from unittest.mock import patch

from laion_etl.blocklists import Blocklists, load_blocklists
from laion_etl.core.caption_source import SOURCES
from laion_etl.core.errors import InputError
from laion_etl.core.funnel import ParseReason
from laion_etl.parse import wat_reader
from laion_etl.parse.gzip_members import Damage
from laion_etl.parse.kernels.records import ODD
from laion_etl.parse.kernels.spans import Records
from laion_etl.parse.link_batch import LinkBatch
from laion_etl.parse.link_filters import LinkFilters
from laion_etl.parse.page import ImageLink
from laion_etl.parse.wat_reader import read_batches
from laion_etl.settings import ParseSettings, Settings
from tests.parse.wat_files import compact_page_record, image


@dataclass(frozen=True, slots=True)
class FoundPage:
    url: str
    base: str
    licence: str
    images: list[ImageLink]
    offset: int


@dataclass(frozen=True, slots=True)
class Found:
    pages: list[FoundPage]  # those with image links
    records: dict[str, int]  # kept, and dropped by reason
    damages: list[Damage]


def read(data: bytes, captions: Collection[str] = ("alt",)) -> Found:
    """Everything that is in a WAT file; a file of nothing but damage gives no pages."""
    found = Found([], {}, [])
    try:
        for batch in read_batches(BytesIO(data), "test.wat.gz", captions):
            found.pages.extend(_pages(batch))
            found.damages.extend(batch.damages)
            counts = {"kept": batch.records.kept, **batch.records.dropped}
            for name, count in counts.items():
                found.records[name] = found.records.get(name, 0) + count
    except InputError:
        return found
    return found


def read_without_kernels(data: bytes) -> Found:
    """The same, with each record read by Python."""

    def leave_all(_: object, records: Records, __: object, _bits: object) -> int:
        records.state[:] = ODD
        return 0

    with patch.object(wat_reader, "cut_links", leave_all):
        return read(data)


def _pages(batch: LinkBatch) -> list[FoundPage]:
    links, text = batch.links, batch.arena.text
    images: dict[int, list[ImageLink]] = {}
    for row, record in enumerate(links.record.tolist()):
        spans = (
            (links.url_start[row], links.url_end[row]),
            (links.alt_start[row], links.alt_end[row]),
            (links.title_start[row], links.title_end[row]),
            (links.text_start[row], links.text_end[row]),
        )
        texts = (text(*span) if span[0] >= 0 else None for span in spans)
        images.setdefault(record, []).append(ImageLink(*texts, SOURCES[links.source[row]]))
    return [
        FoundPage(
            url=text(batch.page_urls[0][record], batch.page_urls[1][record]),
            base=text(batch.bases[0][record], batch.bases[1][record]),
            licence=batch.licences.get(record, "?"),
            images=found,
            offset=int(batch.offsets[record]),
        )
        for record, found in images.items()
    ]


def read_pairs(data: bytes) -> list[dict[str, object]]:
    """The pairs of a WAT file by the default rules."""
    filters = LinkFilters(ParseSettings(), Blocklists())
    batches = read_batches(BytesIO(data), "test.wat.gz")
    return [dict(row) for batch in batches for table in filters.pairs(batch) for row in table.to_pylist()]


def link_outcome(
    url: str | None,
    alt: str | None,
    page_url: str,
    settings: ParseSettings | None = None,
    base: str | None = None,
) -> dict[str, object] | ParseReason:
    """The row that one link of a page becomes, or the reason why it becomes none."""
    settings = settings or ParseSettings()
    rules = LinkFilters(settings, load_blocklists(settings, Settings().data_path))
    record = compact_page_record(page_url, [image(url, alt)], base)
    for batch in read_batches(BytesIO(record), "test.wat.gz"):
        for table in rules.pairs(batch):
            (row,) = table.to_pylist()
            return dict(row)
    (reason,) = rules.outcomes.dropped
    return ParseReason(reason)


def url_outcome(url: str, page_url: str, base: str | None = None) -> str | ParseReason:
    """The absolute URL of an image link with a good text, or why it is out."""
    found = link_outcome(url, "A red car on a green field", page_url, base=base)
    return found if isinstance(found, ParseReason) else str(found["url"])

"""Reads WAT files in batches: some megabytes of records, with their image links as columns of spans.

Kernels extract the links from records in the usual form of the extractor; every other record is parsed as a
whole by wat_record.py and its links are inserted in their place.
"""

from collections.abc import Iterator

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.errors import DamagedInputError
from laion_etl.core.funnel import Outcomes, RecordReason
from laion_etl.core.kernels import Ints
from laion_etl.parse.gzip_members import ByteSource, Members, read_members
from laion_etl.parse.kernels.records import IMAGE_START, NOT_A_PAGE, ODD, PAGE, cut_links
from laion_etl.parse.kernels.spans import Links, Records, new_links, new_records
from laion_etl.parse.link_batch import LinkBatch, Page, without_surrogates
from laion_etl.parse.wat_record import json_text, records_of
from laion_etl.urls.normalize import page_base

_BATCH_BYTES = 8 << 20  # inflated; smaller batches cost more calls, larger ones more memory


def read_batches(stream: ByteSource, uri: str) -> Iterator[LinkBatch]:
    """Yields the file batch by batch; the arena of a batch is reused for the next one.

    A damaged gzip member is counted and listed in its batch. Raises DamagedInputError if not a single record
    is readable.
    """
    readable = False
    damage = None
    arena = ByteArena(_BATCH_BYTES + (_BATCH_BYTES >> 1))
    for group in read_members(stream, arena, _BATCH_BYTES):
        batch = _read(arena, group)
        readable = readable or batch.records.input > len(batch.damages)
        damage = damage or (batch.damages[0] if batch.damages else None)
        yield batch
    if not readable and damage is not None:
        raise DamagedInputError(
            f"cannot read {uri} from byte {damage.offset}: {damage.cause}; fetch it again, or leave it out "
            "with --wat-files"
        )


def _read(arena: ByteArena, group: Members) -> LinkBatch:
    ends = group.ends
    starts = np.concatenate([np.zeros(min(1, ends.size), np.int32), ends[:-1]])
    records = new_records(starts, ends)
    links = new_links(arena.size // len(IMAGE_START) + 1)  # an upper bound; unused rows cost nothing
    count = cut_links(arena.data, arena.words, records, links)
    links = Links(*(column[:count] for column in links))
    _unescape(arena, links)
    counts = Outcomes[RecordReason]()
    counts.keep(int(np.count_nonzero(records.state == PAGE)))
    counts.drop(RecordReason.NOT_A_PAGE, int(np.count_nonzero(records.state == NOT_A_PAGE)))
    counts.drop(RecordReason.DAMAGED, len(group.damages))
    batch = LinkBatch(
        arena=arena,
        links=links,
        offsets=group.offsets,
        page_urls=(records.url_start, records.url_end),
        bases=_bases(arena, records),
        records=counts,
        damages=group.damages,
    )
    odd = np.flatnonzero(records.state == ODD).tolist()
    return (
        _with_odd_records(batch, [(row, arena.bytes(starts[row], ends[row])) for row in odd])
        if odd
        else batch
    )


def _bases(arena: ByteArena, records: Records) -> tuple[Ints, Ints]:
    """Returns the base URL that the links of each record are resolved against."""
    starts, ends = records.url_start.copy(), records.url_end.copy()
    for row in np.flatnonzero((records.base_end > 0) & (records.state == PAGE)).tolist():
        page_url = arena.text(starts[row], ends[row])
        base = page_base(page_url, arena.text(records.base_start[row], records.base_end[row]))
        starts[row], ends[row] = arena.add(base.encode())
    return starts, ends


def _unescape(arena: ByteArena, links: Links) -> None:
    """Replaces spans that contain JSON escapes by their unescaped text."""
    spans = (
        (1, links.url_start, links.url_end),
        (2, links.alt_start, links.alt_end),
        (4, links.title_start, links.title_end),
    )
    for row in np.flatnonzero(links.escaped).tolist():
        for bit, starts, ends in spans:
            if links.escaped[row] & bit:
                text = json_text(b'"' + arena.bytes(starts[row], ends[row]) + b'"')
                starts[row], ends[row] = arena.add(without_surrogates(text).encode())


def _with_odd_records(batch: LinkBatch, odd: list[tuple[int, bytes]]) -> LinkBatch:
    """Inserts the pages of irregular members, given as (record row, bytes), in their places."""
    pages: list[Page] = []
    rows: list[int] = []  # of their records
    for row, member in odd:
        for page in records_of(member):
            if isinstance(page, RecordReason):
                batch.records.drop(page)
            else:
                pages.append(page)
                rows.append(row)
    if pages:
        order = np.repeat(np.array(rows, np.int32), [len(page.images) for page in pages])
        place = np.argsort(np.concatenate([batch.links.record, order]), kind="stable")
        batch.append(pages, batch.offsets[rows].tolist())
        batch.links = Links(*(column[place] for column in batch.links))
    return batch

"""WAT files: gzip members of WARC `metadata` records whose JSON describes one crawled page.

An image link is an entry of `Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links`
with path `IMG@/src` (written by the extractor ia-web-commons).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from laion_etl.errors import InputError
from laion_etl.funnel import RecordReason
from laion_etl.parse.licence import page_licence
from laion_etl.parse.urls import page_base

# Common Crawl cuts pages at 1 MiB; metadata longer than this is no page of its making.
_MAX_RECORD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImageLink:
    """An `IMG@/src` entry as the page has it; None where the attribute is missing."""

    url: str | None
    alt: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A crawled HTML page: its URL, what its links resolve against, its licence and image links."""

    url: str
    base: str
    licence: str
    images: list[ImageLink]
    offset: int  # of its record in the WAT file, bytes


def read_pages(stream: BinaryIO, uri: str) -> Iterator[Page | RecordReason]:
    """Every record of a WAT file as a page or the reason why it is none.

    Raises InputError, naming the file, the offset and the cause, when the file itself is broken.
    """
    records = ArchiveIterator(stream)
    offset = 0
    try:
        for record in records:
            offset = records.get_record_offset()
            if record.rec_type != "metadata":
                yield RecordReason.NOT_A_PAGE
                continue
            yield _page(record.content_stream().read(_MAX_RECORD_BYTES), offset)
    except (ArchiveLoadFailed, zlib.error, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"{uri} is broken after byte {offset}: {error}; fetch it again or leave it out with --wat-files"
        ) from error


def _page(payload: bytes, offset: int) -> Page | RecordReason:
    try:
        envelope = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return RecordReason.BROKEN_JSON
    html = _dig(envelope, "Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata")
    url = _dig(envelope, "Envelope", "WARC-Header-Metadata", "WARC-Target-URI")
    if not isinstance(html, dict) or not isinstance(url, str):
        return RecordReason.NOT_A_PAGE
    links = [link for link in _list(html.get("Links")) if isinstance(link, dict)]
    head_links = [link for link in _list(_dig(html, "Head", "Link")) if isinstance(link, dict)]
    return Page(
        url=url,
        base=page_base(url, _text(_dig(html, "Head", "Base"))),
        licence=page_licence(u for link in [*links, *head_links] if (u := _text(link.get("url")))),
        images=[
            ImageLink(_text(link.get("url")), _text(link.get("alt")))
            for link in links
            if link.get("path") == "IMG@/src"
        ],
        offset=offset,
    )


def _dig(value: object, *names: str) -> object:
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

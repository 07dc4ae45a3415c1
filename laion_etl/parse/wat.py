"""WAT files: gzip members of WARC `metadata` records whose JSON describes one crawled page.

An image link is an entry of `Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links`
with path `IMG@/src` (written by the extractor ia-web-commons).
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from laion_etl.errors import InputError
from laion_etl.funnel import RecordReason
from laion_etl.parse.licence import page_licence
from laion_etl.parse.urls import page_base

# Common Crawl cuts pages at 1 MiB; metadata longer than this is no page of its making.
_MAX_RECORD_BYTES = 64 * 1024 * 1024

_CUT_OFF = "it ends inside a record"


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


class _Records(ArchiveIterator):  # type: ignore[misc]
    """warcio's iterator, which takes a cut-off gzip member for a normal end: this one remembers."""

    cut_off = False

    def close(self) -> None:
        if self.reader is not None and self.reader.decompressor is not None:
            self.cut_off = not self.reader.decompressor.eof
        super().close()


def read_pages(stream: BinaryIO, uri: str) -> Iterator[Page | RecordReason]:
    """Every record of a WAT file as a page or the reason why it is none.

    Raises InputError, naming the file, the offset and the cause, when the file itself is broken.
    """
    records = _Records(stream)
    try:
        for record in records:
            payload = _payload(record)
            offset = records.get_record_offset()
            yield RecordReason.NOT_A_PAGE if payload is None else _page(payload, offset)
    except (ArchiveLoadFailed, zlib.error, EOFError, OSError, ValueError) as error:
        raise _broken(uri, records.offset, str(error)) from error
    if records.cut_off:
        raise _broken(uri, records.offset, _CUT_OFF)


def _broken(uri: str, offset: int, cause: str) -> InputError:
    return InputError(
        f"{uri} is broken after byte {offset}: {cause}; fetch it again or leave it out with --wat-files"
    )


def _payload(record: ArcWarcRecord) -> bytes | None:
    """The JSON of a metadata record, None for other records; raises ValueError for half a record."""
    announced = record.rec_headers.get_header("Content-Length") or ""
    if record.format != "warc" or not announced.isdigit():
        raise ValueError("no WARC record begins there")
    if record.rec_type != "metadata":
        return None
    payload: bytes = record.raw_stream.read(_MAX_RECORD_BYTES)
    if len(payload) < min(int(announced), _MAX_RECORD_BYTES):
        raise EOFError(_CUT_OFF)
    return payload


def _page(payload: bytes, offset: int) -> Page | RecordReason:
    try:
        envelope = _loads(payload)
    except (ValueError, RecursionError):
        return RecordReason.BROKEN_JSON
    html = _dig(envelope, "Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata")
    url = _dig(envelope, "Envelope", "WARC-Header-Metadata", "WARC-Target-URI")
    if not isinstance(html, dict) or not isinstance(url, str):
        return RecordReason.NOT_A_PAGE
    links = [link for link in _list(html.get("Links")) if isinstance(link, dict)]
    head_links = [link for link in _list(_dig(html, "Head", "Link")) if isinstance(link, dict)]
    return Page(
        url=url.encode(errors="replace").decode(),
        base=page_base(url, _text(_dig(html, "Head", "Base"))),
        licence=page_licence(u for link in [*links, *head_links] if (u := _text(link.get("url")))),
        images=[
            ImageLink(_text(link.get("url")), _text(link.get("alt")))
            for link in links
            if link.get("path") == "IMG@/src"
        ],
        offset=offset,
    )


def _loads(payload: bytes) -> object:
    """JSON as the extractor writes it: lone surrogates and stray bytes occur, and cost no page."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return json.loads(payload.decode(errors="replace"), strict=False)


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

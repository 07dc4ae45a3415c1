"""Parses WAT records: WARC `metadata` records whose JSON describes one crawled page.

An image link is an entry of `Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links` with path
`IMG@/src` (written by the extractor ia-web-commons). Here a record is parsed as a whole, whatever its form;
wat_reader.py does so only for the few records that its kernels cannot read.
"""

import json
import re
from collections.abc import Iterator

import orjson

from laion_etl.core.funnel import RecordReason
from laion_etl.parse.kernels.record_head import MAX_PAGE_URL_BYTES
from laion_etl.parse.licence import NO_LICENCE, page_licence
from laion_etl.parse.link_batch import ImageLink, Page, without_surrogates
from laion_etl.urls.normalize import page_base

_HEADER_END = re.compile(rb"\r?\n\r?\n")
_METADATA = re.compile(rb"^WARC-Type:[ \t]*metadata\s", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_NEXT_RECORD = re.compile(rb"\r?\n\r?\n(?=WARC/)")
_HTML = b'"HTML-Metadata"'


def records_of(member: bytes) -> Iterator[Page | RecordReason]:
    """Yields the WARC records of a gzip member (usually one): each as a page, or the reason why it has none.

    A wrong Content-Length is corrected by looking for the next record.
    """
    position = 0
    while member.startswith(b"WARC/", position):
        header = _HEADER_END.search(member, position)
        body = header.end() if header else len(member)
        head = member[position:body]
        end, position = _extent(member, body, _LENGTH.search(head))
        yield _page(head, member[body:end])


def _extent(data: bytes, body: int, announced: re.Match[bytes] | None) -> tuple[int, int]:
    """Returns where a payload ends and the next record begins (the end of the data if there is none)."""
    end = body + int(announced[1][:18]) if announced else len(data) + 1
    if end <= len(data):
        if not data[end : end + 8].strip(b"\r\n"):
            return end, len(data)
        if following := _NEXT_RECORD.match(data, end):
            return end, following.end()
    following = _NEXT_RECORD.search(data, body)
    return (following.start(), following.end()) if following else (len(data), len(data))


def _page(head: bytes, payload: bytes) -> Page | RecordReason:
    if not _METADATA.search(head):
        return RecordReason.NOT_A_PAGE
    if _HTML not in payload:
        return RecordReason.NOT_A_PAGE if payload.rstrip().endswith(b"}") else RecordReason.BROKEN_JSON
    try:
        envelope = _loads(payload)
    except (ValueError, RecursionError):
        return RecordReason.BROKEN_JSON
    html = _dig(envelope, "Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata")
    url = _dig(envelope, "Envelope", "WARC-Header-Metadata", "WARC-Target-URI")
    if not isinstance(html, dict) or not isinstance(url, str):
        return RecordReason.NOT_A_PAGE
    base = page_base(url, _text(_dig(html, "Head", "Base"))) if len(url) <= MAX_PAGE_URL_BYTES else url
    if max(len(url.encode(errors="replace")), len(base)) > MAX_PAGE_URL_BYTES:
        return RecordReason.PAGE_URL_TOO_LONG
    links = [link for link in _list(html.get("Links")) if isinstance(link, dict)]
    head_links = [link for link in _list(_dig(html, "Head", "Link")) if isinstance(link, dict)]
    return Page(
        url=without_surrogates(url),
        base=without_surrogates(base),
        licence=_licence([*links, *head_links]) if b"creativecommons.org" in payload else NO_LICENCE,
        images=[
            ImageLink(_text(link.get("url")), _text(link.get("alt")), _text(link.get("title")))
            for link in links
            if link.get("path") == "IMG@/src"
        ],
    )


def _licence(links: list[dict[object, object]]) -> str:
    """Returns the licence that a page links to; the sources of images are not links."""
    found = ((link.get("url"), link.get("rel")) for link in links if link.get("path") != "IMG@/src")
    return page_licence(
        (url, _text(rel)) for url, rel in found if isinstance(url, str) and "creativecommons.org" in url
    )


def json_text(quoted: bytes) -> str:
    """Returns the text of a JSON string that is given with its quotes."""
    value = _loads(quoted)
    return value if isinstance(value, str) else ""


def _loads(payload: bytes) -> object:
    """Parses JSON of the extractor, tolerating the lone surrogates and invalid bytes that occur in it."""
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

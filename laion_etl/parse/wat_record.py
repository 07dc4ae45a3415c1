"""Parses WAT records: WARC `metadata` records whose JSON describes one crawled page.

An image is an entry of `Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links` with path
`IMG@/src` (written by the extractor ia-web-commons); links are `A@/href`. Here a record is parsed as a whole,
whatever its form; wat_reader.py does so only for the few records that its kernels cannot read.
"""

import json
import re
from collections.abc import Iterator

import orjson

from laion_etl.core.caption_source import CaptionSource
from laion_etl.core.funnel import RecordReason
from laion_etl.parse.image_links import link_to_image, preview_images
from laion_etl.parse.licence import NO_LICENCE, may_have_licence, names_commons, page_licence
from laion_etl.parse.link_batch import page_url_problem, page_urls, without_surrogates
from laion_etl.parse.page import ImageLink, Page
from laion_etl.parse.stated_charset import page_charset
from laion_etl.parse.warc_records import NoRecord, WarcRecord, in_brackets, split_records

_HTML = b'"HTML-Metadata"'
_PREVIEW = b"og:image:alt"
_PLAIN_URL = re.compile(r"[!-~]+")
_PADDING = b"\r\n\t \0"


def records_of(data: bytes, wanted: frozenset[CaptionSource] = frozenset()) -> Iterator[Page | RecordReason]:
    """Yields the WARC records in some bytes: each as a page, or the reason why it has none."""
    for record in split_records(data):
        yield RecordReason.DAMAGED if isinstance(record, NoRecord) else page_of(record, wanted)


def page_of(record: WarcRecord, wanted: frozenset[CaptionSource] = frozenset()) -> Page | RecordReason:
    """Returns the page that a record describes, or the reason why there is none.

    Its images, and those that it names elsewhere as far as these sources are wanted.
    """
    payload = record.payload.strip(_PADDING)
    if not record.is_metadata:
        return RecordReason.NOT_A_PAGE
    if _HTML not in payload:
        return RecordReason.NOT_A_PAGE if payload.endswith(b"}") else RecordReason.BROKEN_JSON
    try:
        envelope = _loads(payload)
    except (ValueError, RecursionError):
        return RecordReason.BROKEN_JSON
    response = _dig(envelope, "Envelope", "Payload-Metadata", "HTTP-Response-Metadata")
    html = _dig(response, "HTML-Metadata") or _found(envelope, "HTML-Metadata")
    url = _page_url(record, envelope)
    if not isinstance(html, dict) or not url:
        return RecordReason.NOT_A_PAGE
    url, base = page_urls(url, _text(_dig(html, "Head", "Base")))
    if reason := page_url_problem(url, base):
        return reason
    links = [link for link in _list(html.get("Links")) if isinstance(link, dict)]
    head_links = [link for link in _list(_dig(html, "Head", "Link")) if isinstance(link, dict)]
    return Page(
        url=without_surrogates(url),
        base=without_surrogates(base),
        charset=page_charset(_dig(response, "Headers"), _metas(html)),
        licence=_licence(html, [*links, *head_links]) if names_commons(payload) else NO_LICENCE,
        images=[*_images(links, wanted), *_previews(html, payload, wanted)],
    )


def _images(links: list[dict[object, object]], wanted: frozenset[CaptionSource]) -> Iterator[ImageLink]:
    wants_links = CaptionSource.LINK in wanted
    for link in links:
        path = link.get("path")
        if path == "IMG@/src":
            yield ImageLink(_text(link.get("url")), _text(link.get("alt")), _text(link.get("title")))
        elif wants_links and path == "A@/href":
            url, title, text = (_text(link.get(name)) for name in ("url", "title", "text"))
            if found := link_to_image(url, title, text):
                yield found


def _previews(
    html: dict[object, object], payload: bytes, wanted: frozenset[CaptionSource]
) -> list[ImageLink]:
    """Returns the previews of a page that states a caption of one; the kernel leaves all others alone."""
    if CaptionSource.OG not in wanted or _PREVIEW not in payload[payload.find(_HTML) :]:
        return []
    return preview_images(
        (_text(meta.get("name") or meta.get("property")), _text(meta.get("content"))) for meta in _metas(html)
    )


def _page_url(record: WarcRecord, envelope: object) -> str:
    """Returns the URL of the record's head where it is plain, as the kernels do, else that of its JSON.

    The JSON has what the head cannot have, such as letters beyond ASCII. Made from an ARC file, it has the
    URL in another place, and one that was stated twice is a list there, of which the last counts as in heads.
    """
    if _PLAIN_URL.fullmatch(record.target):
        return record.target
    for names in (("WARC-Header-Metadata", "WARC-Target-URI"), ("ARC-Header-Metadata", "Target-URI")):
        stated = _dig(envelope, "Envelope", *names)
        urls = [in_brackets(url.strip()) for url in (*_list(stated), stated) if isinstance(url, str)]
        if url := next(filter(None, reversed(urls)), ""):
            return url
    return record.target


def _licence(html: dict[object, object], links: list[dict[object, object]]) -> str:
    """Returns the licence that a page links to or states; the sources of images are not links."""
    # First what few links are: a page has hundreds.
    named = [(url, link) for link in links if (url := _text(link.get("url"))) and may_have_licence(url)]
    return page_licence(
        ((url, _text(link.get("rel"))) for url, link in named if link.get("path") != "IMG@/src"),
        ((_meta_name(meta), _text(meta.get("content"))) for meta in _metas(html)),
    )


def _meta_name(meta: dict[object, object]) -> str | None:
    return _text(meta.get("name") or meta.get("property") or meta.get("itemprop"))


def _metas(html: dict[object, object]) -> list[dict[object, object]]:
    return [meta for meta in _list(_dig(html, "Head", "Metas")) if isinstance(meta, dict)]


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


def _found(value: object, name: str) -> object:
    """Returns the first object of this name, wherever it is: kernels do not look at what it is in."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get(name), dict):
                return value[name]
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
    return None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

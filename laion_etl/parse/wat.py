"""WAT files: gzip members with WARC `metadata` records whose JSON describes one crawled page.

An image link is an entry of `Envelope.Payload-Metadata.HTTP-Response-Metadata.HTML-Metadata.Links` with path
`IMG@/src` (written by the extractor ia-web-commons). Most of the JSON is about other things, so the image
entries are cut out and only they are parsed; a page with a base, a licence link or entries of another shape
is parsed whole.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson

from laion_etl.errors import InputError
from laion_etl.funnel import RecordReason
from laion_etl.parse.licence import NO_LICENCE, page_licence
from laion_etl.parse.members import Damage, read_members
from laion_etl.parse.urls import page_base

_IMAGE_START = b'{"path":"IMG@/src"'
_IMAGE_PATH = b'"IMG@/src"'
_HTML = b'"HTML-Metadata"'
_OBJECT = re.compile(rb"\s*:\s*\{")
_NEEDS_WHOLE_PAGE = (b'"Base"', b"creativecommons.org")

_HEADER_END = re.compile(rb"\r?\n\r?\n")
_METADATA = re.compile(rb"^WARC-Type:[ \t]*metadata\s", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_TARGET = re.compile(rb"^WARC-Target-URI:[ \t]*<?([^\r\n>]*)", re.IGNORECASE | re.MULTILINE)
_NEXT_RECORD = re.compile(rb"\r?\n\r?\n(?=WARC/)")


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


def read_pages(stream: BinaryIO, uri: str) -> Iterator[Page | RecordReason | Damage]:
    """Every record of a WAT file as a page or the reason why it is none; a damaged gzip member as Damage.

    Raises InputError, naming the file and the cause, when not a single record can be read.
    """
    readable = 0
    damage = None
    for member in read_members(stream):
        if isinstance(member, Damage):
            damage = damage or member
            yield member
            continue
        for head, payload in _records(member.data):
            readable += 1
            yield _page(head, payload, member.offset)
    if not readable and damage is not None:
        raise InputError(
            f"{uri} is broken after byte {damage.offset}: {damage.cause}; fetch it again or leave it out "
            "with --wat-files"
        )


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header and payload of the WARC records of a member: one, as a rule.

    A wrong Content-Length is put right by what follows.
    """
    position = 0
    while data.startswith(b"WARC/", position):
        header = _HEADER_END.search(data, position)
        body = header.end() if header else len(data)
        head = data[position:body]
        end, position = _extent(data, body, _LENGTH.search(head))
        yield head, data[body:end]


def _extent(data: bytes, body: int, announced: re.Match[bytes] | None) -> tuple[int, int]:
    """Where a payload ends and the next record begins (the end of the data if there is none)."""
    end = body + int(announced[1][:18]) if announced else len(data) + 1
    if end <= len(data):
        if not data[end : end + 8].strip(b"\r\n"):
            return end, len(data)
        if following := _NEXT_RECORD.match(data, end):
            return end, following.end()
    following = _NEXT_RECORD.search(data, body)
    return (following.start(), following.end()) if following else (len(data), len(data))


def _page(head: bytes, payload: bytes, offset: int) -> Page | RecordReason:
    whole = payload.endswith(b"}") or payload.rstrip().endswith(b"}")
    html = payload.find(_HTML)
    if html < 0:
        broken = not whole and _METADATA.search(head)
        return RecordReason.BROKEN_JSON if broken else RecordReason.NOT_A_PAGE
    if not _METADATA.search(head):
        return RecordReason.NOT_A_PAGE
    target = _TARGET.search(head)
    if whole and target and _OBJECT.match(payload, html + len(_HTML)):
        links = None if any(part in payload for part in _NEEDS_WHOLE_PAGE) else _cut_out(payload)
        if links is not None:
            url = target[1].decode(errors="replace")
            return Page(url, url, NO_LICENCE, links, offset)
    return _whole_page(payload, offset)


def _cut_out(payload: bytes) -> list[ImageLink] | None:
    """The image links of a page without parsing the rest; None when they can't be told for sure."""
    entries = []
    start = payload.find(_IMAGE_START)
    while start >= 0:
        # A brace inside a text cuts an entry short, which the parser then notices: a string stays open.
        end = payload.find(b"}", start) + 1
        entries.append(payload[start:end])
        start = payload.find(_IMAGE_START, end)
    if len(entries) != payload.count(_IMAGE_PATH):
        return None
    try:
        parsed = orjson.loads(b"[" + b",".join(entries) + b"]")
    except orjson.JSONDecodeError:
        return None
    return [ImageLink(_text(entry.get("url")), _text(entry.get("alt"))) for entry in parsed]


def _whole_page(payload: bytes, offset: int) -> Page | RecordReason:
    """A page by its whole JSON."""
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

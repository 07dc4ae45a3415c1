"""The HTML of an HTTP response in a WARC record: without its head, transfer coding and compression.

Archives differ in what they keep. Common Crawl stores bodies decoded and renames the headers that no longer
hold (`X-Crawl-Content-Encoding`); wget and browsers store what came over the wire. A header that promises a
coding which the body does not have is common, so a body that is not chunked, or not compressed, is taken as
it is. Every body is cut at MAX_HTML_BYTES, decoded or not: crawlers cut pages, too, and half a page has
links.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from laion_etl.core.funnel import RecordReason

MAX_HTML_BYTES = 8 << 20  # Common Crawl cuts pages at 5 MiB, and at 1 MiB before 2025

_STATUS = re.compile(rb"HTTP/[0-9.]+[ \t]+2[0-9]{2}(?![0-9])")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_HEADER = re.compile(rb"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)", re.MULTILINE)
_MAX_HEAD_BYTES = 1 << 16
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([^\s\"';]+)", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_LOOKS_LIKE_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)
_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15  # window bits
_MAX_CODINGS = 2  # of one body; a hostile one may name thousands, each of which costs a pass over it
_PART_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Html:
    """The HTML of a page as bytes; `charset` is what the server says, '' if nothing."""

    body: bytes
    charset: str


def html_of(payload: bytes) -> Html | RecordReason:
    """Returns the HTML of a response, or the reason why there is none."""
    if not _STATUS.match(payload):
        return RecordReason.NOT_A_PAGE
    found = _HEAD_END.search(payload, 0, _MAX_HEAD_BYTES)
    if not found:
        return RecordReason.NOT_A_PAGE
    headers = _headers(payload[: found.start()])
    kind = headers.get("content-type", "")
    body = payload[found.end() :]
    if kind and kind.partition(";")[0].strip().lower() not in _HTML_TYPES:
        return RecordReason.NOT_A_PAGE
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    codings = _codings(headers)
    if len(codings) > _MAX_CODINGS:
        return RecordReason.PAGE_UNREADABLE
    for coding in reversed(codings):
        decoded = _decoded(body, coding)
        if decoded is None:
            return RecordReason.PAGE_UNREADABLE
        body = decoded
    if not kind and not _LOOKS_LIKE_HTML.match(body):
        return RecordReason.NOT_A_PAGE
    charset = _CHARSET.search(kind)
    return Html(body[:MAX_HTML_BYTES], charset[1] if charset else "")


def _headers(head: bytes) -> dict[str, str]:
    """Returns the headers by their names in lower case; of several with one name, the last."""
    return {name.decode().lower(): value.decode("latin-1").strip() for name, value in _HEADER.findall(head)}


def _codings(headers: dict[str, str]) -> list[str]:
    """Returns what was applied to the body, in order."""
    named = map(str.strip, headers.get("content-encoding", "").lower().split(","))
    return [coding for coding in named if coding not in ("", "identity")]


def _unchunked(body: bytes) -> bytes:
    """Returns a body without its chunks (RFC 9112 7.1); what is not chunked stays as it is."""
    parts: list[bytes] = []
    position = size = 0
    while size < MAX_HTML_BYTES and (found := _CHUNK_SIZE.match(body, position)):
        length = int(found[1], 16)
        if not length:
            break
        parts.append(body[found.end() : found.end() + length])
        size += len(parts[-1])
        position = found.end() + length
        if body.startswith(b"\r\n", position):
            position += 2
        elif body.startswith(b"\n", position):
            position += 1
    return b"".join(parts) if parts else body


def _decoded(body: bytes, coding: str) -> bytes | None:
    """Returns a body without one coding, as far as it can be read; None if nothing of it can."""
    if _LOOKS_LIKE_HTML.match(body):
        return body
    if coding in ("gzip", "x-gzip"):
        return _inflated(body, _GZIP)
    if coding == "deflate":  # zlib by RFC 9110 8.4.1.2; some servers leave its wrapper out
        return _inflated(body, _ZLIB) or _inflated(body, _RAW_DEFLATE)
    return None


def _inflated(body: bytes, window_bits: int) -> bytes | None:
    """Returns the first MAX_HTML_BYTES of what a body inflates to: all that comes before damage."""
    inflater = zlib.decompressobj(window_bits)
    inflate: Callable[[bytes, int], bytes] = inflater.decompress
    parts: list[bytes] = []
    size = place = 0
    while place < len(body) and size < MAX_HTML_BYTES and not inflater.eof:
        given = body[place : place + _PART_BYTES]
        try:
            part = inflate(given, MAX_HTML_BYTES - size)
        except zlib.error:
            break
        place += len(given) - len(inflater.unconsumed_tail)
        parts.append(part)
        size += len(part)
    return b"".join(parts) or None

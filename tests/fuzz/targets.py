"""What must hold for any bytes: a target raises AssertionError, or what the code raises, when it does not."""

import gzip
import json
from collections.abc import Callable
from functools import cache

import numpy as np

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.funnel import ParseReason
from laion_etl.core.reason_codes import REASON_CODES
from laion_etl.parse.page import Page
from laion_etl.parse.placeholders import PlaceholderRule, placeholder
from laion_etl.parse.text import clean_alt, clean_texts
from laion_etl.parse.wat_record import records_of
from laion_etl.settings import ParseSettings
from laion_etl.urls.normalize import is_template, page_base, resolve, resolve_urls
from tests.fuzz.foreign_targets import FOREIGN
from tests.fuzz.image_targets import IMAGES
from tests.fuzz.reader_targets import READERS
from tests.fuzz.store_targets import STORED
from tests.fuzz.wish_targets import WISHES
from tests.parse.outcomes import FoundPage, read, read_without_kernels
from tests.parse.wat_files import plain_record, record

_MAX_CHARS = 2000
_MEMBER = b"\n~~~\n"  # between the members of a file


@cache
def _placeholders() -> PlaceholderRule:
    return PlaceholderRule(ParseSettings())


def file(data: bytes) -> None:
    """Any bytes as a WAT file: nothing is raised, and what has links is counted."""
    found = read(data)
    assert found.records.get("kept", 0) >= len(found.pages)


def members(data: bytes) -> None:
    """Any content of members: each record in them is counted once, as reading it as a whole counts it."""
    # A member that does not begin with a record continues the one before.
    contents = [b"WARC/1.0\r\n" + content for content in data.split(_MEMBER)[:8]]
    found = read(b"".join(gzip.compress(content, 1) for content in contents))
    assert sum(found.records.values()) == sum(len(list(records_of(content))) for content in contents)
    assert {damage.cause for damage in found.damages} <= {"not a WARC record"}


def records(data: bytes) -> None:
    """Any head, and JSON of the extractor's structure with any texts: kernels read it as Python does."""
    head, _, content = data.partition(_MEMBER)
    fields = [part.decode("utf-8", "replace") for part in content.split(b"\n")]
    form, url, base = (*fields, "", "", "")[:3]
    html: dict[str, object] = {"Head": {"Base": base} if base else {}, "Links": _links(fields[3:])}
    response = {"HTTP-Response-Metadata": {"Headers": {"Content-Type": form}, "HTML-Metadata": html}}
    envelope: dict[str, object] = {"Payload-Metadata": response}
    if "a" in form:
        envelope["ARC-Header-Metadata"] = {"Target-URI": url}
    if "w" in form:
        envelope["WARC-Header-Metadata"] = {"WARC-Target-URI": [url, url] if "t" in form else url}
    spaces = (", ", ": ") if "s" in form else (",", ":")
    payload = json.dumps({"Envelope": envelope}, separators=spaces, ensure_ascii="u" in form).encode()
    length = b"" if b"ontent-" in head else b"Content-Length: %d\r\n" % len(payload)
    end = b"\r\n" * (len(form) % 5)
    member = gzip.compress(b"WARC/1.0\r\n" + head + length + b"\r\n" + payload + end, 1)
    assert read(member) == read_without_kernels(member)


def _links(fields: list[str]) -> list[dict[str, str]]:
    return [_link(fields[first : first + 4]) for first in range(0, len(fields), 4)]


def framing(data: bytes) -> None:
    """Records with anything between them, cut into members anywhere: pages and counts as in one member."""
    cuts, _, rest = data.partition(b"\n")
    between = [part.replace(b"WARC", b"") for part in rest.split(_MEMBER)[:4]]
    content = b"".join(
        plain_record(f"https://example.org/{number}", _page(number)) + part
        for number, part in enumerate([b"", *between])
    )
    places = sorted({(position * 251 + byte) % len(content) for position, byte in enumerate(cuts[:40])})
    parts = [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]
    whole, found = read(gzip.compress(content, 1)), read(b"".join(gzip.compress(part, 1) for part in parts))
    assert [page.url for page in found.pages] == [page.url for page in whole.pages]
    assert len(whole.pages) == 1 + len(between)
    assert found.records == whole.records


def _page(number: int) -> bytes:
    html = {"Links": [{"path": "IMG@/src", "url": f"{number}.jpg", "alt": "A red car"}]}
    response = {"HTTP-Response-Metadata": {"HTML-Metadata": html}}
    return json.dumps({"Envelope": {"Payload-Metadata": response}}, separators=(",", ":")).encode()


def pages(data: bytes) -> None:
    """Any JSON a page can be made of, as the extractor writes it: its links are those of the whole JSON."""
    fields = [part.decode("utf-8", "replace") for part in data.split(b"\n")]
    url = "https://example.org/" + "".join(c for c in fields[0] if "!" <= c <= "~")
    html: dict[str, object] = {"Head": {"Base": fields[1]} if len(fields) > 1 and fields[1] else {}}
    html["Links"] = _links(fields[2:])
    envelope = {
        "WARC-Header-Metadata": {"WARC-Target-URI": url},
        "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}},
    }
    ascii_only = data.endswith(b"\n")
    text = json.dumps({"Envelope": envelope}, separators=(",", ":"), ensure_ascii=ascii_only)
    member = record(url, text.encode())
    (page,) = records_of(gzip.decompress(member))
    assert isinstance(page, Page)
    expected = FoundPage(page.url, page.base, page.licence, page.images, 0)
    found = read(member)
    assert found.records.get("kept") == 1
    assert found.pages == ([expected] if page.images else [])


def _link(fields: list[str]) -> dict[str, str]:
    names = ("url", "alt", "title", "rel")
    path = "A@/href" if len(fields) == len(names) and fields[3] else "IMG@/src"
    return {"path": path} | {name: text for name, text in zip(names, fields, strict=False) if text != "-"}


def urls(data: bytes) -> None:
    """Any URL, base and page URL: the column gives what the rule gives; a normal form is its own."""
    page, base, url, *_ = [part.decode("utf-8", "replace") for part in data.split(b"\n", 2)] + ["", ""]
    against = page_base(page, base)
    expected = resolve(url, against)
    if is_template(expected):
        expected = ParseReason.URL_INVALID
    arena = ByteArena(16)
    starts, ends, base_starts, base_ends = (
        np.array([edge], np.int32) for text in (url, against) for edge in arena.add(text.encode())
    )
    reasons = np.zeros(1, np.uint8)
    records = np.zeros(1, np.int32)
    resolve_urls(arena, (starts, ends), (base_starts, base_ends), records, reasons, 10 * _MAX_CHARS)
    if expected in REASON_CODES:
        assert reasons[0] == REASON_CODES[expected]
        return
    assert reasons[0] == 0
    assert arena.text(starts[0], ends[0]) == expected
    assert resolve(expected, "https://other.example/") == expected
    assert expected.startswith(("http://", "https://"))
    assert all("!" <= character <= "~" for character in expected)


def texts(data: bytes) -> None:
    """Any text: the column gives what the rules give; what is kept is short, printable and without edges."""
    text = data.decode("utf-8", "replace")
    arena = ByteArena(16)
    starts, ends = (np.array([edge], np.int32) for edge in arena.add(text.encode()))
    (length,) = clean_texts(arena, starts, ends, _MAX_CHARS)
    found = arena.text(starts[0], ends[0])
    assert found == clean_alt(text, _MAX_CHARS)
    assert length == len(found) <= _MAX_CHARS
    assert found == " ".join(found.split())
    reasons = np.zeros(1, np.uint8)
    _placeholders().judge(arena, starts, ends, reasons)
    reason = placeholder(found)
    assert reasons[0] == (REASON_CODES[reason] if reason else 0)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        file,
        members,
        records,
        framing,
        pages,
        urls,
        texts,
        *FOREIGN,
        *WISHES,
        *IMAGES,
        *STORED,
        *READERS,
    )
}

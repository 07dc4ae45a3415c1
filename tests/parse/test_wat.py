import gzip
import json
import random
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from laion_etl.errors import InputError
from laion_etl.funnel import RecordReason
from laion_etl.parse.members import MAX_MEMBER_BYTES, Damage
from laion_etl.parse.wat import ImageLink, Page, read_pages
from tests.parse.wat_files import image, json_record, page_record, record


def pages(*records: bytes) -> list[Page | RecordReason | Damage]:
    return list(read_pages(BytesIO(b"".join(records)), "test.wat.gz"))


def test_a_page_gives_its_image_links_base_and_licence() -> None:
    links = [
        image("a.jpg", "A red car"),
        {"path": "A@/href", "url": "https://creativecommons.org/licenses/by/4.0/", "rel": "license"},
        image("b.jpg"),
        image(None, "no url"),
        {"path": "TD@/background", "url": "c.jpg"},
    ]
    [page] = pages(page_record("https://example.org/x/", links, base="/y/"))
    assert isinstance(page, Page)
    assert page.url == "https://example.org/x/"
    assert page.base == "https://example.org/y/"
    assert page.licence == "https://creativecommons.org/licenses/by/4.0/"
    assert page.images == [
        ImageLink("a.jpg", "A red car"),
        ImageLink("b.jpg", None),
        ImageLink(None, "no url"),
    ]


def test_every_record_counts_once() -> None:
    found = pages(
        json_record("https://example.org/", {"HTTP-Request-Metadata": {}}),
        record("https://example.org/", b'{"Envelope": {"Pay'),
        page_record("https://example.org/", []),
        json_record("https://example.org/", {"HTTP-Response-Metadata": {"Entity-Length": "0"}}),
    )
    kinds = [kind if isinstance(kind, RecordReason) else "page" for kind in found]
    assert kinds == [RecordReason.NOT_A_PAGE, RecordReason.BROKEN_JSON, "page", RecordReason.NOT_A_PAGE]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b'{"Envelope": 3}',
        b'{"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": []}}}}',
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_odd_json_is_counted_and_passed_over(payload: bytes) -> None:
    reason, page = pages(record("https://example.org/", payload), page_record("https://example.org/", []))
    assert isinstance(reason, RecordReason)
    assert isinstance(page, Page)


def test_odd_types_inside_a_page_are_ignored() -> None:
    links = ["x", None, 3, {"path": "IMG@/src", "url": ["a"], "alt": {"b": 1}}, {"path": 5}]
    [page] = pages(page_record("https://example.org/", links, base=7))  # type: ignore[arg-type,list-item]
    assert isinstance(page, Page)
    assert page.images == [ImageLink(None, None)]
    assert page.base == "https://example.org/"


def test_a_lone_surrogate_costs_no_page() -> None:
    payload = (
        b'{"Envelope":{"WARC-Header-Metadata":{"WARC-Target-URI":"https://example.org/\\ud800"},"Payload-Metadata":'
        b'{"HTTP-Response-Metadata":{"HTML-Metadata":{"Links":[{"path":"IMG@/src","url":"a.jpg","alt":"x\\ud800y"}]}}}}}'
    )
    [page] = pages(record("https://example.org/", payload))
    assert isinstance(page, Page)
    assert page.images[0].url == "a.jpg"
    assert page.url == "https://example.org/?"


def test_offsets_point_to_the_records() -> None:
    first = page_record("https://example.org/1", [])
    found = pages(first, page_record("https://example.org/2", []))
    assert [page.offset for page in found if isinstance(page, Page)] == [0, len(first)]


def test_a_cut_off_file_loses_its_last_record_only() -> None:
    whole = page_record("https://example.org/1", [])
    second = page_record("https://example.org/2", [image(f"{n}.jpg", f"number {n}") for n in range(500)])
    page, damage = pages(whole, second[: len(second) // 2])
    assert isinstance(page, Page)
    assert damage == Damage(len(whole), "cut off")


def test_a_file_without_a_whole_record_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"test\.wat\.gz is broken after byte 0: cut off; fetch it again"):
        pages(page_record("https://example.org/1", [])[:100])


def test_a_file_that_is_no_wat_is_named() -> None:
    with pytest.raises(InputError, match=r"test.wat.gz is broken"):
        list(read_pages(BytesIO(b"<html>not found</html>" * 100), "test.wat.gz"))


@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_corrupt_member_loses_only_itself(place: str) -> None:
    records = [
        page_record(f"https://example.org/{n}", [image(f"{m}.jpg", "x") for m in range(99)]) for n in "123"
    ]
    broken = bytearray(records[1])
    at = {"start": 0, "middle": len(broken) // 2, "end": len(broken) - 8}[place]
    broken[at : at + 8] = b"\xde\xad\xbe\xef" * 2
    first, damage, last = pages(records[0], bytes(broken), records[2])
    assert isinstance(first, Page)
    assert isinstance(last, Page)
    assert isinstance(damage, Damage)
    assert damage.offset == len(records[0])
    assert last.offset == len(records[0]) + len(broken)


def test_garbage_between_members_is_one_damage() -> None:
    records = [page_record(f"https://example.org/{n}", []) for n in "12"]
    garbage = b"\x1f\x8b\x08 looks like a member, is none " * 5 + bytes(3_000_000)
    _, damage, last = pages(records[0], garbage, records[1])
    assert isinstance(damage, Damage)
    assert isinstance(last, Page)
    assert last.offset == len(records[0]) + len(garbage)


def test_members_longer_than_a_chunk_and_with_gzip_magic_inside_are_whole() -> None:
    blob = random.Random(1).randbytes(3_000_000).hex()
    stored = record("https://example.org/", b'{"x": "' + blob.encode() + b'"}')
    magic = gzip.compress(b"WARC/1.0\r\nContent-Length: 9\r\n\r\n" + b"\x1f\x8b\x08" * 3, 0, mtime=0)
    assert magic.count(b"\x1f\x8b\x08") > 1
    found = pages(stored, magic, page_record("https://example.org/2", []))
    assert [kind if isinstance(kind, RecordReason) else "page" for kind in found] == [
        RecordReason.NOT_A_PAGE,
        RecordReason.NOT_A_PAGE,
        "page",
    ]


def test_a_member_that_inflates_without_end_is_damage() -> None:
    bomb = gzip.compress(b"WARC/1.0\r\n" + bytes(MAX_MEMBER_BYTES + 1_000_000), 9, mtime=0)
    damage, page = pages(bomb, page_record("https://example.org/2", []))
    assert isinstance(damage, Damage)
    assert isinstance(page, Page)


def plain_record(url: str, links: list[dict[str, Any]]) -> bytes:
    return gzip.decompress(page_record(url, links))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw,
        lambda raw: raw.replace(b"\r\n", b"\n"),
        lambda raw: raw.replace(b"WARC/1.0", b"WARC/1.1"),
        lambda raw: re.sub(rb"Content-Length: \d+", b"Content-Length: 999999", raw),
        lambda raw: re.sub(rb"Content-Length: \d+", b"Content-Length: 17", raw),
        lambda raw: re.sub(rb"Content-Length: \d+\r?\n", b"", raw),
        lambda raw: re.sub(rb"Content-Length: \d+", b"content-length:" + b"9" * 400, raw),
        lambda raw: raw.replace(b"WARC-Target-URI", b"X-Else", 1),
    ],
)
@pytest.mark.parametrize("members", ["each its own", "all in one"])
def test_odd_headers_cost_no_page(change: Callable[[bytes], bytes], members: str) -> None:
    raw = [change(plain_record(f"https://example.org/{n}", [image("a.jpg", f"text {n}")])) for n in range(3)]
    joined = raw if members == "each its own" else [b"".join(raw)]
    found = pages(*(gzip.compress(part, mtime=0) for part in joined))
    assert [page.url for page in found if isinstance(page, Page)] == [
        f"https://example.org/{n}" for n in range(3)
    ]
    assert [page.images[0].alt for page in found if isinstance(page, Page)] == ["text 0", "text 1", "text 2"]


@pytest.mark.parametrize(
    "link",
    [
        {"path": "IMG@/src", "url": "a.jpg", "alt": 'a } brace, a { and a \\" quote'},
        {"path": "IMG@/src", "url": "a.jpg", "alt": "x", "title": "t", "width": 3},
        {"path": "IMG@/src", "url": "a.jpg", "alt": 'the text "IMG@/src" itself'},
        {"url": "a.jpg", "alt": "x", "path": "IMG@/src"},
        {"path": "IMG@/src", "url": None, "alt": ["x"]},
        {"path": "IMG@/src"},
        {"path": "IMG@/src", "url": "a.jpg", "alt": "\u00e9\u4e2d\U0001f697"},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_cutting_out_and_parsing_whole_agree(
    link: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    links = [
        {"path": "A@/href", "url": "/", "text": "t"},
        link,
        {"path": "IMG@/src", "url": "b.jpg", "alt": "b"},
    ]
    envelope = {
        "Envelope": {
            "WARC-Header-Metadata": {"WARC-Target-URI": "https://example.org/"},
            "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": {"Links": links}}},
        }
    }
    payload = json.dumps(envelope, separators=separators, ensure_ascii=ascii_only).encode()
    [page] = pages(record("https://example.org/", payload))
    [by_whole_page] = pages(record("https://example.org/", payload[:-1] + b',"x":"creativecommons.org"}'))
    assert isinstance(page, Page)
    assert isinstance(by_whole_page, Page)
    assert page.images == by_whole_page.images
    assert len(page.images) == 2

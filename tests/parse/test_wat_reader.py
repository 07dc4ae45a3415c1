"""Reading WAT files: which pages, links and damages are found, however the file was written."""

import gzip
import json
import random
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from laion_etl.core.errors import InputError
from laion_etl.parse.gzip_members import MAX_MEMBER_BYTES, Damage
from laion_etl.parse.page import ImageLink
from laion_etl.parse.wat_reader import read_batches
from tests.parse.outcomes import Found, read
from tests.parse.wat_files import compact_page_record, image, json_record, page_record, record

A = image("a.jpg", "x")


def found_in(*records: bytes) -> Found:
    return read(b"".join(records))


@pytest.mark.parametrize("write", [page_record, compact_page_record])
def test_a_page_gives_its_image_links_base_and_licence(write: Callable[..., bytes]) -> None:
    links = [
        image("a.jpg", "A red car", "Our car"),
        {"path": "A@/href", "url": "https://creativecommons.org/licenses/by/4.0/", "rel": "license"},
        image("b.jpg"),
        image(None, "no url"),
        {"path": "TD@/background", "url": "c.jpg"},
    ]
    [page] = found_in(write("https://example.org/x/", links, base="/y/")).pages
    assert page.url == "https://example.org/x/"
    assert page.base == "https://example.org/y/"
    assert page.licence == "https://creativecommons.org/licenses/by/4.0/"
    assert page.images == [
        ImageLink("a.jpg", "A red car", "Our car"),
        ImageLink("b.jpg", None, None),
        ImageLink(None, "no url", None),
    ]


def test_every_record_counts_once() -> None:
    found = found_in(
        json_record("https://example.org/", {"HTTP-Request-Metadata": {}}),
        record("https://example.org/", b'{"Envelope": {"Pay'),
        page_record("https://example.org/", []),
        compact_page_record("https://example.org/", []),
        json_record("https://example.org/", {"HTTP-Response-Metadata": {"Entity-Length": "0"}}),
    )
    assert found.records == {"kept": 2, "not_a_page": 2, "broken_json": 1}


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
def test_odd_json_is_counted_and_skipped(payload: bytes) -> None:
    found = found_in(record("https://example.org/", payload), page_record("https://example.org/", [A]))
    assert len(found.pages) == 1
    assert sum(found.records.values()) == 2


def test_odd_types_inside_a_page_are_ignored() -> None:
    links = ["x", None, 3, {"path": "IMG@/src", "url": ["a"], "alt": {"b": 1}}, {"path": 5}]
    [page] = found_in(page_record("https://example.org/", links, base=7)).pages  # type: ignore[arg-type,list-item]
    assert page.images == [ImageLink(None, None, None)]
    assert page.base == "https://example.org/"


def test_a_lone_surrogate_costs_no_page() -> None:
    payload = (
        b'{"Envelope":{"WARC-Header-Metadata":{"WARC-Target-URI":"https://example.org/\\ud800"},"Payload-Metadata":'
        b'{"HTTP-Response-Metadata":{"HTML-Metadata":{"Head":{"Base":"/\\udc00"},"Links":'
        b'[{"path":"IMG@/src","url":"a.jpg","alt":"x\\ud800y"}]}}}}}'
    )
    [page] = found_in(record("https://example.org/\u00e9", payload)).pages
    assert page.images == [ImageLink("a.jpg", "x\ufffdy", None)]
    assert page.url == "https://example.org/\ufffd"


def test_offsets_point_to_the_records() -> None:
    first = page_record("https://example.org/1", [A])
    found = found_in(first, compact_page_record("https://example.org/2", [A]))
    assert [page.offset for page in found.pages] == [0, len(first)]


def test_a_file_of_many_batches_keeps_its_order() -> None:
    numbers = range(300)
    padding = {"path": "A@/href", "url": "/", "text": "x" * 40_000}
    write = [compact_page_record, page_record, compact_page_record]
    records = [write[n % 3](f"https://example.org/{n}", [padding, image("a.jpg", str(n))]) for n in numbers]
    found = found_in(*records)
    assert [page.images[0].alt for page in found.pages] == [str(n) for n in numbers]
    assert [page.offset for page in found.pages] == [sum(map(len, records[:n])) for n in numbers]


def test_a_cut_off_file_loses_its_last_record_only() -> None:
    whole = page_record("https://example.org/1", [A])
    second = page_record("https://example.org/2", [image(f"{n}.jpg", f"number {n}") for n in range(500)])
    found = found_in(whole, second[: len(second) // 2])
    assert [page.url for page in found.pages] == ["https://example.org/1"]
    assert found.damages == [Damage(len(whole), "cut off")]
    assert found.records == {"kept": 1, "damaged": 1}


def test_a_file_without_a_whole_record_is_an_error_that_names_it() -> None:
    data = page_record("https://example.org/1", [])[:100]
    with pytest.raises(InputError, match=r"cannot read .*test\.wat\.gz from byte 0: cut off; fetch it again"):
        list(read_batches(BytesIO(data), "test.wat.gz"))


def test_a_file_that_is_not_a_wat_is_named() -> None:
    with pytest.raises(InputError, match=r"cannot read .*test\.wat\.gz from byte"):
        list(read_batches(BytesIO(b"<html>not found</html>" * 100), "test.wat.gz"))


@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_corrupt_member_loses_only_itself(place: str) -> None:
    records = [
        page_record(f"https://example.org/{n}", [image(f"{m}.jpg", "x") for m in range(99)]) for n in "123"
    ]
    broken = bytearray(records[1])
    at = {"start": 0, "middle": len(broken) // 2, "end": len(broken) - 8}[place]
    broken[at : at + 8] = b"\xde\xad\xbe\xef" * 2
    found = found_in(records[0], bytes(broken), records[2])
    assert [page.offset for page in found.pages] == [0, len(records[0]) + len(broken)]
    assert [damage.offset for damage in found.damages] == [len(records[0])]


def test_garbage_between_members_is_one_damage() -> None:
    records = [page_record(f"https://example.org/{n}", [A]) for n in "12"]
    garbage = b"\x1f\x8b\x08 looks like a member, is none " * 5 + bytes(3_000_000)
    found = found_in(records[0], garbage, records[1])
    assert len(found.damages) == 1
    assert [page.offset for page in found.pages] == [0, len(records[0]) + len(garbage)]


def test_members_longer_than_a_chunk_and_with_gzip_magic_inside_are_whole() -> None:
    blob = random.Random(1).randbytes(3_000_000).hex()
    stored = record("https://example.org/", b'{"x": "' + blob.encode() + b'"}')
    magic = gzip.compress(b"WARC/1.0\r\nContent-Length: 9\r\n\r\n" + b"\x1f\x8b\x08" * 3, 0, mtime=0)
    assert magic.count(b"\x1f\x8b\x08") > 1
    found = found_in(stored, magic, page_record("https://example.org/2", []))
    assert found.records == {"kept": 1, "not_a_page": 2}
    assert found.damages == []


def test_a_member_that_inflates_without_end_is_damage() -> None:
    bomb = gzip.compress(b"WARC/1.0\r\n" + bytes(MAX_MEMBER_BYTES + 1_000_000), 9, mtime=0)
    found = found_in(bomb, page_record("https://example.org/2", [A]))
    assert len(found.damages) == len(found.pages) == 1


def test_a_member_that_lies_about_its_size_is_damage() -> None:
    member = bytearray(page_record("https://example.org/1", [A]))
    member[-4:] = (0xFFFFFFFF).to_bytes(4, "little")
    found = found_in(bytes(member), page_record("https://example.org/2", [A]))
    assert len(found.damages) == len(found.pages) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw,
        lambda raw: raw.replace(b"\r\n", b"\n"),
        lambda raw: raw.replace(b"WARC/1.0", b"WARC/1.1"),
        lambda raw: raw.replace(b"WARC/1.0", b"warc/1.0"),
        lambda raw: raw.replace(b"WARC-Type: metadata", b"warc-type:METADATA"),
        lambda raw: raw.replace(b"WARC-Type: metadata", b"WARC-Type:  metadata\t"),
        lambda raw: re.sub(rb"Content-Length: \d+", b"Content-Length: 999999", raw),
        lambda raw: re.sub(rb"Content-Length: \d+", b"Content-Length: 17", raw),
        lambda raw: re.sub(rb"Content-Length: \d+\r?\n", b"", raw),
        lambda raw: re.sub(rb"Content-Length: \d+", b"content-length:" + b"9" * 400, raw),
        lambda raw: raw.replace(b"WARC-Target-URI", b"X-Else", 1),
        lambda raw: re.sub(rb"(WARC-Target-URI: )(\S+)", rb"\1<\2>", raw, count=1),
    ],
)
@pytest.mark.parametrize("members", ["each its own", "all in one"])
@pytest.mark.parametrize("write", [page_record, compact_page_record])
def test_odd_headers_cost_no_page(
    change: Callable[[bytes], bytes], members: str, write: Callable[..., bytes]
) -> None:
    plain = [write(f"https://example.org/{n}", [image("a.jpg", f"text {n}")]) for n in range(3)]
    raw = [change(gzip.decompress(one)) for one in plain]
    joined = raw if members == "each its own" else [b"".join(raw)]
    found = found_in(*(gzip.compress(part, mtime=0) for part in joined))
    assert [page.url for page in found.pages] == [f"https://example.org/{n}" for n in range(3)]
    assert [page.images[0].alt for page in found.pages] == ["text 0", "text 1", "text 2"]
    assert found.records == {"kept": 3}


ODD_LINKS: list[dict[str, Any]] = [
    {"path": "IMG@/src", "url": "a.jpg", "alt": 'a } brace, a { and a \\" quote'},
    {"path": "IMG@/src", "url": "a.jpg", "alt": "x", "title": "t", "width": 3},
    {"path": "IMG@/src", "title": "t\n\\", "alt": "x", "url": "a.jpg", "width": "3"},
    {"path": "IMG@/src", "url": "a.jpg", "alt": 'the text "IMG@/src" itself'},
    {"path": "IMG@/src", "url": "a.jpg", "alt": '"Base":"x" and ns.o'},
    {"url": "a.jpg", "alt": "x", "path": "IMG@/src"},
    {"path": "IMG@/src", "url": None, "alt": ["x"]},
    {"path": "IMG@/src"},
    {"path": "IMG@/src", "url": "", "alt": ""},
    {"path": "IMG@/src", "url": "a.jpg", "alt": "\u00e9\u4e2d\U0001f697\u2028\u007f"},
    {"path": "IMG@/srcset", "url": "a.jpg"},
    {"path": "IMG@/longdesc", "url": "a.jpg"},
]


@pytest.mark.parametrize("link", ODD_LINKS, ids=str)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_cutting_out_and_reading_whole_agree(
    link: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    links = [
        {"path": "A@/href", "url": "/", "text": "t"},
        link,
        {"path": "IMG@/src", "url": "b.jpg", "alt": "b"},
    ]

    def payload(links: list[dict[str, Any]]) -> bytes:
        envelope = {
            "Envelope": {
                "WARC-Header-Metadata": {"WARC-Target-URI": "https://example.org/"},
                "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": {"Links": links}}},
            }
        }
        return json.dumps(envelope, separators=separators, ensure_ascii=ascii_only).encode()

    licence = {"path": "A@/href", "url": "https://CreativeCommons.ORG/licenses/by/4.0/"}
    [page] = found_in(record("https://example.org/", payload(links))).pages
    [whole] = found_in(record("https://example.org/", payload([*links, licence]))).pages
    assert page.images == whole.images
    assert whole.licence != page.licence == "?"
    assert len(page.images) == (2 if link["path"] == "IMG@/src" else 1)


@pytest.mark.parametrize("dot", [".", "%2E", "%2e", "\u3002", "\uff0e", "\uff61"])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("write", [str.lower, str.upper])
def test_a_licence_is_found_however_the_dot_of_its_host_is_written(
    dot: str, ascii_only: bool, write: Callable[[str], str]
) -> None:
    url = f"https://{write(f'creativecommons{dot}org')}/licenses/by/4.0/"
    links = [image("a.jpg", "A red car"), {"path": "A@/href", "url": url}]
    html = {"Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": {"Links": links}}}}
    text = json.dumps({"Envelope": html}, ensure_ascii=ascii_only, separators=(",", ":"))
    [page] = found_in(record("https://example.org/", text.encode())).pages
    assert page.licence == "https://creativecommons.org/licenses/by/4.0/"


@pytest.mark.parametrize(
    ("head", "base"),
    [
        ({"Base": "/y/"}, "https://example.org/y/"),
        ({"Metas": [], "Base": "https://other.example/"}, "https://other.example/"),
        ({"Base": '/\u00e9 \\"/'}, "https://example.org/%C3%A9%20/%22/"),
        ({"Base": ""}, "https://example.org/x/"),
        ({"Base": "data:text/html,x"}, "https://example.org/x/"),
        ({"Title": '"Base":"/no/"'}, "https://example.org/x/"),
    ],
)
def test_the_base_is_that_of_the_head(head: dict[str, Any], base: str) -> None:
    html = {"Head": head, "Links": [A]}
    for response in (
        {"Headers": {"Base": "/header/"}, "HTML-Metadata": html},
        {"HTML-Metadata": html, "Headers": {"Base": "/header/"}},
    ):
        envelope = {
            "WARC-Header-Metadata": {"WARC-Target-URI": "https://example.org/x/"},
            "Payload-Metadata": {"HTTP-Response-Metadata": response},
        }
        payload = json.dumps({"Envelope": envelope}, ensure_ascii=False, separators=(",", ":")).encode()
        [page] = found_in(record("https://example.org/x/", payload)).pages
        assert page.base == base


def test_a_page_url_without_end_is_dropped() -> None:
    long = "https://example.org/" + "a" * 10_000
    found = found_in(compact_page_record(long, [A]), compact_page_record("https://example.org/2", [A]))
    assert found.records == {"kept": 1, "page_url_too_long": 1}


def test_links_without_end_are_read_in_bounded_memory() -> None:
    links = [image("a", "b")] * 100_000
    [page] = found_in(compact_page_record("https://example.org/", links)).pages
    assert len(page.images) == 100_000

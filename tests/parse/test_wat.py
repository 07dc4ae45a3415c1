from io import BytesIO
from pathlib import Path

import pytest

from laion_etl.errors import InputError
from laion_etl.funnel import RecordReason
from laion_etl.parse.wat import ImageLink, Page, read_pages
from tests.parse.wat_files import image, json_record, page_record, record


def pages(*records: bytes) -> list[Page | RecordReason]:
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


def test_a_cut_off_file_names_itself_and_the_offset() -> None:
    whole = page_record("https://example.org/1", [])
    second = page_record("https://example.org/2", [image(f"{n}.jpg", f"number {n}") for n in range(500)])
    with pytest.raises(InputError, match=rf"test.wat.gz is broken after byte {len(whole)}"):
        pages(whole, second[: len(second) // 2])


def test_a_file_that_is_no_wat_is_named() -> None:
    with pytest.raises(InputError, match=r"test.wat.gz is broken"):
        list(read_pages(BytesIO(b"<html>not found</html>" * 100), "test.wat.gz"))


def test_a_corrupt_member_is_an_error_of_the_file(tmp_path: Path) -> None:
    whole = page_record("https://example.org/1", [])
    second = bytearray(page_record("https://example.org/2", [image(f"{n}.jpg", "x") for n in range(500)]))
    second[40:60] = bytes(20)
    with pytest.raises(InputError, match=r"broken after byte"):
        pages(whole, bytes(second))

"""Where records begin and end in a WAT file, whatever its writer did with members and line ends."""

import gzip
import json
import tracemalloc
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.parse import wat_reader
from laion_etl.parse.warc_records import split_records
from tests.parse.outcomes import Found, read, read_without_kernels
from tests.parse.wat_files import compact_page_record, image, json_record, page_record, record

URLS = [f"https://example.org/{n}" for n in range(3)]
PAGES = [gzip.decompress(compact_page_record(url, [image("a.jpg", "A red car")])) for url in URLS]
BARE = [page.removesuffix(b"\r\n\r\n") for page in PAGES]  # without what ends a record
SECOND = PAGES[1].index(b"\r\n\r\n") + 4  # where the payload of the second page begins


def members(*contents: bytes) -> bytes:
    return b"".join(gzip.compress(content, mtime=0) for content in contents)


def urls(found: Found) -> list[str]:
    return [page.url for page in found.pages]


@pytest.mark.parametrize(
    "contents",
    [
        pytest.param([part for p in PAGES for part in p.partition(b"\r\n\r\n")], id="head, line ends, body"),
        pytest.param([PAGES[0], PAGES[1][:SECOND], PAGES[1][SECOND:], PAGES[2]], id="one record is split"),
        pytest.param([PAGES[0] + PAGES[1][:SECOND], PAGES[1][SECOND:] + PAGES[2]], id="split within members"),
        pytest.param([PAGES[0] + b"WA", b"RC/" + PAGES[1][5:], b"", PAGES[2]], id="split within the magic"),
        pytest.param([BARE[0], b"\r\n\r\n" + BARE[1], b"\r\n\r\n" + PAGES[2]], id="line ends come first"),
        pytest.param([b"\r\n" + PAGES[0], PAGES[1], PAGES[2]], id="a line end at the start"),
        pytest.param([b"\xef\xbb\xbf" + PAGES[0], PAGES[1], PAGES[2]], id="a byte order mark"),
        pytest.param([page + b"\0" for page in PAGES], id="a NUL at the end"),
        pytest.param([b"\n".join(BARE)], id="one line feed between"),
        pytest.param([b"".join(BARE)], id="nothing between"),
        pytest.param([b"\n\n\n\n\n\n".join(BARE)], id="six line feeds between"),
        pytest.param([b"\0\0".join(PAGES)], id="NULs between"),
        pytest.param(
            [page.replace(b"WARC-Type: metadata", b"WARC-Type:\r\n metadata") for page in PAGES], id="folded"
        ),
        pytest.param(
            [page.replace(b"WARC-Type:", b"WARC-Type :") for page in PAGES], id="a space after a name"
        ),
        pytest.param([b"".join(page.replace(b"WARC/", b"warc/") for page in PAGES)], id="in lower case"),
        pytest.param([page.replace(b"WARC/", b"Warc/") for page in PAGES], id="in mixed case"),
    ],
)
def test_content_length_is_right_whatever_is_between_the_records(contents: list[bytes]) -> None:
    found = read(members(*contents))
    assert urls(found) == URLS
    assert found.records == {"kept": 3}


@pytest.mark.parametrize("too_much", [2, 4, 9])
def test_a_length_that_counts_the_line_ends_is_understood(too_much: int) -> None:
    def longer(page: bytes) -> bytes:
        head, _, payload = page.partition(b"\r\n\r\n")
        size = int(head.rpartition(b" ")[2])
        return head.replace(b": %d" % size, b": %d" % (size + too_much)) + b"\r\n\r\n" + payload

    one, each = members(b"".join(map(longer, PAGES))), members(*map(longer, PAGES))
    for data in (one, each):
        assert urls(read(data)) == URLS
        assert read(data).records == {"kept": 3}


@pytest.mark.parametrize("batch_bytes", [1_000, 8 << 20])
@settings(max_examples=25)
@given(size=st.integers(20, 3_000))
def test_a_stream_cut_into_equal_blocks_is_read_whole(batch_bytes: int, size: int) -> None:
    data = b"".join(PAGES)
    blocks = members(*(data[start : start + size] for start in range(0, len(data), size)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wat_reader, "_BATCH_BYTES", batch_bytes)
        found = read(blocks)
    assert urls(found) == URLS
    assert found.records == {"kept": 3}


def test_a_page_has_the_offset_of_the_member_in_which_its_record_begins() -> None:
    first, second = members(PAGES[0]), members(PAGES[1][:100])
    found = read(first + second + members(PAGES[1][100:]) + members(PAGES[2]))
    assert [page.offset for page in found.pages[:2]] == [0, len(first)]


def test_bytes_that_are_no_record_are_counted_with_their_place() -> None:
    first, second = members(PAGES[0]), members(b"an error page")
    found = read(members(b"junk") + first + members(PAGES[1]))
    assert found.records == {"kept": 2, "damaged": 1}
    found = read(first + second + members(PAGES[1]))
    assert urls(found) == URLS[:2]
    assert found.records == {"kept": 2, "damaged": 1}
    assert [(damage.offset, damage.cause) for damage in found.damages] == [(len(first), "not a WARC record")]


@pytest.mark.parametrize("junk", [b"garbage\r\n", b"\xff\xfe", b"<!-- proxy -->\r\n\r\n"])
def test_bytes_between_records_cost_neither_of_them(junk: bytes) -> None:
    """Where the payload is whole by its length, what follows is not part of it."""
    found = read(members(junk.join(PAGES)))
    assert urls(found) == URLS
    assert found.records == {"kept": 3, "damaged": 2}


@pytest.mark.parametrize(
    "in_json", ['"https://example.org/a>b"', '["https://c.example/"]', "null", '"https://d.example/"']
)
def test_the_url_of_a_page_is_the_same_with_and_without_a_licence(in_json: str) -> None:
    """A page with a licence is read as a whole, and then has two URLs to choose from."""
    licence = {"path": "A@/href", "url": "https://creativecommons.org/licenses/by/4.0/"}
    for more in ([], [licence]):
        links = json.dumps([image("a.jpg", "A red car"), *more], separators=(",", ":"))
        payload = (
            f'{{"Envelope":{{"WARC-Header-Metadata":{{"WARC-Target-URI":{in_json}}},"Payload-Metadata":'
            f'{{"HTTP-Response-Metadata":{{"HTML-Metadata":{{"Links":{links}}}}}}}}}}}'
        )
        found = read(record("https://example.org/a>b", payload.encode()))
        assert urls(found) == ["https://example.org/a>b"]


def test_a_page_made_from_an_arc_file_may_have_its_url_only_in_the_metadata_of_arc() -> None:
    arc = page_record("", [image("a.jpg", "A red car")])
    text = gzip.decompress(arc).replace(
        b'"WARC-Header-Metadata": {"WARC-Target-URI": ""}',
        b'"ARC-Header-Metadata":{"Target-URI":"http://a.b/"}',
    )
    assert urls(read(members(text))) == ["http://a.b/"]


_URL = "https://example.org/"


@pytest.mark.parametrize(
    ("metadata", "url"),
    [
        ({"WARC-Header-Metadata": {"WARC-Target-URI": ["https://other.example/", _URL]}}, _URL),
        ({"WARC-Header-Metadata": {"WARC-Target-URI": [_URL, None]}}, _URL),
        ({"ARC-Header-Metadata": {"Target-URI": [_URL]}}, _URL),
        (
            {"WARC-Header-Metadata": {"WARC-Target-URI": []}, "ARC-Header-Metadata": {"Target-URI": _URL}},
            _URL,
        ),
        ({"WARC-Header-Metadata": {"WARC-Target-URI": f" {_URL} "}}, _URL),
        ({"WARC-Header-Metadata": {"WARC-Target-URI": f"<{_URL}>"}}, _URL),
        ({"WARC-Header-Metadata": {"WARC-Target-URI": "https://example.org/ä"}}, "https://example.org/ä"),
        ({"WARC-Header-Metadata": {"WARC-Target-URI": {"uri": _URL}}}, None),
        ({"WARC-Header-Metadata": {"WARC-Target-URI": [[_URL]]}}, None),
        ({"WARC-Header-Metadata": {"WARC-Target-URI": None}}, None),
        ({"WARC-Header-Metadata": [_URL]}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("head", ["", " "])
def test_where_the_head_has_no_url_it_is_the_last_one_that_the_json_states(
    metadata: dict[str, object], url: str | None, head: str
) -> None:
    html = {"Links": [image("a.jpg", "A red car")]}
    envelope = {"Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}}, **metadata}
    found = read(record(head, json.dumps({"Envelope": envelope}, separators=(",", ":")).encode()))
    assert urls(found) == [url] * (url is not None)
    assert found.records == ({"kept": 1} if url else {"kept": 0, "not_a_page": 1})


_CAR = '{"path":"IMG@/src","url":"a.jpg","alt":"A red car"}'


@pytest.mark.parametrize(
    ("html", "number"),
    [
        (f'"Links":[{_CAR},{_CAR}]', 2),
        (f'"Links":[{_CAR.replace("alt", "al" + chr(92) + "u0074")},{_CAR}]', 2),
        (f'"Links":[{_CAR.replace("url", "ur" + chr(92) + "u006c")},{_CAR}]', 2),
        (f'"Links":[{_CAR.replace("IMG@/", "IMG@" + chr(92) + "/")},{_CAR}]', 2),
        ('"Links":[{"path":"IMG@/src","url":"a.jpg","alt":"A red car","path":"A@/href"}]', 0),
        ('"Links":[{"path":"IMG@/src","url":"a.jpg","alt":"A red car","tixxe":"not the title"}]', 1),
        ('"Links":[{"path":"IMG@/src","url":["a.jpg","b.jpg"],"alt":"A red car"}]', 1),
        ('"Links":[{"path":"IMG@/src","url":"a.jpg","alt":null},{"path":["IMG@/src"],"url":"b.jpg"}]', 1),
        (f'"Links":[{{"of":{_CAR}}},{_CAR}]', 1),
        (f'"Links":[[{_CAR}],{_CAR}]', 1),
        (f'"Links":{{"0":{_CAR}}}', 0),
        (f'"Others":[{_CAR}],"Links":[{_CAR}]', 1),
        (f'"Head":{{"Base": "https://b.example/"}},"Links":[{_CAR}]', 1),
        (f'"Head":{{"Base":["https://b.example/"]}},"Links":[{_CAR}]', 1),
        (f'"Head":{{"Base":null,"Title":"Base"}},"Links":[{_CAR}]', 1),
        (f'"Head":{{"Title":"Base","Base":"/b/"}},"Links":[{_CAR}]', 1),
    ],
)
def test_kernels_leave_json_of_another_form_to_python(html: str, number: int) -> None:
    payload = (
        f'{{"Envelope":{{"Payload-Metadata":{{"HTTP-Response-Metadata":{{"HTML-Metadata":{{{html}}}}}}}}}}}'
    )
    data = record(_URL, payload.encode())
    found = read(data)
    assert sum(len(page.images) for page in found.pages) == number
    assert found == read_without_kernels(data)


def test_a_record_cut_off_at_the_end_of_the_file_is_counted() -> None:
    found = read(members(PAGES[0], PAGES[1][: SECOND + 20]))
    assert urls(found) == URLS[:1]
    assert found.records == {"kept": 1, "broken_json": 1}


def test_a_string_with_an_escape_that_json_does_not_have_costs_its_page() -> None:
    broken = PAGES[1].replace(b"A red car", b"A \\xe car")
    found = read(members(PAGES[0], broken, PAGES[2]))
    assert urls(found) == [URLS[0], URLS[2]]
    assert found.records == {"kept": 2, "broken_json": 1}


def test_a_page_whose_url_only_its_head_has_is_read() -> None:
    page = gzip.decompress(page_record(URLS[0], [image("a.jpg", "A red car")]))
    assert urls(read(members(page.replace(b'"WARC-Target-URI"', b'"WARC-Target-URL"')))) == URLS[:1]
    assert read(json_record("", {"HTTP-Response-Metadata": {"HTML-Metadata": {}}})).records == {
        "not_a_page": 1,
        "kept": 0,
    }


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_member_that_is_cut_by_the_end_of_a_chunk_is_found_after_damage(cut: int) -> None:
    damage = b"x" * ((1 << 20) - cut)
    found = read(damage + members(*PAGES))
    assert urls(found) == URLS
    assert found.records == {"kept": 3, "damaged": 1}


@pytest.mark.parametrize("padding", [b"\r\n\r\n", b"\xef\xbb\xbf", b"\0"])
def test_members_that_begin_with_padding_are_found_after_damage(padding: bytes) -> None:
    whole = members(padding + PAGES[0])
    found = read(whole[:-9] + members(*(padding + page for page in PAGES)))
    assert urls(found) == URLS
    assert found.records == {"kept": 3, "damaged": 1}


def test_padding_costs_no_memory() -> None:
    data = b"\0" * 200_000 + PAGES[0]
    tracemalloc.start()
    try:
        (record,) = split_records(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert record.start == 200_000


@pytest.mark.parametrize("batch_bytes", [4_000, 8 << 20])
@settings(max_examples=25)
@given(size=st.integers(60, 3_000), place=st.floats(0, 0.99))
def test_a_damaged_block_of_a_stream_of_equal_blocks_costs_only_the_records_it_touches(
    batch_bytes: int, size: int, place: float
) -> None:
    urls_of_all = [f"https://example.org/{number}" for number in range(40)]
    pages = [gzip.decompress(page_record(url, [image("a.jpg", "A red car")])) for url in urls_of_all]
    data = b"".join(pages)
    blocks = [gzip.compress(data[start : start + size], mtime=0) for start in range(0, len(data), size)]
    damaged = int(place * len(blocks))
    blocks[damaged] = blocks[damaged][:-8] + bytes(8)
    ends = list(accumulate(map(len, pages)))
    kept = [
        url
        for url, end, page in zip(urls_of_all, ends, pages, strict=True)
        # The line breaks that end a record are not part of it: it is whole without them.
        if end - len(b"\r\n\r\n") <= damaged * size or end - len(page) >= (damaged + 1) * size
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wat_reader, "_BATCH_BYTES", batch_bytes)
        found = read(b"".join(blocks))
    assert urls(found) == kept
    assert found.damages[0].offset == sum(map(len, blocks[:damaged]))

"""Whatever a file holds, the reader neither raises anything but InputError nor forgets a whole record."""

import gzip
import json
from io import BytesIO

from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.core.byte_arena import ByteArena
from laion_etl.core.caption_source import CaptionSource
from laion_etl.parse.gzip_members import read_members
from laion_etl.parse.page import ImageLink, Page
from laion_etl.parse.wat_record import records_of
from tests.parse.outcomes import FoundPage, read
from tests.parse.wat_files import compact_page_record, image, page_record, record

PAGES = [
    compact_page_record(f"https://example.org/{n}", [image(f"{n}.jpg", f"picture {n}")]) for n in range(4)
]


@given(st.binary(max_size=3000))
def test_any_bytes_never_raise(data: bytes) -> None:
    found = read(data)
    assert found.records.get("kept", 0) >= len(found.pages)


@given(st.binary(max_size=500))
def test_any_payload_counts_once(payload: bytes) -> None:
    found = read(record("https://example.org/", payload) + PAGES[0])
    assert sum(found.records.values()) == 2


# Pieces that the reader looks for, among anything else.
PIECES = st.one_of(
    st.sampled_from(
        [
            b'"HTML-Metadata":{',
            b'{"path":"IMG@/src"',
            b',"url":"a.jpg"',
            b',"alt":"a text',
            b'\\"',
            b'"',
            b"}",
            b'"Base":"/x/"',
            b"creativecommons.org",
            b'"Headers":{',
            b"WARC/1.0\r\n",
            b"WARC-Type: metadata\r\n",
            b"Content-Length: 5\r\n",
            b"\r\n\r\n",
        ]
    ),
    st.binary(max_size=20),
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=20).map(b"".join))
def test_any_member_content_never_raises_and_costs_no_neighbour(content: bytes) -> None:
    found = read(PAGES[1] + gzip.compress(b"WARC/1.0\r\n" + content, mtime=0) + PAGES[0])
    assert [found.pages[0].url, found.pages[-1].url] == ["https://example.org/1", "https://example.org/0"]


@settings(max_examples=300)
@given(st.integers(0, len(b"".join(PAGES)) - 1), st.binary(min_size=1, max_size=40))
def test_damage_somewhere_loses_only_the_records_it_touches(place: int, noise: bytes) -> None:
    data = bytearray(b"".join(PAGES))
    data[place : place + len(noise)] = noise
    starts = [sum(map(len, PAGES[:n])) for n in range(len(PAGES))]
    untouched = {
        f"https://example.org/{n}"
        for n, start in enumerate(starts)
        if place >= start + len(PAGES[n]) or place + len(noise) <= start
    }
    if len(data) != sum(map(len, PAGES)):
        untouched.discard("https://example.org/3")  # the noise made the file longer, at its end
    assert untouched <= {page.url for page in read(bytes(data)).pages}


@given(st.lists(st.binary(max_size=2000), max_size=8), st.integers(1, 5000))
def test_members_round_trip_with_their_offsets(contents: list[bytes], max_bytes: int) -> None:
    members = [gzip.compress(content, mtime=0) for content in contents]
    arena, found, offsets = ByteArena(0), [], []
    for group in read_members(BytesIO(b"".join(members)), arena, max_bytes):
        assert not group.damages
        ends = group.ends.tolist()
        found += [arena.bytes(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        offsets += group.offsets.tolist()
        assert arena.size <= max_bytes or len(ends) == 1
    assert found == contents
    assert offsets == [sum(map(len, members[:n])) for n in range(len(members))]


TEXTS = st.one_of(
    st.none(),
    st.text(max_size=30),
    st.sampled_from(['a "quoted" text', "a } { [ ] \\", "\u2028\x00\x1f", ""]),
)
IMAGES = st.lists(st.builds(ImageLink, url=TEXTS, alt=TEXTS, title=TEXTS), min_size=1, max_size=5)


@settings(max_examples=300)
@given(IMAGES, st.one_of(st.none(), st.sampled_from(["/b/", "https://other.example/"])), st.booleans())
def test_links_round_trip_however_they_are_written(
    images: list[ImageLink], base: str | None, compact: bool
) -> None:
    write = compact_page_record if compact else page_record
    data = write("https://example.org/x/", [image(i.url, i.alt, i.title) for i in images], base)
    [page] = read(data).pages
    assert page.images == images
    assert page == _read_whole(data)


def _read_whole(data: bytes, wanted: frozenset[CaptionSource] = frozenset()) -> FoundPage:
    """The same page by its whole JSON."""
    [page] = records_of(gzip.decompress(data), wanted)
    assert isinstance(page, Page)
    return FoundPage(page.url, page.base, page.licence, list(page.images), 0)


ADDRESSES = st.builds(
    "".join,
    st.lists(
        st.sampled_from(
            [
                "/a",
                ".jpg",
                ".JPEG",
                ".png",
                ".webp",
                ".html",
                "?x",
                "#y",
                " ",
                ":",
                "File:",
                "\\",
                '"',
                "ä",
                "/",
                "a",
            ]
        ),
        max_size=5,
    ),
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"path": st.sampled_from(["A@/href", "A@/href", "IMG@/src", "LINK@/href"])},
        optional={"url": ADDRESSES, "title": TEXTS, "alt": TEXTS, "text": TEXTS},
    ),
    max_size=6,
)
METAS = st.lists(
    st.fixed_dictionaries(
        {"content": TEXTS},
        optional={"property": st.sampled_from(["og:image", "og:image:url", "og:image:alt", "og:title"])},
    ),
    max_size=5,
)


@settings(max_examples=300)
@given(ENTRIES, METAS, st.booleans())
def test_links_and_previews_are_those_of_the_whole_json(
    links: list[dict[str, str | None]], metas: list[dict[str, str | None]], ascii_only: bool
) -> None:
    """Whatever deviates from the extractor's form, a null for example, is left to the whole JSON."""
    html = {"Head": {"Metas": metas}, "Links": links}
    envelope = {
        "WARC-Header-Metadata": {"WARC-Target-URI": "https://example.org/"},
        "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}},
    }
    text = json.dumps({"Envelope": envelope}, separators=(",", ":"), ensure_ascii=ascii_only)
    data = record("https://example.org/", text.encode())
    found = read(data, ["alt", "link", "og"])
    assert found.records == {"kept": 1}
    expected = _read_whole(data, frozenset({CaptionSource.LINK, CaptionSource.OG}))
    assert found.pages == ([expected] if expected.images else [])


NAMES = st.sampled_from(["path", "url", "alt", "title", "Base", "Links", "x"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
)


@settings(max_examples=200)
@given(JSON)
def test_any_json_as_links_counts_once_and_is_read_as_its_whole_json(value: object) -> None:
    html = {"Head": {}, "Links": [{"path": "IMG@/src", "url": "a", "x": value}, value]}
    envelope = {"WARC-Header-Metadata": {"WARC-Target-URI": "https://example.org/"},
                "Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": html}}}  # fmt: skip
    data = record("https://example.org/", json.dumps({"Envelope": envelope}, separators=(",", ":")).encode())
    found = read(data)
    assert found.records == {"kept": 1}
    assert found.pages == [_read_whole(data)]

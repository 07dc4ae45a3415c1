"""Whatever a file holds, the reader neither raises anything but InputError nor forgets a whole record."""

import gzip
from io import BytesIO

from hypothesis import given, settings
from hypothesis import strategies as st

from laion_etl.errors import InputError
from laion_etl.parse.members import Damage, Member, read_members
from laion_etl.parse.wat import Page, read_pages
from tests.parse.wat_files import image, page_record, record

PAGES = [page_record(f"https://example.org/{n}", [image(f"{n}.jpg", f"picture {n}")]) for n in range(4)]


def read(data: bytes) -> list[object]:
    try:
        return list(read_pages(BytesIO(data), "any"))
    except InputError:
        return []


@given(st.binary(max_size=3000))
def test_any_bytes_never_raise(data: bytes) -> None:
    read(data)


@given(st.binary(max_size=500))
def test_any_payload_counts_once(payload: bytes) -> None:
    assert len(read(record("https://example.org/", payload) + PAGES[0])) == 2


@given(st.binary(max_size=800))
def test_any_member_content_never_raises(content: bytes) -> None:
    found = read(gzip.compress(b"WARC/1.0\r\n" + content, mtime=0) + PAGES[0])
    assert isinstance(found[-1], Page)


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
    assert untouched <= {page.url for page in read(bytes(data)) if isinstance(page, Page)}


@given(st.lists(st.binary(max_size=2000), max_size=8))
def test_members_round_trip_with_their_offsets(contents: list[bytes]) -> None:
    members = [gzip.compress(content, mtime=0) for content in contents]
    found = list(read_members(BytesIO(b"".join(members))))
    assert not any(isinstance(one, Damage) for one in found)
    assert [one.data for one in found if isinstance(one, Member)] == contents
    assert [one.offset for one in found] == [sum(map(len, members[:n])) for n in range(len(members))]

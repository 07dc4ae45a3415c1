"""Records of a divided removal: the lines of its list, and the pairs of rewritten files."""

import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from laion_etl.blocklists.removal_requests import Found
from laion_etl.core.errors import InputError
from laion_etl.io.storage import LocalStore
from laion_etl.removal.found_pairs import found_pairs
from laion_etl.removal.lists import read_lines
from laion_etl.removal.requested_lines import (
    RequestedLine,
    lines_name,
    read_line_rules,
    read_lines_of,
    write_lines,
)
from laion_etl.removal.work import end_work

MD5 = "5d41402abc4b2a76b9719d911017c592"
LISTS = {
    "CR and LF at the ends, and a byte order mark": b"\xef\xbb\xbfexample.com\r\n\r\nexample.org/a.jpg\r\n",
    "a line three times": f"{MD5}\nexample.com\n{MD5}\nexample.com # again\n{MD5.upper()}".encode(),
    "samples, one of which is not known": b"key:17\n# a comment\nkey:18\n",
    "all kinds": f"domain:a.example\nurl:b.example/c/\npair:{MD5}\nsha256:{MD5 * 2}\npdq:{MD5 * 2}".encode(),
}
FOUND = "removing/abc/found/C/part-00001.json"
RANGE = "removing/abc/range-0001-of-0001.json"


class KilledAfter(LocalStore):
    """A folder in which only so many files can be deleted."""

    left = 0

    def delete(self, name: str) -> None:
        if self.exists(name):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
        super().delete(name)


@pytest.mark.parametrize("case", LISTS)
def test_lines_are_read_as_they_were_recorded_but_for_their_texts(case: str, tmp_path: Path) -> None:
    store, listed = LocalStore(tmp_path), read_lines(LISTS[case], "list")
    lines = listed.requested({17: MD5})
    write_lines("abc", lines, store)
    known = read_lines_of("abc", store)
    assert [(one.number, one.text) for one in known] == [(one.number, "") for one in lines]
    assert [one.request and one.request.id for one in known] == [
        one.request and one.request.id for one in lines
    ]
    rules = read_line_rules("abc", store)
    assert [rules.id_of(line) for line in range(len(rules))] == [
        *dict.fromkeys(one.request.id for one in lines if one.request)
    ]
    write_lines("abc", known, store)
    assert read_lines_of("abc", store) == known, "prepared again without the list"
    write_lines("abc", (), store)
    assert read_lines_of("abc", store) == ()
    assert not read_line_rules("abc", store)


def test_recorded_lines_take_little_memory(tmp_path: Path) -> None:
    """A million of them were 1.3 GB of requests, for their numbers and ids."""
    store, count = LocalStore(tmp_path), 1_000
    listed = read_lines(
        "".join(f"https://a.example/{number}.jpg\n" for number in range(count)).encode(), "list"
    )
    write_lines("abc", listed.requested({}), store)
    tracemalloc.start()
    try:
        known = read_lines_of("abc", store)
        taken = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert len(known) == count
    assert taken < 300


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"{}", b'{"format": 1, "url_rule": 1, "lines": [{"line": 1}]}',
        b'{"format": 1, "url_rule": 0, "lines": []}',
        b'{"format": 1, "url_rule": 1, "lines": [{"line": 1, "rules": "md5"}]}',
        b'{"format": 1, "url_rule": 1, "lines": [{"line": 1, "rules": {"md5": ["x"]}}]}',
        b'{"format": 1, "url_rule": 1, "lines": [{"line": 1, "rules": {"md5": [3]}}]}',
    ],
)  # fmt: skip
def test_damaged_lines_are_named(data: bytes, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write(lines_name("abc"), data)
    with pytest.raises(InputError, match=r"lines\.json: it does not have the lines of a removal .* again"):
        read_lines_of("abc", store)
    with pytest.raises(InputError, match=r"lines\.json: it does not have the lines of a removal .* again"):
        read_line_rules("abc", store)
    write_lines("abc", [RequestedLine(1, "key:1", None)], store)
    assert read_lines_of("abc", store) == (RequestedLine(1, "", None),), "prepared again"


def test_pairs_that_an_earlier_version_recorded_have_no_lines(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write(FOUND, b'{"format": 1, "pairs": {"ab": "md5"}}')
    assert [*found_pairs("abc", store)] == [Found("C", {"ab": "md5"}, {})]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", b'{"format": 1, "pairs": 3}', b'{"format": 1, "pairs": {}, "lines": [1]}'],
)
def test_damaged_pairs_are_named(data: bytes, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write(FOUND, data)
    with pytest.raises(
        InputError, match=r"part-00001\.json: it does not have the pairs of a file .* restore it"
    ):
        [*found_pairs("abc", store)]


def test_a_record_that_a_finished_range_names_must_be_there(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write(RANGE, b'{"format": 1, "work": "", "failures": [], "found": ["%s"]}' % FOUND.encode())
    with pytest.raises(
        InputError, match=r"part-00001\.json: it does not exist; restore it: without it its pairs"
    ):
        [*found_pairs("abc", store)]
    for earlier in (b'{"format": 1, "work": "", "failures": []}', b"{", b"[]"):
        store.write(RANGE, earlier)
        assert [*found_pairs("abc", store)] == []


@pytest.mark.parametrize("deleted", range(4))
def test_an_end_that_is_killed_while_it_deletes_records_can_be_repeated(tmp_path: Path, deleted: int) -> None:
    store = KilledAfter(tmp_path)
    store.write("removing/abc/files.parquet", b"")
    store.write(RANGE, b'{"found": ["%s"]}' % FOUND.encode())
    store.write(FOUND, b'{"format": 1, "pairs": {"ab": "md5"}}')
    store.write(lines_name("abc"), b"{}")
    store.left = deleted
    with suppress(KeyboardInterrupt):
        end_work("abc", store)
    assert [*found_pairs("abc", store)] == ([Found("C", {"ab": "md5"}, {})] if deleted < 3 else [])
    store.left = 4
    end_work("abc", store)
    assert store.list("removing") == ["removing/abc/finished.json", lines_name("abc")]

"""Stores on servers under someone else's control, or behind a proxy that answers in their place."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from laion_etl.core.errors import InputError, StorageError
from laion_etl.core.stage_stats import Output
from laion_etl.io.remote_files import read_input
from laion_etl.io.storage import Store, s3
from tests.fake_clock import FakeClock
from tests.odd_s3 import Endless, OneAfterAnother, answer, listing, odd_s3

FILE = "<Key>p/a</Key><ETag>x</ETag><Size>1</Size>"
MORE = "<IsTruncated>true</IsTruncated>"
BOMB = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaaaaaaaaaaaa'>{}]>".format(
    "".join(f"<!ENTITY a{n} '{f'&a{n - 1 if n else str()};' * 30}'>" for n in range(6))
)
OPERATIONS: dict[str, Callable[[Store], Any]] = {
    "read": lambda store: store.read("a"),
    "open": lambda store: store.open("a").read(),
    "read_range": lambda store: store.read_range("a", 10, 5),
    "read_with_age": lambda store: store.read_with_age("a"),
    "read_with_etag": lambda store: store.read_with_etag("a"),
    "exists": lambda store: store.exists("a"),
    "list": lambda store: store.list(""),
    "folders": lambda store: store.folders(""),
    "files": lambda store: list(store.files("")),
    "write": lambda store: store.write("a", b"x"),
    "write large": lambda store: store.write("a", bytes(9 << 20)),
    "write guarded": lambda store: store.write("a", b"x", lambda: None),
    "swap": lambda store: store.swap("a", b"x", '"a"'),
    "copy": lambda store: store.copy(Output("a", 1, "0" * 64), "b"),
}
READS = ("read", "open", "read_range", "read_with_age", "read_with_etag")
LISTS = ("list", "folders", "files")
ODD = {
    "a login page": (
        answer(b"<html><body>log in<br></body>", ETag="", Last_Modified=""),
        [*READS, *LISTS, "write guarded", "copy"],
    ),
    "a page of HTML": (answer(b"<!doctype html><html></html>"), [*LISTS, "write"]),
    "an error of a proxy": (answer(b"<!doctype html><html></html>", 403), ["read", "list", "write"]),
    "nothing": (answer(ETag="", Last_Modified=""), [*OPERATIONS]),
    "an endless redirect": (
        answer(status=307, Location="http://169.254.169.254/"),
        ["read", "exists", "list", "write"],
    ),
    "a length that is none": (answer(Content_Length="many"), [*READS, "exists"]),
    "a length below zero": (answer(b"abc", Content_Length="-5"), [*READS]),
    "a length past all memory": (answer(b"abc", Content_Length="9" * 14), ["read", "read_with_age"]),
    "a date that is none": (answer(b"x", Last_Modified="yesterday"), [*READS]),
    "a file for a part of it": (answer(bytes(1_000)), ["read_range"]),
    "another part": (answer(b"abcde", 206, Content_Range="bytes 50-54/99"), ["read_range"]),
    "a longer part": (answer(bytes(99), 206, Content_Range="bytes 10-99/999"), ["read_range"]),
    "a long error": (
        answer(b"<Error><Code>Bad\nCode</Code><Message>" + b"x" * 9_999 + b"\n\x9b1A</Message></Error>", 400),
        ["read", "list", "write"],
    ),
    "a bomb": (listing(FILE.replace("p/a", "&a5;"), head=BOMB), [*LISTS]),
    "a local file": (
        listing(FILE.replace("a<", "&x;<"), head="<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>"),
        [*LISTS],
    ),
    "other names": (listing(FILE, FILE.replace("p/a", "q/../../etc/passwd")), [*LISTS]),
    "no name": (listing("<ETag>x</ETag><Size>1</Size>"), [*LISTS]),
    "no ETag": (listing("<Key>p/a</Key><Size>1</Size>"), [*LISTS]),
    "a size that is none": (listing(FILE.replace("1", "many")), [*LISTS]),
    "no next page": (listing(FILE, more=MORE), [*LISTS]),
    "the same page": (
        listing(FILE, more=f"{MORE}<NextContinuationToken>t</NextContinuationToken>"),
        [*LISTS],
    ),
    "an endless answer": (Endless(), ["read", "read_range", "read_with_etag", "open", "list"]),
}


@pytest.mark.parametrize(("parts", "operations"), ODD.values(), ids=ODD.keys())
def test_an_odd_answer_is_an_error_of_one_line(
    parts: Iterable[bytes], operations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "usable_memory_bytes", lambda: 32 << 20)
    with odd_s3(parts) as store:
        for name in operations:
            with pytest.raises(StorageError) as raised:
                OPERATIONS[name](store)
            assert str(raised.value).startswith("cannot "), name
            assert str(raised.value).isprintable(), name
            assert len(str(raised.value)) < 800, name


@pytest.mark.parametrize(
    "parts",
    [
        answer(b"<html></html>", ETag="", Last_Modified=""),
        answer(status=307, Location="http://169.254.169.254/"),
        answer(b"abc", Content_Length="many"),
        answer(b"<!doctype html><html></html>", 403),
        answer(b"<Error><Code>Bad\nCode</Code></Error>", 400),
        Endless(400),
        Endless(),
    ],
    ids=[
        "a page",
        "a redirect",
        "a length that is none",
        "a proxy",
        "a code of two lines",
        "an error",
        "a file",
    ],
)
def test_an_odd_answer_in_the_place_of_an_input_is_an_error_of_one_line(parts: Iterable[bytes]) -> None:
    with odd_s3(parts):
        with pytest.raises(InputError) as raised:
            read_input("s3://bucket/a", 1_000, FakeClock().policy(max_s=5))
        assert str(raised.value).startswith("cannot read s3://bucket/a: ")
        assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("second", "is_whole"),
    [
        (answer(b"def", 206, Content_Range="bytes 3-5/6"), True),
        (answer(b"abcdef"), False),
        (answer(b"abc", 206, Content_Range="bytes 0-2/6"), False),
    ],
)
def test_an_input_that_breaks_off_goes_on_at_its_byte_or_not_at_all(
    second: Iterable[bytes], is_whole: bool
) -> None:
    first = answer(b"abc", Content_Length="6")
    with odd_s3(OneAfterAnother(first, second)):
        if is_whole:
            assert read_input("s3://bucket/a", 100) == b"abcdef"
        else:
            with pytest.raises(InputError, match=r"beyond byte 3: .*cannot resume"):
                read_input("s3://bucket/a", 100)

"""A file that is not a WAT file fails its task by name: an empty result must not pass for a finished one."""

import gzip
from io import BytesIO
from pathlib import Path

import pytest

from laion_etl.core.errors import DamagedInputError
from laion_etl.io.storage import Store
from laion_etl.parse.gzip_members import MAX_MEMBER_BYTES
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.wat_reader import read_batches
from laion_etl.settings import ParseSettings, Settings
from tests.parse.wat_files import image, json_record, page_record

WAT = page_record("https://example.org/", [image("a.jpg", "A red car on a field")])


def warc_record(kind: str, payload: bytes) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: {len(payload)}\r\n\r\n"
    return gzip.compress(head.encode() + payload + b"\r\n\r\n", mtime=0)


WARC = [
    warc_record("warcinfo", b"software: x\r\n"),
    warc_record("response", b"HTTP/1.1 200 OK\r\n\r\n{}"),
    warc_record("metadata", b"fetchTimeMs: 12\r\n"),
]


def zipped(data: bytes) -> bytes:
    """Always the same bytes, because they name the test."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "from byte 0: it is empty"),
        (zipped(b""), "from byte 0: it is empty"),
        (zipped(b"") * 3, "from byte 0: it is empty"),
        (zipped(b"\r\n\r\n"), "from byte 0: it is empty"),
        (zipped(WAT), "from byte 0: it was compressed twice"),
        (zipped(zipped(WAT)), "from byte 0: it was compressed twice"),
        (b"<!doctype html><title>503</title>", "from byte 0: not gzip"),
        (zipped(b"<!doctype html><title>503</title>"), r"it begins with b'<!doctype html>"),
        (zipped(gzip.decompress(WAT)[10:]), "from byte 0: not a WARC record"),
        (WAT[:-30], "from byte 0: cut off"),
        (WAT[:5], "from byte 0: cut off"),
        (WAT[:1], "from byte 0: not gzip"),
        (gzip.decompress(WAT), "from byte 0: not gzip"),
        (b"".join(WARC), "not one of its 3 records is metadata in JSON.* WARC or WET"),
        (warc_record("conversion", b"A text"), "not one of its 1 record"),
        (WARC[0], "not one of its 1 record"),
        (zipped(b'{"some": "json"}'), "not a WARC record"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, cause: str) -> None:
    with pytest.raises(
        DamagedInputError, match=f"cannot read .*x\\.wat\\.gz .*{cause}.*; .*, or leave it out"
    ):
        list(read_batches(BytesIO(data), "x.wat.gz"))


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"", "; fetch it again, or"),
        (WAT[:-30], "; fetch it again, or"),
        (zipped(WAT), "; unpack it once, or fetch it again, or"),
        (b"".join(WARC), "; read WARC files with LAION_ETL_PARSE_SOURCE=warc, or"),
        (
            zipped(gzip.decompress(WAT) + bytes(MAX_MEMBER_BYTES)),
            "more than 32 MiB.*; compress each record as a member",
        ),
    ],
)
def test_the_advice_can_help(data: bytes, advice: str) -> None:
    with pytest.raises(DamagedInputError, match=advice):
        list(read_batches(BytesIO(data), "x.wat.gz"))


def test_a_partition_with_such_a_file_is_not_done(tmp_path: Path, store: Store) -> None:
    good, empty = tmp_path / "good.wat.gz", tmp_path / "empty.wat.gz"
    good.write_bytes(WAT)
    empty.touch()
    one_job = Settings(parse=ParseSettings(jobs=1))
    with pytest.raises(DamagedInputError, match=r"empty\.wat\.gz"):
        parse_partition("C", 0, [(0, str(good)), (1, str(empty))], one_job, store)
    assert store.list("pairs/") == []


@pytest.mark.parametrize(
    "data",
    [
        WARC[0] + WAT,
        WARC[0] + json_record("https://example.org/", {"HTTP-Response-Metadata": {}}),
        page_record("https://example.org/", []),
    ],
)
def test_a_wat_file_needs_no_page_with_images(data: bytes) -> None:
    list(read_batches(BytesIO(data), "x.wat.gz"))

"""WARC files as a source: the same pages, links and counts however a file is written; what costs what."""

import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

import laion_etl as le
from laion_etl.core.errors import InputError, OutageError
from laion_etl.crawl import partitions
from laion_etl.io.storage import Store
from laion_etl.parse import html_parser, warc_source
from laion_etl.parse.html_parser import HtmlParser
from laion_etl.parse.http_response import Html
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.warc_source import WarcSource
from laion_etl.settings import CoreSettings, ParseSettings, Settings
from tests.parse.warc_files import gzipped, response, warc_record
from tests.parse.wat_files import page_record

pytest.importorskip("selectolax", reason="the extra warc is not installed")
URL = "https://www.example.org/x/"
SETTINGS = Settings(parse=ParseSettings(source="warc", language_detector="none", jobs=1))
RED = response(URL, '<html lang=en><img src="red.jpg" alt="A red car"><img src="b.jpg">')
BLUE = response(f"{URL}2", '<base href="/y/"><img data-src="blue.jpg" alt="A blue car">')


def read(
    path: Path, data: bytes, settings: Settings = SETTINGS
) -> tuple[list[dict[str, object]], le.PairReader]:
    path.write_bytes(data)
    reader = le.read_pairs(path, WarcSource(settings.parse), settings)
    return [row for table in reader for row in table.to_pylist()], reader


def test_pages_become_pairs_and_everything_is_counted(tmp_path: Path) -> None:
    others = [
        warc_record("warcinfo", "", b"x"),
        warc_record("request", URL, b"GET / HTTP/1.1\r\n\r\n"),
        response(URL, "gone", status="404 Not Found"),
        response(URL, b"\x1b", {"Content-Type": "text/html", "Content-Encoding": "br"}),
        response(f"{URL}{'x' * 9000}", "<p>"),
    ]
    first = gzipped(RED)
    rows, reader = read(tmp_path / "a.warc.gz", first + gzipped(BLUE, *others))
    assert [(row["url"], row["caption"], row["page_lang"], row["record_offset"]) for row in rows] == [
        ("https://www.example.org/x/red.jpg", "A red car", "en", 0),
        ("https://www.example.org/y/blue.jpg", "A blue car", "", len(first)),
    ]
    assert (reader.funnel.input, reader.funnel.dropped) == (3, {"no_alt": 1})
    assert (reader.records.kept, reader.records.dropped) == (
        2,
        {"not_a_page": 3, "page_unreadable": 1, "page_url_too_long": 1},
    )


@pytest.mark.parametrize("piece", [1, 7, 200, 1 << 20])
def test_a_file_without_gzip_gives_the_same_whatever_pieces_it_is_read_in(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [RED, BLUE, warc_record("request", URL, b"GET / HTTP/1.1\r\n\r\n")]
    expected, _ = read(tmp_path / "a.warc.gz", gzipped(*records))
    monkeypatch.setattr(warc_source, "_BATCH_BYTES", piece)
    found, reader = read(tmp_path / "a.warc", b"".join(records))
    offsets = {"record_offset": None}
    assert [row | offsets for row in found] == [row | offsets for row in expected]
    assert [row["record_offset"] for row in found] == [0, len(RED)]
    assert reader.records.input == 3


def test_damage_costs_the_record_that_it_hits(tmp_path: Path) -> None:
    broken = bytearray(gzipped(RED))
    broken[40:48] = b"\xde\xad\xbe\xef" * 2
    rows, reader = read(tmp_path / "a.warc.gz", bytes(broken) + gzipped(BLUE)[:-3] + gzipped(BLUE))
    assert [row["caption"] for row in rows] == ["A blue car"]
    assert reader.records.dropped == {"damaged": 2}
    cut, reader = read(tmp_path / "b.warc.gz", gzipped(RED, BLUE)[:-9])
    assert [row["caption"] for row in cut] == ["A red car"]
    assert reader.records.dropped == {"damaged": 1}


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "it has no WARC record"),
        (b"<html>not found</html>", "it has no WARC record"),
        (page_record(URL, []), "it has 1 record but no response, so it is a WAT or WET file"),
        (gzipped(warc_record("conversion", URL, b"text")), "it has 1 record but no response"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_its_cause(data: bytes, cause: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot read .*as a WARC file: {cause}"):
        read(tmp_path / "a.warc.gz", data)


def test_an_archive_of_requests_alone_is_read(tmp_path: Path) -> None:
    """As wget writes one next to its pages."""
    rows, reader = read(tmp_path / "meta.warc.gz", gzipped(warc_record("metadata", URL, b"via: x")))
    assert (rows, reader.records.dropped) == ([], {"not_a_page": 1})


def test_a_page_that_takes_too_long_costs_itself_only() -> None:
    deep = Html(b"<div>" * 400_000, "")
    with HtmlParser(["alt"], max_cpu_s=1) as parser:
        assert parser.page(URL, deep) is None
        page = parser.page(URL, Html(b"<img src=a.jpg>", ""))
    assert page is not None
    assert [image.url for image in page.images] == ["a.jpg"]


def test_a_parser_that_is_killed_is_started_again() -> None:
    with HtmlParser(["alt"]) as parser:
        assert parser.page(URL, Html(b"<p>", "")) is not None
        assert parser._process is not None
        os.kill(parser._process.pid, signal.SIGKILL)
        assert parser.page(URL, Html(b"<p>", "")) is not None


def test_a_parser_that_can_not_start_is_the_machines_fault() -> None:
    with HtmlParser(["alt"]) as parser:
        parser._command = ["false"]
        with pytest.raises(OutageError, match="cannot start a process that parses HTML"):
            parser.page(URL, Html(b"<p>", ""))


@pytest.mark.parametrize(
    "answer",
    [
        "no JSON",
        "[]",
        "{}",
        '{"images":[1]}',
        '{"images":[[1,2,3,4,"alt"]]}',
        '{"error',
        "ends",
        "long",
        "huge",
    ],
)
def test_an_answer_that_makes_no_sense_costs_its_page_only(answer: str) -> None:
    with HtmlParser(["alt"]) as parser:
        parser._command = [sys.executable, "-m", "tests.parse.odd_answer", answer]
        assert parser.page(URL, Html(b"<p>", "")) is None
        assert parser._process is None


def test_a_parser_that_neither_reads_nor_answers_costs_its_page_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html_parser, "_WALL_FACTOR", 0)
    monkeypatch.setattr(html_parser, "_LOOK_S", 0.01)
    with HtmlParser(["alt"]) as parser:
        parser._command = [sys.executable, "-m", "tests.parse.odd_answer", "silent"]
        assert parser.page(URL, Html(b" " * 4_000_000, "")) is None
        assert parser._process is None


def test_a_folder_of_warc_files_is_a_crawl(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "archives" / "mine" / "2026"
    folder.mkdir(parents=True)
    (folder / "b.warc").write_bytes(RED)
    (folder / "a.warc.gz").write_bytes(gzipped(BLUE))
    (folder / "notes.txt").write_text("x")
    settings = replace(SETTINGS, core=CoreSettings(crawl_source=str(tmp_path / "archives")))
    [partition] = partitions("mine", settings)
    assert [Path(uri).name for uri in partition.wat_files] == ["a.warc.gz", "b.warc"]
    stats = parse_partition("mine", 0, partition.indexed_wat_files, settings, store)
    assert (stats.input, stats.kept) == (3, 2)
    assert stats.details["rules"]["source"] == "warc"


@pytest.mark.parametrize("name", ["warcfile.warc.gz", "whirlwind.warc.gz", "IAH-urls-wget.warc"])
def test_real_archives_have_the_pages_that_warcio_finds(name: str, shared_data: Path) -> None:
    path = shared_data / "warc" / name
    expected: Counter[str] = Counter()
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            http = record.http_headers
            is_page = (
                record.rec_type == "response"
                and http is not None
                and http.get_statuscode().startswith("2")
                and (http.get_header("Content-Type") or "").startswith(("text/html", "application/xhtml+xml"))
            )
            expected["kept" if is_page else "not_a_page"] += 1
    reader = le.read_pairs(path, WarcSource(SETTINGS.parse), SETTINGS)
    assert list(reader) is not None
    assert Counter({"kept": reader.records.kept, **reader.records.dropped}) == expected


def test_real_pages_have_the_pairs_that_their_wat_records_have(shared_data: Path) -> None:
    """The WAT file was made from these archives; the archives have more."""
    wat = shared_data / "wat" / "real-pages.warc.wat.gz"
    plain = Settings(parse=ParseSettings(language_detector="none"))
    of_wat = {
        (row["page_url"], row["pair_id"]) for table in le.read_wat(wat, plain) for row in table.to_pylist()
    }
    of_warc = set()
    for name in ("warcfile.warc.gz", "IAH-urls-wget.warc", "link-extraction-test.warc"):
        reader = le.read_pairs(shared_data / "warc" / name, WarcSource(SETTINGS.parse), SETTINGS)
        of_warc |= {(row["page_url"], row["pair_id"]) for table in reader for row in table.to_pylist()}
    assert len(of_wat) > 20
    assert of_wat - of_warc == set()

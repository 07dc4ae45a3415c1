"""Crawls, their lists of WAT files and partitions, from a folder and over HTTP."""

import gzip
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from laion_etl import crawl as crawl_module
from laion_etl.core.errors import CrawlError, SettingsError
from laion_etl.crawl import (
    Crawl,
    Partition,
    discover_crawls,
    known_crawls,
    parse_selection,
    partitions,
    read_numbers,
    register_crawls,
    released,
    shipped_catalogue,
    wat_paths,
    written_numbers,
)
from laion_etl.minicrawl.build import CRAWL, WAT_FILES, build_minicrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.settings import CoreSettings, Settings


def source(folder: Path, crawl: str, paths: bytes, per_partition: int = 3) -> Settings:
    """Settings for a crawl source with one crawl of the given wat.paths (before packing)."""
    place = folder / "crawl-data" / crawl
    place.mkdir(parents=True)
    (place / "wat.paths.gz").write_bytes(gzip.compress(paths))
    return Settings(core=CoreSettings(crawl_source=str(folder), wat_files_per_partition=per_partition))


def lines(crawl: str, count: int) -> bytes:
    return "".join(
        f"crawl-data/{crawl}/segments/1.1/wat/{i:05d}.warc.wat.gz\n" for i in range(count)
    ).encode()


def test_the_shipped_catalogue_has_the_dumps_with_wat_files_newest_first() -> None:
    crawls = shipped_catalogue()
    assert len(crawls) == len({crawl.id for crawl in crawls}) > 100
    assert crawls[0] == Crawl("CC-MAIN-2026-21", "Common Crawl 2026, week 21", date(2026, 5, 18))
    assert crawls[-1].id == "CC-MAIN-2013-20"
    assert [crawl.released for crawl in crawls] == sorted((c.released for c in crawls), reverse=True)
    assert all(crawl.released == released(crawl.id) for crawl in crawls)
    assert all(crawl.released.weekday() == 0 for crawl in crawls)


def test_known_crawls_are_the_catalogue_that_is_set(tmp_path: Path) -> None:
    assert known_crawls(Settings()) == shipped_catalogue()
    mini = build_minicrawl(tmp_path)
    settings = Settings(core=CoreSettings(catalogue=str(mini.catalogue)))
    assert known_crawls(settings) == [Crawl(CRAWL, "Mini crawl", date(2026, 10, 19))]


def test_a_catalogue_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    for text in ("[]", "{", '{"crawls": [{"id": "CC-MAIN-2026-01"}]}'):
        path.write_text(text)
        with pytest.raises(CrawlError, match=r"catalogue\.json: not a catalogue of crawls"):
            known_crawls(Settings(core=CoreSettings(catalogue=str(path))))


def test_the_mini_crawl_is_discovered_from_its_folder_and_over_http(tmp_path: Path) -> None:
    mini = build_minicrawl(tmp_path)
    mini.world.resources.clear()  # no images are needed here
    with MiniWeb(mini) as web:
        for place in (str(tmp_path), tmp_path.as_uri(), web.url):
            settings = Settings(core=CoreSettings(crawl_source=place, wat_files_per_partition=4))
            assert [crawl.id for crawl in discover_crawls(settings)] == [CRAWL]
            paths = wat_paths(CRAWL, settings)
            assert [path.removeprefix(f"{place}/") for path in paths] == [
                path.relative_to(tmp_path).as_posix() for path in mini.wat_files
            ]
            found = partitions(CRAWL, settings)
            assert [len(partition.wat_files) for partition in found] == [4, WAT_FILES - 4]


def test_discovery_leaves_out_dumps_without_wat_files_and_sorts(tmp_path: Path) -> None:
    ids = ["CC-MAIN-2012", "CC-MAIN-2024-10", "CC-MAIN-2009-2010", "CC-MAIN-2025-05", "CC-MAIN-2024-51"]
    (tmp_path / "collinfo.json").write_text(json.dumps([{"id": i, "name": f"{i} Index"} for i in ids]))
    found = discover_crawls(Settings(core=CoreSettings(crawl_source=str(tmp_path))))
    assert [crawl.id for crawl in found] == ["CC-MAIN-2025-05", "CC-MAIN-2024-51", "CC-MAIN-2024-10"]
    assert found[0] == Crawl("CC-MAIN-2025-05", "CC-MAIN-2025-05 Index", date(2025, 1, 27))


@pytest.mark.parametrize("text", ["<html>", "{}{", '[{"name": "x"}]', "[1]", "5"])
def test_an_answer_that_is_no_list_of_crawls_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "collinfo.json").write_text(text)
    with pytest.raises(CrawlError, match="not a list of crawls"):
        discover_crawls(Settings(core=CoreSettings(crawl_source=str(tmp_path))))


def test_an_unknown_crawl_names_close_ones_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CrawlError) as caught:
        wat_paths("CC-MAIN-2024-39", Settings(core=CoreSettings(crawl_source=str(tmp_path))))
    message = str(caught.value)
    assert "does not have it; did you mean CC-MAIN-2024-3" in message
    assert "laion-etl crawl list" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["", "CC-MAIN-2012", "CC-MAIN-2024-38/../..", "../x", "CC-MAIN-2024-60", "CC-MAIN-2024-38\n"]
)
def test_a_name_that_is_no_crawl_id_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(CrawlError, match="invalid crawl id"):
        wat_paths(name, Settings(core=CoreSettings(crawl_source=str(tmp_path))))


@pytest.mark.parametrize(
    "line",
    ["/etc/passwd", "../x.gz", "crawl-data/../../x.gz", "crawl-data/./x.gz", "https://e.org/x.gz", "a b"],
)
def test_a_list_that_names_other_places_is_refused(tmp_path: Path, line: str) -> None:
    settings = source(tmp_path, CRAWL, lines(CRAWL, 1) + line.encode())
    with pytest.raises(CrawlError, match="not a path of a WAT file"):
        wat_paths(CRAWL, settings)


def test_a_damaged_list_is_a_clear_error(tmp_path: Path) -> None:
    settings = source(tmp_path, CRAWL, lines(CRAWL, 500))
    path = tmp_path / "crawl-data" / CRAWL / "wat.paths.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"<html>not here</html>", whole[:40] + b"\xff" * 40 + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(CrawlError, match=r"wat\.paths\.gz: it is damaged"):
            wat_paths(CRAWL, settings)


def test_a_list_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawl_module, "_MAX_UNPACKED_LIST_BYTES", 1_000)
    with pytest.raises(CrawlError, match="unpacks to more than 1,000 bytes"):
        wat_paths(CRAWL, source(tmp_path, CRAWL, bytes(100_000)))


def test_partitions_cover_every_wat_file_once_in_order(tmp_path: Path) -> None:
    settings = source(tmp_path, CRAWL, lines(CRAWL, 8))
    found = partitions(CRAWL, settings)
    assert [(p.number, p.first_wat, len(p.wat_files)) for p in found] == [(0, 0, 3), (1, 3, 3), (2, 6, 2)]
    indexed = [entry for partition in found for entry in partition.indexed_wat_files]
    assert indexed == list(enumerate(wat_paths(CRAWL, settings)))


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("0:2", [(0, 0, 2)]),
        ("2:4", [(0, 2, 1), (1, 3, 1)]),
        ("4", [(1, 4, 1)]),
        (":3", [(0, 0, 3)]),
        ("6:", [(2, 6, 2)]),
        ("3:100", [(1, 3, 3), (2, 6, 2)]),
        ("8:9", []),
    ],
)
def test_a_selection_keeps_the_numbers_of_the_partitions(
    tmp_path: Path, selection: str, expected: list[tuple[int, int, int]]
) -> None:
    settings = source(tmp_path, CRAWL, lines(CRAWL, 8))
    found = partitions(CRAWL, settings, parse_selection(selection))
    assert [(p.number, p.first_wat, len(p.wat_files)) for p in found] == expected
    whole = wat_paths(CRAWL, settings)
    assert all(whole[index] == uri for p in found for index, uri in p.indexed_wat_files)


def test_a_sample_is_every_nth_file_of_the_same_partitions(tmp_path: Path) -> None:
    settings = source(tmp_path, CRAWL, lines(CRAWL, 11))
    sample = replace(settings, core=replace(settings.core, wat_files_sample=4))
    found = [(p.number, [index for index, _ in p.indexed_wat_files]) for p in partitions(CRAWL, sample)]
    assert found == [(0, [0]), (1, [4]), (2, [8])]
    whole = wat_paths(CRAWL, settings)
    assert all(whole[index] == uri for p in partitions(CRAWL, sample) for index, uri in p.indexed_wat_files)
    some = partitions(CRAWL, sample, parse_selection("1:6"))
    assert [p.indexed_wat_files for p in some] == [[(4, whole[4])]]


@pytest.mark.parametrize("text", ["", ":", "a:b", "-1:2", "1:2:3", "2:2", "5:1", "1,2", "²"])
def test_a_selection_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(SettingsError, match="--wat-files"):
        parse_selection(text)


def test_a_partition_numbers_its_files() -> None:
    assert Partition("mine", 2, 6, ("a", "b")).indexed_wat_files == [(6, "a"), (7, "b")]


def test_registered_dumps_are_known_and_stay_known(tmp_path: Path) -> None:
    settings = Settings(core=CoreSettings(data_dir=str(tmp_path)))
    before = known_crawls(settings)
    new = Crawl("CC-MAIN-2031-05", "January 2031", released("CC-MAIN-2031-05"))
    assert register_crawls([new, before[0]], settings) == [new]
    assert register_crawls([new], settings) == []
    assert known_crawls(settings) == [new, *before]
    later = Crawl("CC-MAIN-2031-09", "February 2031", released("CC-MAIN-2031-09"))
    assert register_crawls([later], settings) == [later]
    assert known_crawls(settings)[:3] == [later, new, before[0]]


@pytest.mark.parametrize(
    ("numbers", "written"), [([], ""), ([5], "5"), ([0, 1, 2, 5], "0-2,5"), ([9, 3, 4, 4], "3-4,9")]
)
def test_numbers_are_written_as_runs(numbers: list[int], written: str) -> None:
    assert written_numbers(numbers) == written
    if written:
        assert read_numbers(written) == sorted(set(numbers))


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-99999999999", "1,,2", "-4"])
def test_what_are_no_numbers_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match="invalid number list"):
        read_numbers(text)


@pytest.mark.parametrize("paths", [b"", b"\n \n"])
def test_a_list_without_wat_files_says_so(tmp_path: Path, paths: bytes) -> None:
    with pytest.raises(CrawlError, match=r"wat\.paths\.gz lists no WAT files; the crawl may not be complete"):
        wat_paths(CRAWL, source(tmp_path, CRAWL, paths))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "  \r\n\r\n", "\n\u00a0\n\n"])
@pytest.mark.parametrize("begins", ["", "\ufeff", "\r\n\n", " "])
def test_blank_lines_and_line_ends_of_any_kind_are_no_paths(tmp_path: Path, begins: str, ends: str) -> None:
    path = f"crawl-data/{CRAWL}/segments/1/wat/a.warc.wat.gz"
    settings = source(tmp_path, CRAWL, f"{begins}{path}{ends}{path}{ends}".encode())
    assert wat_paths(CRAWL, settings) == [f"{tmp_path}/{path}"] * 2

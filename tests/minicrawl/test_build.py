"""The crawl files: same bytes for a seed, readable by others, and what is promised is in them."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from warcio.archiveiterator import ArchiveIterator

from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.build import CRAWL, WAT_FILES, MiniCrawl, build_minicrawl
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.text import clean_alt
from laion_etl.settings import ParseSettings, Settings

Parsed = tuple[StageStats, list[dict[str, Any]]]


def files_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and "images" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def parsed(minicrawl: MiniCrawl, tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    folder = tmp_path_factory.mktemp("parsed")
    stats = parse(minicrawl.wat_files, folder)
    return stats, pq.read_table(folder / stats.outputs[0].name).to_pylist()


def parse(wat_files: list[Path], folder: Path) -> StageStats:
    numbered = [(i, str(path)) for i, path in enumerate(wat_files)]
    return parse_partition(CRAWL, 0, numbered, Settings(parse=ParseSettings(jobs=1)), LocalStore(folder))


def test_a_seed_gives_the_same_bytes_and_another_seed_gives_others(
    minicrawl: MiniCrawl, tmp_path: Path
) -> None:
    build_minicrawl(tmp_path / "again")
    build_minicrawl(tmp_path / "other", seed=1)
    first, again, other = (files_of(f) for f in (minicrawl.folder, tmp_path / "again", tmp_path / "other"))
    assert len(first) == WAT_FILES + 3
    assert again == first
    wats = [name for name in first if name.endswith(".wat.gz")]
    assert all(first[name] != other[name] for name in wats)


def test_the_folder_is_a_few_megabytes(minicrawl: MiniCrawl) -> None:
    assert 500_000 < sum(map(len, files_of(minicrawl.folder).values())) < 5_000_000


def test_the_list_of_crawls_has_the_form_of_the_real_one(minicrawl: MiniCrawl) -> None:
    (entry,) = json.loads((minicrawl.folder / "collinfo.json").read_bytes())
    assert set(entry) == {"id", "name", "timegate", "cdx-api", "from", "to"}
    assert entry["id"] == CRAWL == minicrawl.crawl


def test_wat_paths_name_the_wat_files_that_are_there(minicrawl: MiniCrawl) -> None:
    packed = (minicrawl.folder / "crawl-data" / CRAWL / "wat.paths.gz").read_bytes()
    listed = gzip.decompress(packed).decode().splitlines()
    assert [minicrawl.folder / path for path in listed] == minicrawl.wat_files
    assert all(path.is_file() for path in minicrawl.wat_files)


def test_warcio_reads_a_warcinfo_and_three_records_for_each_page(minicrawl: MiniCrawl) -> None:
    for path in minicrawl.wat_files:
        with path.open("rb") as stream:
            reader = ArchiveIterator(stream, check_digests="raise")
            payloads = [(record.rec_type, record.content_stream().read()) for record in reader]
        assert payloads[0][0] == "warcinfo"
        assert {kind for kind, _ in payloads[1:]} == {"metadata"}
        described = Counter(_described(payload) for _, payload in payloads[1:])
        pages = (len(payloads) - 1) // 3
        assert described["request"] == described["metadata"] == pages > 40
        assert described["response"] + described["broken"] == pages


def _described(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["Envelope"]["WARC-Header-Metadata"]["WARC-Type"])
    except ValueError:
        return "broken"


def test_every_record_is_a_gzip_member_of_its_own(minicrawl: MiniCrawl) -> None:
    path = minicrawl.wat_files[0]
    with path.open("rb") as stream:
        reader = ArchiveIterator(stream)
        offsets = []
        for record in reader:
            record.raw_stream.read()
            offsets.append(reader.get_record_offset())
    data = path.read_bytes()
    assert len(set(offsets)) == len(offsets) > 100
    assert all(data[offset : offset + 2] == b"\x1f\x8b" for offset in offsets)


def test_there_are_two_thousand_image_links_and_a_thousand_fetchable_pairs(
    minicrawl: MiniCrawl, parsed: Parsed
) -> None:
    stats, rows = parsed
    fetchable = {row["pair_id"] for row in rows if minicrawl.expected[row["url"]] is DownloadStatus.SUCCESS}
    assert stats.input >= 2_000
    assert len(fetchable) >= 1_000


def test_parsing_gives_the_links_of_the_world_and_drops_what_the_builder_says(
    minicrawl: MiniCrawl, parsed: Parsed
) -> None:
    stats, rows = parsed
    limit = ParseSettings().max_alt_chars
    wanted = {(link.url, clean_alt(link.alt, limit)) for link in minicrawl.world.links}
    assert {(row["url"], row["caption"]) for row in rows} == wanted
    assert stats.dropped == {reason.value: n for reason, n in minicrawl.dropped.items()}
    assert len(stats.dropped) == 15
    assert stats.details["records"]["dropped"]["broken_json"] == 1


def test_every_subset_has_pairs(parsed: Parsed) -> None:
    _, rows = parsed
    languages = Counter(row["language"] for row in rows)
    assert languages["en"] > 400
    assert all(languages[language] > 100 for language in ("de", "fr", "es", "ru"))
    assert languages[""] > 20
    licences = Counter(row["license"] for row in rows)
    assert len(licences) == 5
    assert sum(n for licence, n in licences.items() if licence != "?") > 100


def test_duplicates_occur_within_a_file_and_across_files(minicrawl: MiniCrawl, tmp_path: Path) -> None:
    alone = 0
    for path in minicrawl.wat_files:
        stats = parse([path], tmp_path / path.name)
        assert stats.dropped["duplicate_in_partition"] > 0
        alone += stats.dropped["duplicate_in_partition"]
    assert alone < sum(n for reason, n in minicrawl.dropped.items() if reason == "duplicate_in_partition")


def test_images_have_titles(parsed: Parsed) -> None:
    _, rows = parsed
    assert sum(row["title"] == row["caption"] for row in rows) > 50
    assert sum(row["title"] == "" for row in rows) > 1_000


def test_relative_and_protocol_relative_urls_and_bases_occur(minicrawl: MiniCrawl) -> None:
    urls, bases = [], 0
    for path in minicrawl.wat_files:
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream):
                text = record.content_stream().read()
                if record.rec_type != "metadata" or b'"IMG@/src"' not in text or _described(text) == "broken":
                    continue
                about = json.loads(text)["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
                html = about["HTML-Metadata"]
                bases += "Base" in html.get("Head", {})
                urls += [link.get("url", "") for link in html["Links"] if link["path"] == "IMG@/src"]
    assert sum(url.startswith("../") for url in urls) > 20
    assert sum(url.startswith("//") for url in urls) > 100
    assert sum(url.startswith("/") and not url.startswith("//") for url in urls) > 100
    assert bases > 10

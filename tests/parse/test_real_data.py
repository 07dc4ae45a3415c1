"""Real WARC and WAT files from elsewhere: read completely, and every link is kept or has a reason."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from laion_etl.core.errors import InputError
from laion_etl.core.funnel import ParseReason
from laion_etl.io.storage import Store
from laion_etl.parse.stage import parse_partition
from laion_etl.settings import Settings
from tests.parse.outcomes import link_outcome, read, read_without_kernels

WATS = {"wat/real-pages.warc.wat.gz": 205, "warc/whirlwind.warc.wat.gz": 0}  # image links, by hand
OF_A_FILE = {ParseReason.DUPLICATE, ParseReason.TEXT_REPEATED}  # reasons that other links are the cause of


def links_of(path: Path) -> Iterator[tuple[str, str | None, dict[str, str]]]:
    """(page URL, base, image link) by warcio and the whole JSON."""
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type != "metadata":
                continue
            envelope = json.loads(record.content_stream().read())["Envelope"]
            html = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
            for link in html.get("Links", []):
                if link["path"] == "IMG@/src":
                    url = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
                    yield url, html.get("Head", {}).get("Base"), link


def record_outcomes(path: Path) -> Counter[str]:
    """What becomes of the records, by warcio and the whole JSON."""
    found: Counter[str] = Counter()
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            is_page = record.rec_type == "metadata" and "HTML-Metadata" in json.loads(
                record.content_stream().read()
            )["Envelope"]["Payload-Metadata"].get("HTTP-Response-Metadata", {})
            found["kept" if is_page else "not_a_page"] += 1
    return found


@pytest.mark.parametrize("name", WATS)
def test_every_record_is_a_page_or_has_a_reason(name: str, shared_data: Path) -> None:
    data = (shared_data / name).read_bytes()
    found = read(data)
    assert +Counter(found.records) == record_outcomes(shared_data / name)
    assert found == read_without_kernels(data)
    links = [(url, link.get("url"), link.get("alt"), link.get("title"))
             for url, _, link in links_of(shared_data / name)]  # fmt: skip
    assert [(page.url, i.url, i.alt, i.title) for page in found.pages for i in page.images] == links


@pytest.mark.parametrize(("name", "image_links"), WATS.items())
def test_every_link_is_kept_or_has_a_reason(
    name: str, image_links: int, shared_data: Path, store: Store
) -> None:
    """The file's counts are those of its links, each judged alone, but for duplicates."""
    stats = parse_partition("real", 0, [(0, str(shared_data / name))], Settings(), store)
    links = list(links_of(shared_data / name))
    alone: Counter[str] = Counter()
    for page_url, base, link in links:
        outcome = link_outcome(link.get("url"), link.get("alt"), page_url, base=base)
        alone[outcome if isinstance(outcome, ParseReason) else "kept"] += 1
    assert stats.input == len(links) == image_links
    by_others = {reason: count for reason, count in stats.dropped.items() if reason in OF_A_FILE}
    assert stats.kept + sum(by_others.values()) == alone.pop("kept", 0)
    assert stats.dropped == alone | by_others


@pytest.mark.parametrize("name", ["warc/warcfile.warc.gz", "warc/whirlwind.warc.gz"])
def test_archives_of_pages_hold_no_wat_records_and_are_read_to_their_end(
    name: str, shared_data: Path
) -> None:
    path = shared_data / name
    with path.open("rb") as file:
        records = sum(1 for _ in ArchiveIterator(file))
    found = read(path.read_bytes())
    assert found.pages == []
    assert found.records == {"kept": 0, "not_a_page": records}
    assert found.damages == []


def test_an_archive_of_one_record_that_is_cut_off_is_nothing_but_damage(shared_data: Path) -> None:
    found = read((shared_data / "warc" / "clipped.warc.gz").read_bytes())
    assert found.records == {"kept": 0, "damaged": 1}
    assert [damage.cause for damage in found.damages] == ["cut off"]


def test_an_archive_without_gzip_is_refused_with_its_cause(shared_data: Path, store: Store) -> None:
    path = shared_data / "warc" / "IAH-urls-wget.warc"
    with pytest.raises(InputError, match=r"IAH-urls-wget\.warc"):
        parse_partition("real", 0, [(0, str(path))], Settings(), store)

"""Custom sources of links: their pages take the same way as those of WAT files."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import laion_etl as le
from laion_etl.cli.run_checks import check_run
from laion_etl.core.errors import CrawlError, InternalError, KilledError, SettingsError
from laion_etl.core.funnel import RecordReason
from laion_etl.crawl import partitions
from laion_etl.io.storage import Store
from laion_etl.parse import link_batch
from laion_etl.parse.link_batch import LinkBatch, link_batches
from laion_etl.parse.page import ImageLink, Page
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.wat_workers import FileParser
from laion_etl.settings import CoreSettings, ParseSettings, Settings, load_settings
from tests.parse.wat_files import image, page_record, write_wat

HERE = __name__
CC_BY = "https://creativecommons.org/licenses/by/4.0/"


class Lines:
    """Files of lines: page, image URL and caption, separated by tabs; anything else is broken."""

    def __init__(self, settings: ParseSettings) -> None:
        assert isinstance(settings, ParseSettings)

    def files(self, crawl: str, root: str) -> list[str]:
        return sorted(map(str, Path(root, crawl).glob("*.tsv")))

    def batches(self, uri: str) -> Iterator[LinkBatch]:
        yield from link_batches(map(_page, Path(uri).read_text().splitlines()))


def _page(line: str) -> Page | RecordReason:
    fields = line.split("\t")
    if len(fields) != 3:
        return RecordReason.BROKEN_JSON
    return Page(fields[0], [ImageLink(fields[1], fields[2])])


def no_source(_: ParseSettings) -> str:
    return "a folder"


def settings_for(source: str, **core: object) -> Settings:
    return Settings(
        core=CoreSettings(**core),  # type: ignore[arg-type]
        parse=ParseSettings(source=f"{HERE}:{source}", jobs=1),
    )


def test_pages_of_strings_give_the_pairs_that_the_same_wat_file_gives(tmp_path: Path) -> None:
    links = [
        ("/red.jpg", "A red car\n on a green  field", None),
        ("https://other.example.org/a b.jpg", "Ein blauer Hund im Garten", "Dog"),
        (None, "no url", None),
        ("/x.jpg", None, None),
    ]
    urls = ["https://www.example.org/a/", "https://www.example.org/b/"]
    wat = write_wat(
        tmp_path / "a.wat.gz", [page_record(url, [image(*link) for link in links], "../") for url in urls]
    )
    (tmp_path / "empty").touch()

    class Given:
        def batches(self, _uri: str) -> Iterator[LinkBatch]:
            return link_batches(Page(url, [ImageLink(*link) for link in links], "../") for url in urls)

    expected, found = le.read_wat(wat, Settings()), le.read_pairs("given", Given(), Settings())
    columns = ["pair_id", "url", "caption", "title", "license", "page_url", "language"]
    assert [t.select(columns) for t in found] == [t.select(columns) for t in expected]
    assert (found.funnel, found.records) == (expected.funnel, expected.records)
    assert found.funnel.input == 8


def test_a_partition_is_parsed_by_the_source_of_the_settings(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "pages"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine/b.tsv").write_text("https://b.example/\t/2.jpg\tA blue boat on a lake\n")
    (folder / "mine/a.tsv").write_text("https://a.example/\t1.jpg\tA red car on a field\nbroken\n")
    settings = settings_for("Lines", crawl_source=f"{folder}/")
    [partition] = partitions("mine", settings)
    stats = parse_partition("mine", 0, partition.indexed_wat_files, settings, store)
    with store.open("pairs/mine/part-00000.parquet") as file:
        rows = pq.read_table(file).to_pylist()
    assert [row["url"] for row in rows] == ["https://a.example/1.jpg", "https://b.example/2.jpg"]
    assert [(row["wat_file"], row["record_offset"]) for row in rows] == [(0, 0), (1, 0)]
    assert stats.details["records"] == {"input": 3, "kept": 2, "dropped": {"broken_json": 1}}
    assert stats.details["rules"]["source"] == f"{HERE}:Lines"


def test_another_source_is_another_fingerprint(tmp_path: Path, store: Store) -> None:
    lines = tmp_path / "a.tsv"
    lines.write_text("https://a.example/\t/1.jpg\tA red car on a field\n")
    mine = parse_partition("C", 0, [(0, str(lines))], settings_for("Lines"), store)
    again = parse_partition("C", 0, [(0, str(lines))], settings_for("AlsoLines"), store)
    assert mine.kept == again.kept == 1
    assert mine.fingerprint != again.fingerprint


class AlsoLines(Lines):
    """The same under another name."""


def test_long_files_are_cut_into_batches_and_nothing_is_lost_at_their_edges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_batch, "_BATCH_BYTES", 2_000)
    given = [
        Page(f"https://a.example/{n}", [ImageLink(f"/{n}.jpg", f"Picture number {n} of many")] * (n % 4))
        for n in range(200)
    ]
    found, sizes = [], []
    for batch in link_batches(given):
        text = batch.arena.text
        sizes.append(batch.offsets.size)
        for row in range(batch.links.record.size):
            page = batch.links.record[row]
            url = text(batch.links.url_start[row], batch.links.url_end[row])
            found.append((int(batch.offsets[page]), url))
    assert found == [(n, f"/{n}.jpg") for n in range(200) for _ in range(n % 4)]
    assert sum(sizes) == 200
    assert len(sizes) > 5


def test_what_a_page_has_for_all_its_images_is_taken(tmp_path: Path) -> None:
    pages = [Page("https://a.example/x/", [ImageLink("1.jpg", "A red car on a field")], "/y/", CC_BY)]

    class Given:
        def batches(self, _uri: str) -> Iterator[LinkBatch]:
            return link_batches(pages)

    [table] = le.read_pairs("given", Given(), Settings())
    assert table["url"].to_pylist() == ["https://a.example/y/1.jpg"]
    assert table["license"].to_pylist() == [CC_BY]
    assert table["page_url"].to_pylist() == ["https://a.example/x/"]


TEXTS = st.one_of(st.none(), st.text(), st.integers(), st.just("\ud800"))
PAGES = st.builds(
    Page,
    url=st.one_of(
        st.text(), st.just("https://a.example/"), st.just("https://a.example/" + "x" * 9_000), TEXTS
    ),
    images=st.lists(st.builds(ImageLink, url=TEXTS, alt=TEXTS, title=TEXTS), max_size=4),
    base=st.text(),
)


@given(st.lists(st.one_of(PAGES, st.sampled_from(RecordReason)), max_size=8))
def test_every_record_is_counted_once_whatever_is_in_it(records: list[Page | RecordReason]) -> None:
    class Given:
        def batches(self, _uri: str) -> Iterator[LinkBatch]:
            return link_batches(records)

    pairs = le.read_pairs("given", Given(), Settings(parse=ParseSettings(language_detector="none")))
    rows = sum(table.num_rows for table in pairs)
    assert pairs.records.input == len(records)
    assert pairs.records.kept + sum(pairs.records.dropped.values()) == len(records)
    assert pairs.funnel.kept == rows
    assert pairs.funnel.input == rows + sum(pairs.funnel.dropped.values())


def test_a_page_without_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_batch, "MAX_MEMBER_BYTES", 100)
    pages = [Page("https://a.example/", [ImageLink("/1.jpg", text)]) for text in ("A red car", "x" * 200)]
    [batch] = link_batches(pages)
    assert (batch.records.kept, batch.records.dropped) == (1, {RecordReason.DAMAGED: 1})


def test_a_source_that_yields_anything_else_is_named() -> None:
    with pytest.raises(SettingsError, match="the source yields tuple; yield a Page"):
        list(link_batches([("https://a.example/", "A red car")]))  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("no_such_module_here:make", "no_such_module_here"),
        (f"{HERE}:no_source", r"without the method batches\(uri\); return a LinkSource"),
    ],
)
def test_a_factory_that_gives_no_source_is_refused_before_a_run(name: str, cause: str, store: Store) -> None:
    settings = Settings(parse=ParseSettings(source=name))
    with pytest.raises(SettingsError, match=f"LAION_ETL_PARSE_SOURCE.*{cause}"):
        FileParser(settings)
    with pytest.raises(SettingsError, match=f"LAION_ETL_PARSE_SOURCE.*{cause}"):
        check_run("C", [], settings, store)


def test_an_unknown_source_is_refused_when_settings_are_loaded() -> None:
    with pytest.raises(SettingsError, match=r"LAION_ETL_PARSE_SOURCE=wet.*use wat, warc or module:factory"):
        load_settings({"LAION_ETL_PARSE_SOURCE": "wet"})


def test_a_source_without_files_for_a_crawl_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrawlError, match=r"cannot list the files of mine.*returns \[\]"):
        partitions("mine", settings_for("Lines", crawl_source=str(tmp_path)))


class Numbers:
    """Pages made of lines, which must be numbers: any other line raises an exception."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def batches(self, uri: str) -> Iterator[LinkBatch]:
        lines = map(self._page, self._lines)
        yield from link_batches(page for page in lines) if uri == "generator" else link_batches(lines)

    def _page(self, line: str) -> Page:
        return Page(f"https://a.example/{int(line)}", [ImageLink("/1.jpg", f"Picture number {line}")])


def test_an_exception_for_a_record_costs_that_record() -> None:
    pairs = le.read_pairs("numbers", Numbers([*map(str, range(5)), "x", *map(str, range(5, 10))]), Settings())
    [table] = pairs
    assert table["record_offset"].to_pylist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert pairs.records.kept == 10
    assert pairs.records.dropped == {"internal_error": 1}


@pytest.mark.parametrize(
    ("uri", "lines"),
    [("generator", ["1", "x", "2"]), ("numbers", ["x"] * 1_000)],
    ids=["nothing comes after it", "every record"],
)
def test_a_source_that_cannot_go_on_is_an_error_of_its_file(uri: str, lines: list[str]) -> None:
    cause = f"cannot parse {uri}: the source Numbers raised ValueError: invalid literal.*; mend the source"
    with pytest.raises(InternalError, match=cause):
        list(le.read_pairs(uri, Numbers(lines), Settings()))


class Killed(Lines):
    """Its process is killed by a file of that name, as the kernel does when memory runs out."""

    def batches(self, uri: str) -> Iterator[LinkBatch]:
        if Path(uri).name == "killer.tsv":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batches(uri)


def test_a_parser_that_was_killed_says_so(tmp_path: Path, store: Store) -> None:
    files = [str(tmp_path / name) for name in ("killer.tsv", "other.tsv")]
    for file in files:
        Path(file).write_text("https://a.example/\t/1.jpg\tA red car on a field\n")
    settings = settings_for("Killed")
    two = replace(settings, parse=replace(settings.parse, jobs=2))
    with pytest.raises(
        KilledError, match=r"cannot parse .*killer\.tsv.*was killed, most often.*LAION_ETL_PARSE_JOBS"
    ):
        parse_partition("C", 0, list(enumerate(files)), two, store)

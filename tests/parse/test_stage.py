from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.blocklists.removal_requests import Request
from laion_etl.core.errors import InputError, SettingsError
from laion_etl.core.schemas import PAIR_SCHEMA, pair_id
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import LocalStore, Store
from laion_etl.parse.stage import parse_partition, row_groups
from laion_etl.settings import ParseSettings, Settings, load_settings
from tests.parse.wat_files import compact_page_record, image, page_record, record, write_wat

PAGE = "https://www.example.org/x/"
ONE_JOB = Settings(parse=ParseSettings(jobs=1))  # starting another takes longer than these files


@pytest.fixture
def wat(tmp_path: Path) -> str:
    links = [
        image("/red.jpg", "A red car on a green field"),
        image("/red.jpg", "A  red car on a green field "),  # the same after cleaning
        image("/rot.jpg", "Ein rotes Auto auf einer grünen Wiese"),
        image("/short.jpg", "ab"),
        image("/none.jpg"),
        image("/empty.jpg", "  "),
        image(None, "A picture without an address"),
        image("data:image/png;base64,AA", "An inline picture"),
        image("/logo.svg", "A vector logo"),
    ]
    return write_wat(tmp_path / "a.wat.gz", [page_record(PAGE, links), record(PAGE, b"{broken")])


def test_links_become_pairs_or_reasons(wat: str, any_store: Store) -> None:
    stats = parse_partition("C", 3, [(17, wat)], Settings(), any_store)
    assert stats.input == 9
    assert stats.kept == 2
    assert stats.dropped == {
        "no_alt": 2,
        "alt_too_short": 1,
        "duplicate_in_partition": 1,
        "no_url": 1,
        "url_extension": 1,
        "url_scheme": 1,
    }
    assert stats.details["records"] == {"input": 2, "kept": 1, "dropped": {"broken_json": 1}}
    with any_store.open("pairs/C/part-00003.parquet") as file:
        table = pq.read_table(file)
    assert table.schema.equals(PAIR_SCHEMA)
    red, rot = table.to_pylist()
    assert red == {
        "pair_id": pair_id("https://www.example.org/red.jpg", "A red car on a green field"),
        "url": "https://www.example.org/red.jpg",
        "caption": "A red car on a green field",
        "title": "",
        "language": "en",
        "language_probability": red["language_probability"],
        "license": "?",
        "page_url": PAGE,
        "domain": "example.org",
        "wat_file": 17,
        "record_offset": 0,
        "caption_source": "alt",
        "page_lang": "",
    }
    assert rot["language"] == "de"


class Written:
    """A watcher that keeps the names of the stats that are written."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def begun(self, stats_name: str) -> None: ...

    def finished(self, stats_name: str, _stats: StageStats) -> None:
        self.names.append(stats_name)


def test_a_removal_that_is_requested_meanwhile_is_not_missed(wat: str, store: Store) -> None:
    """It takes its pairs out of finished files: this one it does not see."""
    red = pair_id("https://www.example.org/red.jpg", "A red car on a green field")
    request = Request({"pairs": (red.hex(),)})

    def requested(_done: int, _total: int) -> None:
        store.write(request.name, request.to_json())

    written = Written()
    store.watcher = written
    with pytest.raises(InputError, match="cannot finish parsing part-00000 of C: a removal was requested"):
        parse_partition("C", 0, [(0, wat)], ONE_JOB, store, requested)
    assert written.names == []  # a process killed at any moment leaves no stats that pass for finished
    assert not store.exists("pairs/C/part-00000.json")
    stats = parse_partition("C", 0, [(0, wat)], ONE_JOB, store)
    assert stats.kept == 1


def test_the_same_input_gives_the_same_bytes(wat: str, tmp_path: Path) -> None:
    outputs = [
        parse_partition("C", 0, [(0, wat)], Settings(), LocalStore(tmp_path / name)).outputs
        for name in ("a", "b")
    ]
    assert outputs[0] == outputs[1]


def test_a_finished_partition_is_not_parsed_again(wat: str, store: Store) -> None:
    first = parse_partition("C", 0, [(0, wat)], Settings(), store)
    Path(wat).unlink()
    assert parse_partition("C", 0, [(0, wat)], Settings(), store) == first
    assert parse_partition("C", 0, [(0, wat)], Settings(parse=ParseSettings(jobs=7)), store) == first
    with pytest.raises(InputError):
        parse_partition("C", 0, [(0, wat)], Settings(parse=ParseSettings(min_alt_chars=1)), store)


def test_an_unreadable_file_leaves_nothing_half_written(wat: str, store: Store, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wat.gz"
    broken.write_bytes(b"no gzip at all" * 100)
    with pytest.raises(InputError, match=r"broken\.wat\.gz"):
        parse_partition("C", 0, [(0, wat), (1, str(broken))], ONE_JOB, store)
    assert store.list("pairs/") == []


def test_a_damaged_member_is_counted_with_its_place(wat: str, store: Store, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wat.gz"
    whole = Path(wat).read_bytes()
    broken.write_bytes(whole + whole[:-30])
    stats = parse_partition("C", 0, [(4, str(broken))], Settings(), store)
    assert stats.details["records"]["dropped"] == {"broken_json": 1, "damaged": 1}
    [[wat_file, offset]] = stats.details["damaged"]
    assert (wat_file, offset > len(whole)) == (4, True)
    assert store.read_stats("pairs/C/part-00000.json") == stats


def test_progress_counts_files(wat: str, store: Store) -> None:
    seen: list[tuple[int, int]] = []
    parse_partition("C", 0, [(0, wat), (1, wat)], ONE_JOB, store, lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


def test_several_jobs_give_the_output_of_one(tmp_path: Path) -> None:
    """Two for three files, so that one reads two; each starts a process that imports for two seconds."""
    wats = []
    for number in range(3):
        links = [
            image(f"/{n}.jpg", f"A picture of house number {n}", "Our house")
            for n in range(number, number + 40)
        ]
        records = [page_record(PAGE, links), compact_page_record(PAGE, links), record(PAGE, b"{broken")]
        wats.append((number, write_wat(tmp_path / f"{number}.wat.gz", records)))
    found = {}
    for jobs in (1, 2):
        store = LocalStore(tmp_path / f"jobs{jobs}")
        settings, seen = Settings(parse=ParseSettings(jobs=jobs)), list[tuple[int, int]]()
        found[jobs] = parse_partition("C", 0, wats, settings, store, lambda *step: seen.append(step))  # noqa: B023 - called in it
        assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found[1] == found[2]
    assert found[1].kept == 42
    assert found[1].dropped == {"duplicate_in_partition": 3 * 80 - 42}


def test_an_unreadable_file_ends_all_jobs(wat: str, store: Store, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wat.gz"
    broken.write_bytes(b"no gzip at all" * 100)
    with pytest.raises(InputError, match=r"broken\.wat\.gz"):
        parse_partition("C", 0, [(0, wat), (1, str(broken))], Settings(parse=ParseSettings(jobs=2)), store)
    assert store.list("pairs/") == []


def test_row_groups_are_of_one_size_whatever_the_batches() -> None:
    sizes = [3, 49_990, 20, 120_000, 1]
    tables = [pa.table({"n": pa.array(range(size))}) for size in sizes]
    groups = [table.num_rows for table in row_groups(iter(tables))]
    assert groups == [10_000] * 17 + [14]


def test_boilerplate_is_kept_a_number_of_times(tmp_path: Path, store: Store) -> None:
    links = [image(f"/{n}.jpg", "Our shop since 1990") for n in range(10)]
    wat = write_wat(tmp_path / "a.wat.gz", [page_record(PAGE, links)])
    stats = parse_partition("C", 0, [(0, wat)], Settings(parse=ParseSettings(max_text_repeats=4)), store)
    assert (stats.kept, stats.dropped) == (4, {"text_repeated": 6})


def test_only_the_languages_asked_for_are_kept(tmp_path: Path, store: Store) -> None:
    texts = [
        "The old house by the river in spring",
        "Das alte Haus am Fluss und der kleine Garten dahinter mit Blick auf die Berge",
        "xq zzkw",
    ]
    links = [image(f"/{n}.jpg", text) for n, text in enumerate(texts)]
    wat = write_wat(tmp_path / "a.wat.gz", [page_record(PAGE, links)])
    kept = {}
    for languages in (("de",), ("en", "none"), ("sm",)):
        settings = Settings(parse=ParseSettings(languages=languages))
        stats = parse_partition("-".join(languages), 0, [(0, wat)], settings, store)
        assert stats.dropped.get("language_not_asked_for", 0) == 3 - stats.kept
        kept[languages] = stats.kept
    assert kept == {("de",): 1, ("en", "none"): 2, ("sm",): 0}


def test_the_preset_of_the_original_keeps_what_it_kept(tmp_path: Path, store: Store) -> None:
    texts = ["IMG_1234.JPG", "image", "2024-03-12", "d41d8cd98f00b204e9800998ecf8427e"]
    links = [image(f"/{n}.jpg", text) for n, text in enumerate(texts)]
    links += [image("/spacer.png", "A tracking pixel"), image("http://10.0.0.1/a.jpg", "A private address")]
    wat = write_wat(tmp_path / "a.wat.gz", [page_record(PAGE, links)])
    ours = parse_partition("ours", 0, [(0, wat)], load_settings({}), store)
    assert (ours.kept, len(ours.dropped)) == (0, 6)
    original = load_settings({"LAION_ETL_PARSE_PRESET": "laion5b"})
    stats = parse_partition("laion5b", 0, [(0, wat)], original, store)
    assert (stats.kept, stats.dropped) == (5, {"host_not_public": 1})
    narrowed = load_settings({"LAION_ETL_PARSE_PRESET": "laion5b", "LAION_ETL_PARSE_REFUSE_TRACKERS": "1"})
    assert parse_partition("mixed", 0, [(0, wat)], narrowed, store).dropped["tracker"] == 1


def test_an_unknown_preset_is_an_error() -> None:
    with pytest.raises(
        SettingsError,
        match="PARSE_PRESET=laion6b: 'laion6b' is not a choice; use default, laion5b",
    ):
        load_settings({"LAION_ETL_PARSE_PRESET": "laion6b"})


# (page, image, caption, language), read off the pages' links by eye.
REAL_ROWS = [
    ("http://01spb.ru/company/", "http://01spb.ru/logo.png", "Стратегия пожарной безопасности", "ru"),
    (
        "http://01spb.ru/company/",
        "https://informer.yandex.ru/informer/40512705/3_1_FFFFFFFF_EFEFEFFF_0_pageviews",
        "Яндекс.Метрика",
        "",
    ),
    (
        "http://044545.com/topic/20200207/015849.html",
        "https://cdnimg.acgget.com/images/202003/98a8e084f2bc4be1.jpg",
        "98a8e084f2bc4be1.jpg (781×451)",
        "gd",  # CLD3 is sure, and wrong: a file name is no text
    ),
    (
        "http://0900-hovenier.nl/gelderland/oosterbeek/",
        "http://0900-hovenier.nl/wp-content/themes/Bluemonkey/images/naambellen-hoe-werkt-het.jpg",
        "Schematische weergave van de werking van naambellen",
        "nl",
    ),
    (
        "http://0900-hovenier.nl/gelderland/oosterbeek/",
        "http://0900-hovenier.nl/wp-content/themes/Bluemonkey/images/logos/logo-naambellen.png",
        "naambellen",
        "nl",
    ),
    ("https://archive.org/", "https://archive.org/images/glogo2.png", "Internet Archive", ""),
    (
        "https://archive.org/",
        "https://archive.org/images/main-header.jpg",
        "Universal Access To All Knowledge",
        "en",
    ),
    ("https://archive.org/", "https://archive.org/images/rss.png", "See recent additions in RSS", "en"),
    ("https://archive.org/", "https://archive.org/images/star.png", "4.83 out of 5 stars", "en"),
    ("https://archive.org/", "https://archive.org/images/star.png", "5.00 out of 5 stars", "en"),
    ("http://www.example.com/html4.html", "http://www.example.com/image.png", "IMG@/src", ""),
    (
        "http://www.example.com/data-href.examples.html",
        "http://www.example.com/jackbox/img/thumbs/4.jpg",
        "responsive lightbox",
        "",
    ),
]


def test_real_pages_by_hand(shared_data: Path, store: Store) -> None:
    """90 records and a warcinfo, 205 images, 82 of them with alt text, as the data's own note says."""
    wat = str(shared_data / "wat" / "real-pages.warc.wat.gz")
    stats = parse_partition("real", 0, [(0, wat)], Settings(), store)
    assert stats.details["records"] == {"input": 91, "kept": 36, "dropped": {"not_a_page": 55}}
    assert stats.input == 205
    assert stats.dropped == {
        "no_alt": 121,
        "duplicate_in_partition": 34,
        "url_extension": 16,
        "alt_too_short": 3,
        "no_url": 2,
    }
    assert stats.kept + 34 + 13 + 6 == 82
    with store.open("pairs/real/part-00000.parquet") as file:
        rows = {
            (r["page_url"], r["url"], r["caption"], r["language"]) for r in pq.read_table(file).to_pylist()
        }
    assert len(rows) == stats.kept == 29
    assert set(REAL_ROWS) <= rows

"""A run whose settings differ from those of planned pairs is refused before any work; the error says how."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from laion_etl.blocklists.removal_requests import Request
from laion_etl.cli import app
from laion_etl.cli.run_checks import check_parse, check_run
from laion_etl.core.errors import SettingsError
from laion_etl.crawl import parse_selection, partitions
from laion_etl.database.connection import Database
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import load_partition
from laion_etl.io.storage import Store
from laion_etl.parse.stage import parse_partition
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import Settings
from tests.parse.wat_files import image, page_record, write_wat

CRAWL = "CC-MAIN-2024-38"
WAT_FILES = 4


def of(settings: Settings, group: str, **values: Any) -> Settings:
    """Returns settings with some of a group changed."""
    return replace(settings, **{group: replace(getattr(settings, group), **values)})


@pytest.fixture
def crawled(settings: Settings, tmp_path: Path) -> Settings:
    """A crawl of four WAT files, two per partition."""
    folder = tmp_path / "source" / "crawl-data" / CRAWL
    folder.mkdir(parents=True)
    for number in range(WAT_FILES):
        links = [image(f"/{number}/{n}.jpg", f"A red car in the green field number {n}") for n in range(5)]
        write_wat(folder / f"{number}.wat.gz", [page_record(f"https://www.example.org/{number}/", links)])
    paths = "".join(f"crawl-data/{CRAWL}/{number}.wat.gz\n" for number in range(WAT_FILES))
    (folder / "wat.paths.gz").write_bytes(gzip.compress(paths.encode()))
    alone = of(settings, "parse", jobs=1)
    return of(alone, "core", crawl_source=str(tmp_path / "source"), wat_files_per_partition=2)


def check(settings: Settings, store: Store, selection: str = "") -> None:
    chosen = parse_selection(selection) if selection else None
    check_run(CRAWL, partitions(CRAWL, settings, chosen), settings, store)


def loaded(settings: Settings, store: Store, database: Database, selection: str = "") -> None:
    for partition in partitions(CRAWL, settings, parse_selection(selection) if selection else None):
        parse_partition(CRAWL, partition.number, partition.indexed_wat_files, settings, store)
        load_partition(CRAWL, partition.number, settings, store, database)


@pytest.fixture
def planned(crawled: Settings, store: Store, database: Database) -> Settings:
    """Its settings, once all its pairs are cut into batches."""
    loaded(crawled, store, database)
    plan_batches(CRAWL, crawled, store, database)
    return crawled


def test_a_new_crawl_and_the_same_run_again_are_fine(planned: Settings, store: Store) -> None:
    check(planned, store)
    check(planned, store, "2:4")
    check(of(planned, "parse", jobs=3, preset="laion5b"), store)  # change no pair


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda settings: of(settings, "parse", languages=("de",)),
            "LAION_ETL_PARSE_LANGUAGES was empty and is de",
        ),
        (
            lambda settings: of(settings, "parse", min_alt_chars=7),
            "LAION_ETL_PARSE_MIN_ALT_CHARS was 5 and is 7",
        ),
        (
            lambda settings: of(settings, "core", wat_files_sample=2),
            "partition 0 has WAT files 0-1 and would have 0",
        ),
        (
            lambda settings: of(settings, "core", wat_files_per_partition=1),
            "partition 0 has WAT files 0-1 and would have 0",
        ),
        (
            lambda settings: of(settings, "load", dedupe="url"),
            "it removes duplicates by pair and LAION_ETL_LOAD_DEDUPE says url",
        ),
    ],
)
def test_other_rules_than_the_planned_ones_are_refused_with_what_differs(
    planned: Settings, store: Store, change: Callable[[Settings], Settings], what: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        check(change(planned), store)

    assert what in str(refused.value)
    assert refused.value.exit_code == 2


def test_the_way_out_is_in_the_refusal(planned: Settings, store: Store, database: Database) -> None:
    other = of(planned, "parse", languages=("de",))
    with pytest.raises(SettingsError, match=f"laion-etl db forget --crawl {CRAWL}"):
        check(other, store)

    forget_crawl(CRAWL, other, store, database)
    check(other, store)


def set_environment(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STORE": store.uri(""),
        "DATABASE_URL": settings.core.database_url,
        "CRAWL_SOURCE": settings.core.crawl_source,
        "WAT_FILES_PER_PARTITION": "2",
    }.items():
        monkeypatch.setenv(f"LAION_ETL_{name}", value)


def test_the_command_that_a_run_begins_with_refuses_and_writes_nothing(
    planned: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(planned, store, monkeypatch)
    monkeypatch.setenv("LAION_ETL_PARSE_LANGUAGES", "de")
    before = {name: store.read(name) for name in store.list("pairs/")}

    ended = CliRunner().invoke(app, ["crawl", "partitions", "--crawl", CRAWL, "--json"])

    assert isinstance(ended.exception, SettingsError)
    assert "these rules differ from the planned ones" in str(ended.exception)
    assert {name: store.read(name) for name in store.list("pairs/")} == before
    monkeypatch.delenv("LAION_ETL_PARSE_LANGUAGES")
    assert CliRunner().invoke(app, ["crawl", "partitions", "--crawl", CRAWL, "--json"]).exit_code == 0


def test_a_part_of_a_planned_partition_is_refused(planned: Settings, store: Store) -> None:
    with pytest.raises(SettingsError, match="partition 1 has WAT files 2-3 and would have 2"):
        check(planned, store, "0:3")


def test_other_rules_are_refused_for_further_partitions_of_the_crawl_too(
    crawled: Settings, store: Store, database: Database
) -> None:
    """A dataset made half by one set of rules and half by another would not match its card."""
    loaded(crawled, store, database, "0:2")
    plan_batches(CRAWL, crawled, store, database)

    check(crawled, store, "2:4")
    with pytest.raises(SettingsError, match="LAION_ETL_PARSE_LANGUAGES"):
        check(of(crawled, "parse", languages=("en",)), store, "2:4")


def test_what_is_loaded_but_not_planned_may_be_parsed_by_other_rules(
    crawled: Settings, store: Store, database: Database
) -> None:
    loaded(crawled, store, database)

    check(of(crawled, "parse", languages=("de",)), store)


def test_a_new_blocklist_is_refused_for_planned_partitions(
    planned: Settings, store: Store, tmp_path: Path
) -> None:
    domains = tmp_path / "domains.txt"
    domains.write_text("blocked.example\n")

    with pytest.raises(SettingsError, match="other blocklists"):
        check(of(planned, "parse", blocked_domains=(str(domains),)), store)


def test_after_a_removal_the_same_run_again_is_fine_and_parses_nothing_again(
    planned: Settings, store: Store, database: Database
) -> None:
    """A removal takes its pairs out of finished files itself: the crawl need not be built anew."""
    before = {name: store.read(name) for name in store.list("pairs/")}
    request = Request({"domains": ("00112233445566aa",)}, frozenset({"0" * 32}))
    store.write(request.name, request.to_json())

    check(planned, store)
    loaded(planned, store, database)
    assert {name: store.read(name) for name in store.list("pairs/")} == before


@pytest.mark.parametrize(("change", "selection"), [({"languages": ("de",)}, ""), ({}, "0:1")])
def test_planned_pairs_are_not_parsed_over(
    planned: Settings, store: Store, database: Database, change: dict[str, Any], selection: str
) -> None:
    other = of(planned, "parse", **change)
    [first, *_] = partitions(CRAWL, other, parse_selection(selection) if selection else None)

    with pytest.raises(SettingsError, match="these rules differ from the planned ones"):
        check_parse(first, other, store)

    check_parse(partitions(CRAWL, planned)[0], planned, store)
    forget_crawl(CRAWL, other, store, database)
    check_parse(first, other, store)


def test_pairs_that_are_not_the_planned_ones_may_be_parsed_over(planned: Settings, store: Store) -> None:
    """As an older version left them, which parsed over planned pairs: to repair that it needs no new plan."""
    [first, *_] = partitions(CRAWL, planned)
    other = of(planned, "parse", min_alt_chars=50)
    parse_partition(CRAWL, first.number, first.indexed_wat_files, other, store)

    check_parse(first, planned, store)


def test_the_command_that_parses_refuses_to_parse_over_planned_pairs(
    planned: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(planned, store, monkeypatch)
    monkeypatch.setenv("LAION_ETL_PARSE_LANGUAGES", "de")
    before = {name: store.read(name) for name in store.list("pairs/")}

    ended = CliRunner().invoke(app, ["stage", "parse", "--crawl", CRAWL, "--partition", "0"])

    assert isinstance(ended.exception, SettingsError)
    assert {name: store.read(name) for name in store.list("pairs/")} == before


@pytest.mark.parametrize(
    ("detector", "asked", "hint"),
    [
        ("cld3", "xx", "it knows af, am, ar"),
        ("cld3", "english", "did you mean en?"),
        ("cld3", "EN", "did you mean en?"),
        ("cld3", "pt-BR", "did you mean pt?"),
        ("cld3", "he", "did you mean iw?"),
        ("cld3", "tl", "did you mean fil?"),
        ("cld3", "", "it knows af, am, ar"),
        ("py3langid", "he", "did you mean iw?"),
        ("py3langid", "xx", "it knows ace, af"),
        ("none", "en", "it knows no language at all"),
    ],
)
def test_languages_that_the_detector_does_not_know_are_refused(
    crawled: Settings, store: Store, detector: str, asked: str, hint: str
) -> None:
    settings = of(crawled, "parse", language_detector=detector, languages=("none", asked))

    with pytest.raises(SettingsError) as refused:
        check(settings, store)
    assert repr(asked) in str(refused.value)
    assert hint in str(refused.value)

    first = partitions(CRAWL, settings)[0]
    with pytest.raises(SettingsError):  # by hand, too, and nothing is written
        parse_partition(CRAWL, 0, first.indexed_wat_files[:1], settings, store)
    assert store.list("pairs/") == []


def test_known_languages_and_none_are_fine(crawled: Settings, store: Store) -> None:
    check(of(crawled, "parse", languages=("en", "iw", "fil", "none")), store)
    check(of(crawled, "parse", language_detector="py3langid", languages=("yue", "none")), store)
    check(of(crawled, "parse", language_detector="none", languages=("none",)), store)

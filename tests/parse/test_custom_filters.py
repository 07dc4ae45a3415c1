"""Custom filters: they keep or drop pairs, their drops are counted under their own reasons."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from laion_etl.cli.run_checks import check_run
from laion_etl.core.errors import SettingsError
from laion_etl.io.storage import Store
from laion_etl.parse.custom_filters import LinkFilter
from laion_etl.parse.file_counts import FileCounts
from laion_etl.parse.stage import parse_partition
from laion_etl.parse.wat_workers import FileParser
from laion_etl.settings import ParseSettings, Settings, load_settings
from tests.parse.wat_files import image, page_record, write_wat

PAGE = "https://www.example.org/x/"
HERE = __name__


def without_cars(settings: ParseSettings) -> LinkFilter:
    """A factory as LAION_ETL_PARSE_FILTERS names it; what it makes works on columns."""
    assert isinstance(settings, ParseSettings)
    return lambda pairs: pc.if_else(pc.match_substring(pairs["caption"], "car"), "shows_a_car", None)


def without_thumbnails(_: ParseSettings) -> LinkFilter:
    """One that works on rows."""
    return lambda pairs: ["thumbnail" if "/thumb/" in url else None for url in pairs["url"].to_pylist()]


def not_a_filter(_: ParseSettings) -> str:
    return "keep all"


@pytest.fixture
def wats(tmp_path: Path) -> list[tuple[int, str]]:
    links = [
        image("/red.jpg", "A red car on a green field"),
        image("/thumb/red.jpg", "A red car in a small picture"),
        image("/thumb/cat.jpg", "A cat in a small picture"),
        image("/cat.jpg", "A cat on a green field"),
        image("/short.jpg", "ab"),
    ]
    other = [image("/dog.jpg", "A dog on a green field"), image("/cat.jpg", "A cat on a green field")]
    return [
        (0, write_wat(tmp_path / "a.wat.gz", [page_record(PAGE, links)])),
        (1, write_wat(tmp_path / "b.wat.gz", [page_record(PAGE, other)])),
    ]


def with_filters(*names: str, jobs: int = 1) -> Settings:
    return Settings(parse=ParseSettings(filters=names, jobs=jobs))


def urls(store: Store) -> list[str]:
    with store.open("pairs/C/part-00000.parquet") as file:
        return [
            url.removeprefix("https://www.example.org/") for url in pq.read_table(file)["url"].to_pylist()
        ]


def test_the_first_filter_that_drops_a_pair_counts_it_under_its_own_reason(
    wats: list[tuple[int, str]], store: Store
) -> None:
    filters = with_filters(f"{HERE}:without_cars", f"{HERE}:without_thumbnails")
    stats = parse_partition("C", 0, wats, filters, store)
    assert urls(store) == ["cat.jpg", "dog.jpg"]
    assert stats.dropped == {
        "shows_a_car": 2,
        "alt_too_short": 1,
        "duplicate_in_partition": 1,
        "thumbnail": 1,
    }
    assert (stats.input, stats.kept) == (7, 2)
    assert stats.details["rules"]["filters"] == [f"{HERE}:without_cars", f"{HERE}:without_thumbnails"]


def test_several_processes_give_the_same_pairs_and_counts(wats: list[tuple[int, str]], store: Store) -> None:
    one = parse_partition("C", 0, wats, with_filters(f"{HERE}:without_cars"), store)
    store.delete("pairs/C/part-00000.json")
    two = parse_partition("C", 0, wats, with_filters(f"{HERE}:without_cars", jobs=2), store)
    assert two == one


def test_a_partition_is_parsed_again_when_the_filters_change(
    wats: list[tuple[int, str]], store: Store
) -> None:
    plain = parse_partition("C", 0, wats, with_filters(), store)
    filtered = parse_partition("C", 0, wats, with_filters(f"{HERE}:without_cars"), store)
    assert plain.fingerprint != filtered.fingerprint
    assert "cat.jpg" in urls(store)
    assert "red.jpg" not in urls(store)


@pytest.mark.parametrize("value", ["mine", "mine:", ":make", "mine make", "a:b,c"])
def test_a_malformed_name_is_refused_when_settings_are_loaded(value: str) -> None:
    with pytest.raises(SettingsError, match=r"LAION_ETL_PARSE_FILTERS.*is not module:factory"):
        load_settings({"LAION_ETL_PARSE_FILTERS": value})


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("no_such_module_here:make", "no_such_module_here"),
        (f"{HERE}:no_such_function", "has no function no_such_function"),
        (f"{HERE}:not_a_filter", "cannot be called"),
    ],
)
def test_a_factory_that_gives_no_filter_is_refused(name: str, cause: str) -> None:
    with pytest.raises(SettingsError, match=f"LAION_ETL_PARSE_FILTERS.*{cause}"):
        FileParser(with_filters(name))


def test_a_run_is_refused_before_it_works_when_a_filter_cannot_be_loaded(store: Store) -> None:
    with pytest.raises(SettingsError, match="no_such_module_here"):
        check_run("C", [], with_filters("no_such_module_here:make"), store)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ([None], "1 value for 4 pairs"),
        ([None] * 5, "5 values for 4 pairs"),
        ([None, "Too big!", None, None], "'Too big!' cannot be the name of a reason"),
        (["", None, None, None], "'' cannot be the name of a reason"),
        (["no_alt", None, None, None], "'no_alt' belongs to a built-in filter"),
        ([True, False, True, True], "does not hold reasons but bool"),
        (None, "does not hold reasons"),
        ([object()] * 4, "does not hold reasons"),
    ],
)
def test_an_answer_that_is_not_one_reason_or_none_per_pair_ends_the_stage(
    wats: list[tuple[int, str]], answer: Sequence[str | None], cause: str
) -> None:
    def wrong(_: pa.Table) -> Sequence[str | None]:
        return answer

    parser = FileParser(Settings(), filters=[wrong])
    with pytest.raises(SettingsError, match=f"cannot use the filter wrong: .*({cause}).*; return None or"):
        list(parser.pairs(0, wats[0][1], FileCounts()))


def test_counts_add_up_at_every_batch(wats: list[tuple[int, str]]) -> None:
    counts = FileCounts()
    parser = FileParser(Settings(), filters=[without_cars(ParseSettings())])
    for table in parser.pairs(0, wats[0][1], counts):
        assert counts.links.kept == table.num_rows == 2
        assert counts.input == 5
        assert sum(counts.dropped.values()) == 3

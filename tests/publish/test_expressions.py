import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import SettingsError
from laion_etl.core.schemas import DATASET_SCHEMA
from laion_etl.dataset import expressions
from laion_etl.dataset.expressions import Condition
from laion_etl.dataset.subsets import subsets
from laion_etl.io.storage import Store
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import PublishSettings, Settings, load_settings
from laion_etl.settings.publish import TAKEN_NAMES
from tests.publish.world import CRAWL, build_world, changed, write_world

ROW = {
    "SAMPLE_ID": 1, "URL": "https://a.example/x.jpg", "TEXT": "a red cat", "WIDTH": 70_000, "HEIGHT": 60_000,
    "LICENSE": "?", "LANGUAGE": "en", "NSFW": None, "similarity": 0.5, "hash": 7, "key": "00000000000001",
    "crawl": "C", "page_url": "https://a.example/",
}  # fmt: skip


def holds(expression: str, **values: object) -> bool:
    table = pa.Table.from_pylist([ROW | values], schema=DATASET_SCHEMA)
    [[found]] = [chunk.to_pylist() for chunk in Condition("own", expression).selects(table).chunks]
    return bool(found)


@pytest.mark.parametrize(
    "expression",
    [
        "TEXT ILIKE '%CAT%' AND similarity > 0.3",
        "WIDTH * HEIGHT > 4000000000",  # beyond 32 bits
        "text ~ 'r.d' and \"LANGUAGE\" not in ('de', 'fr')",
        "case when NSFW is null then similarity between 0.4 and 0.6 else false end -- a remark",
        "coalesce(aesthetic, 9) > 5",
    ],
)
def test_a_condition_is_plain_sql_over_the_columns(expression: str) -> None:
    assert holds(expression)


@pytest.mark.parametrize("expression", ["aesthetic > 1", "ln(punsafe) < 0", "cast(TEXT as integer) = 1"])
def test_an_undefined_result_counts_as_false(expression: str) -> None:
    assert not holds(expression, punsafe=-1.0)


@pytest.mark.parametrize(
    "expression",
    [
        "(select true)",
        "similarity > (select count(*) from read_csv('/etc/passwd'))",
        "exists (from read_text('/etc/passwd'))",
        "LANGUAGE in (select 'en')",
        "true from read_text('/etc/passwd')",
        "true union select true",
        "true where false",
        "true limit 1",
        "true as x",
        "true, true",
        "similarity > 0.3; drop table published_rows",
        "1) from read_csv('/etc/passwd'); --",
        "true /* never closed",
        "getenv('HOME') = 'x'",
        "length(read_text('/etc/passwd')) > 1",
        "length(repeat(TEXT, 1000000000)) > 1",
        "random() > 0.5",
        "now() > timestamp '2020-01-01'",
        "current_date is null",
        "count(*) > 1",
        "row_number() over () > 1",
        "COLUMNS('x')",
        "?",
        "x -> true",
        "published_rows.WIDTH > 1",
        "TEXT::json is null",
        "no_such_column > 1",
        "attach 'x'",
        "copy x to 'y'",
        "WIDTH",
        "",
        "not " * 900 + "true",
        "true or " * 1_000 + "true",
        "regexp_matches(TEXT, '(')",
        "similarity > 2 and TEXT similar to '['",
        "case when similarity > 2 then TEXT ~ '(' else true end",
        "WIDTH > 'wide'",
        "WIDTH > 300 or HEIGHT in (200, 'tall')",
        "TEXT like 'a!%' escape '!!'",
    ],
)
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(SettingsError, match="the SQL expression of subset 'own'"):
        Condition("own", expression)


def test_a_condition_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sixty patterns over six megabytes take a second, so a limit of a millisecond has long passed
    # before the end on any CPU: only a query that is never interrupted gets there.
    patterns = " or ".join(f"regexp_matches(TEXT, '(a?b?a?){{1,9}}{n}c')" for n in range(60))
    condition = Condition("own", patterns)
    row = pa.Table.from_pylist([ROW | {"TEXT": "a" * 200}], schema=DATASET_SCHEMA)
    assert not condition.selects(row)[0].as_py()
    monkeypatch.setattr(expressions, "_MAX_S", 0.001)
    with pytest.raises(SettingsError, match=r"subset 'own': it took over 0\.001 s for 30,000 rows"):
        condition.selects(pa.concat_tables([row] * 30_000).combine_chunks())


@pytest.mark.parametrize("name", ["laion-en", "report", "default", "../up", "Big", "", "a/b", "_x"])
def test_names_of_subsets_are_folders_of_their_own(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot use LAION_ETL_PUBLISH_SUBSETS="):
        PublishSettings(subsets=((name, "true"),))


def test_names_of_our_own_subsets_are_taken() -> None:
    ours = {subset.name for subset in subsets(PublishSettings())}
    assert ours <= TAKEN_NAMES


def test_a_subset_of_settings_has_files_counts_and_a_line_on_the_card(store: Store) -> None:
    toml = (
        "big-red = \"WIDTH >= 640 AND TEXT LIKE '%red%'\"\n"
        'none = """similarity > 5\nAND TEXT <> \'\n| a | b\'"""'
    )
    chosen = load_settings({"LAION_ETL_PUBLISH_SUBSETS": toml}).publish.subsets
    world = build_world()
    write_world(world, store)
    stats = publish_dataset(CRAWL, changed(Settings(), subsets=chosen), store)
    expected = [row["key"] for row in world.kept if row["original_width"] >= 640 and "red" in row["caption"]]
    table = pq.read_table(io.BytesIO(store.read(f"dataset/laion/{CRAWL}/big-red/part-00000.parquet")))
    assert table["key"].to_pylist() == expected != []
    assert stats.details["subsets"]["big-red"] == len(expected)
    assert stats.details["subsets"]["none"] == 0
    card = store.read(f"dataset/laion/{CRAWL}/README.md").decode()
    assert f"| big-red | {len(expected)} |" in card
    [line] = [line for line in card.splitlines() if line.startswith("| none | 0 |")]
    assert line.endswith("\\| a \\| b')) |"), "a rule is one cell of the table"


def test_a_wrong_expression_is_found_before_anything_is_written(store: Store) -> None:
    write_world(build_world(batches=1), store)
    with pytest.raises(SettingsError, match="no column TXT"):
        publish_dataset(CRAWL, changed(Settings(), subsets=(("own", "TXT = ''"),)), store)
    assert store.list("dataset") == []
    with pytest.raises(SettingsError, match="is not a table of strings"):
        load_settings({"LAION_ETL_PUBLISH_SUBSETS": "cats = 3"})

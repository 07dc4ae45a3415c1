import io

from rich.console import Console

from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.funnel_report import STAGES, crawl_funnel
from laion_etl.io.storage import Store
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, build_world, write_world


def test_units_add_up_and_every_stage_hands_on_what_it_kept(any_store: Store) -> None:
    world = build_world(batches=3, samples=20)
    write_world(world, any_store)
    publish_dataset(CRAWL, Settings(), any_store)
    funnel = crawl_funnel(any_store, CRAWL)
    assert [row.stage for row in funnel.rows] == list(STAGES)
    assert [row.units for row in funnel.rows] == [1, 1, 1, 3, 3, 1]
    assert funnel.problems == ()
    for row in funnel.rows:
        assert row.input == row.kept + sum(row.dropped.values())
    for before, after in zip(funnel.rows, funnel.rows[1:], strict=False):
        assert before.kept == after.input
    assert funnel.row("publish").kept == len(world.kept)
    assert funnel.row("download").dropped == {"http_error": 51, "timeout": 6, "opted_out_robots_tag": 3}
    assert funnel.records.dropped == {"not_a_page": 599, "broken_json": 1}


def test_a_crawl_in_progress_is_a_note(store: Store) -> None:
    world = build_world(batches=3, samples=20)
    write_world(world, store)
    for name in ("shards", "scored"):
        store.delete(f"{name}/{CRAWL}/000000002_stats.json")
    funnel = crawl_funnel(store, CRAWL)
    assert funnel.problems == ("40 kept by plan have not been through download yet",)
    assert not funnel.row("publish").started
    assert [row.stage for row in funnel.started_rows] == list(STAGES[:-1])


def test_more_input_than_was_kept_is_a_problem(store: Store) -> None:
    write_world(build_world(batches=1, samples=20), store)
    extra = StageStats("download", CRAWL, "000000009", "x", 10, 0, {"timeout": 10})
    store.write_stats(f"shards/{CRAWL}/000000009_stats.json", extra)
    [problem] = crawl_funnel(store, CRAWL).problems
    assert problem.startswith("download has 10 more than plan kept")


def test_files_of_other_crawls_and_other_files_are_not_counted(store: Store) -> None:
    write_world(build_world(batches=1, samples=20), store)
    before = crawl_funnel(store, CRAWL)
    other = StageStats("download", "CC-MAIN-2026-44", "000000000", "x", 1, 1)
    store.write_stats("shards/CC-MAIN-2026-44/000000000_stats.json", other)
    store.write_stats("dataset/laion/CC-MAIN-2026-44/_stats.json", other)
    store.write(f"pairs/{CRAWL}/part-00000.parquet", b"no stats")
    assert crawl_funnel(store, CRAWL) == before


def test_an_untouched_crawl_has_an_empty_funnel(store: Store) -> None:
    funnel = crawl_funnel(store, CRAWL)
    assert not funnel.started_rows
    assert funnel.problems == ()


def test_the_table_shows_stages_reasons_and_notes(store: Store) -> None:
    write_world(build_world(batches=1, samples=20), store)
    out = io.StringIO()
    Console(file=out, width=160).print(crawl_funnel(store, CRAWL).as_table())
    text = out.getvalue()
    assert f"Funnel of {CRAWL}" in text
    assert "no_alt 120, alt_too_short 40, url_extension 40, duplicate_in_partition 25" in text
    assert "│ publish  │     - │" in text

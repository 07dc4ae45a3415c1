"""The documents behind the pages: stages, grids, causes, single units, samples."""

from collections.abc import Container
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from laion_etl.alerts import Alert, Kind, Unit, deliver, resolve
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import partition_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.dashboard.grids import Cell, batch_grid, runs
from laion_etl.database.connection import open_database
from laion_etl.dataset.partition_stats import PartitionStats
from laion_etl.dataset.score_progress import GroupRecord, ScoreProgress
from laion_etl.io.storage import Store, open_store
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import Settings
from tests.dashboard.conftest import open_client
from tests.dashboard.test_app import ask
from tests.dashboard.world import ADVICE, FIRST_BATCH, HOSTILE, SENTENCE, write_thousands
from tests.publish.world import CRAWL, build_world, write_world


@pytest.fixture(scope="module")
def made(client: TestClient) -> Any:
    return ask(client, f"/api/crawl/{CRAWL}")


def test_every_partition_and_batch_is_a_cell(made: Any) -> None:
    assert made["partitions"]["numbers"] == [[0, 24]]
    assert made["partitions"]["states"] == 18 * "b" + "ll" + "g" + "ff" + "p"
    batches = made["batches"]
    assert batches["numbers"] == [[FIRST_BATCH, 40]]
    assert batches["states"] == "sss" + 20 * "d" + "f" + "r" + "x" + 14 * "."
    assert batches["depths"][:11] == "00112233444"
    assert batches["depths"][23:] == 17 * "-"


def test_the_bill_has_each_stage_with_its_cost_and_present_rate(made: Any) -> None:
    [download] = made["bill"]["stages"]
    assert (download["stage"], download["processes"], download["running"]) == ("download", 1, 1)
    assert download["cost"]["nat"] == 0.09
    assert made["bill"]["per_hour"] == download["per_hour"] == pytest.approx(2 * 0.0425 + 0.09)


def test_stages_count_what_failed_as_well(made: Any) -> None:
    stages = {
        stage["stage"]: (stage["done"], stage["of"], stage["running"], stage["failed"])
        for stage in made["status"]["stages"]
    }
    assert stages["parse"] == (22, None, 0, 2)
    assert stages["download"] == (23, 40, 2, 1)
    assert stages["score"] == (3, 23, 0, 0)
    rows = {row["stage"]: row for row in made["funnel"]["rows"]}
    assert rows["download"]["dropped"]["http_error"] == 20 * 90 + 3 * (40 - 5 - 2)
    assert made["funnel"]["meanings"]["download"]["http_error"].startswith(
        "The server answered with an error"
    )
    assert made["download_hours"] == pytest.approx(
        sum(30 + 7 * (n % 11) for n in range(23)) / 3_600, abs=0.01
    )


def test_failures_are_brought_together_by_cause(made: Any) -> None:
    causes = [
        (cause["stage"], cause["count"], sorted(unit["unit"] for unit in cause["units"]))
        for cause in made["causes"]
    ]
    assert causes == [
        ("parse", 2, ["partition 21", "partition 22"]),
        ("download", 1, [f"batch {FIRST_BATCH + 23}"]),
    ]
    assert made["causes"][1]["reason"] == HOSTILE  # as it is: the page makes a text of it
    assert {trouble["attempt"] for trouble in made["troubles"]} == {4}


def test_a_failure_is_dated_and_names_its_run_and_its_whole_cause(made: Any) -> None:
    parsed, downloaded = made["causes"]
    assert {unit["run"] for unit in parsed["units"]} == {"manual__1"}
    for cause in (parsed, downloaded):
        assert datetime.fromisoformat(cause["last_at"]).utcoffset() == timedelta()
        assert cause["last_at"] == max(unit["at"] for unit in cause["units"])
    assert parsed["reason"].endswith(ADVICE)
    assert len(parsed["reason"]) > 1_000


def test_only_what_is_broken_now_is_listed(store: Store, settings: Settings) -> None:
    """0 fails, then succeeds in a retry; 1 was parsed by an earlier run and fails with other rules."""
    settings = replace(settings, core=replace(settings.core, store=store.uri()))
    _write_parsed(store, 1)
    failed = Alert(Kind.FAILED, CRAWL, "backfill__1", "parse", "partition 0", "denied", 2)
    for unit in ("partition 0", "partition 1"):
        deliver(replace(failed, unit=unit), settings)
    with open_database(settings), open_client(settings) as client:
        before: Any = ask(client, f"/api/crawl/{CRAWL}")
    _write_parsed(store, 0)
    resolve(Unit(CRAWL, "backfill__1", "parse", "partition 0", 0), store)
    with open_client(settings) as client:
        after: Any = ask(client, f"/api/crawl/{CRAWL}")
    assert (before["partitions"]["states"], _parse_row(before)) == ("ff", (0, 2))
    assert (after["partitions"]["states"], _parse_row(after)) == ("pf", (1, 1))
    assert [unit["unit"] for cause in after["causes"] for unit in cause["units"]] == ["partition 1"]
    assert after["failed"] == {"parse": [[1, 1]]}


def _write_parsed(store: Store, number: int) -> None:
    name = partition_name(number)
    store.write_stats(
        f"pairs/{CRAWL}/{name}.json", StageStats("parse", CRAWL, name, "f", 9, 4, {"no_alt": 5})
    )


def _parse_row(made: Any) -> tuple[int, int]:
    row = made["status"]["stages"][0]
    return row["done"], row["failed"]


@pytest.mark.parametrize("crawl", [CRAWL, "CC-MAIN-2024-42"])
def test_a_failed_crawl_without_any_data_is_listed_as_failed(
    crawl: str, store: Store, settings: Settings
) -> None:
    settings = replace(settings, core=replace(settings.core, store=store.uri()))
    write_world(build_world(batches=1), store)
    discover = Alert(Kind.FAILED, crawl, "manual__1", "discover", "", "the crawl source is away", 3)
    deliver(discover, settings)
    deliver(replace(discover, crawl="new_crawls", stage="register"), settings)  # no crawl, and not listed
    with open_database(settings), open_client(settings) as client:
        rows: Any = ask(client, "/api/overview")["crawls"]
    states = {row["crawl"]: row["state"] for row in rows}
    assert states == {CRAWL: "scoring", crawl: "failed"}
    resolve(Unit(crawl, "manual__2", "discover", ""), store)
    with open_client(settings) as client:
        again: Any = ask(client, "/api/overview")["crawls"]
    assert [(row["crawl"], row["state"]) for row in again] == [(CRAWL, "scoring")]


def test_a_partition_shows_its_stages_and_how_to_run_it_by_hand(client: TestClient) -> None:
    found = client.get(f"/api/crawl/{CRAWL}/partition/7").json()
    assert [(stage["stage"], stage["input"], stage["kept"]) for stage in found["stages"]] == [
        ("parse", 9_000, 2_400),
        ("load", 2_400, 2_000),
    ]
    assert found["stages"][0]["dropped"] == {"no_alt": 5_000, "tracker": 1_600}
    assert found["stages"][0]["meanings"]["no_alt"] == "The image has no caption."
    assert found["commands"][0] == f"laion-etl stage parse --crawl {CRAWL} --partition 7"
    assert client.get(f"/api/crawl/{CRAWL}/partition/21").json()["stages"] == []


def test_a_batch_shows_its_worker_or_its_error(client: TestClient) -> None:
    held = dict(client.get(f"/api/crawl/{CRAWL}/batch/{FIRST_BATCH + 24}").json()["facts"])
    assert (held["state"], held["worker"]) == ("downloading", "worker:1:1")
    assert (
        dict(client.get(f"/api/crawl/{CRAWL}/batch/{FIRST_BATCH + 23}").json()["facts"])["error"] == HOSTILE
    )
    downloaded = dict(client.get(f"/api/crawl/{CRAWL}/batch/{FIRST_BATCH + 5}").json()["facts"])
    assert (downloaded["hosts"], downloaded["diagnosis"]) == (61, SENTENCE)
    scored = client.get(f"/api/crawl/{CRAWL}/batch/{FIRST_BATCH + 1}").json()
    assert [stage["stage"] for stage in scored["stages"]] == ["download", "score"]


def test_what_is_not_tagged_as_safe_is_neither_shown_nor_quoted(client: TestClient) -> None:
    sheet = ask(client, f"/api/crawl/{CRAWL}/samples")
    samples = [
        (band["title"], sample)
        for side in ("kept", "rejected")
        for band in sheet[side]  # type: ignore[attr-defined]
        for sample in band["samples"]
    ]
    hidden = [sample for _, sample in samples if sample["withheld"]]
    assert {sample["withheld"] for sample in hidden} >= {"tagged NSFW", "tagged UNSURE", "suspected underage"}
    assert {sample["caption"] for sample in hidden} == {""}
    for _, sample in samples:
        answer = client.get(f"/api/crawl/{CRAWL}/samples/{sample['key']}.webp")
        assert answer.status_code == (404 if sample["withheld"] else 200)
        if answer.status_code == 200:
            assert answer.content[8:12] == b"WEBP"
    assert any(title == "low similarity" for title, _ in samples)


def test_a_published_crawl_is_shown_as_published(store: Store, settings: Settings) -> None:
    write_world(build_world(batches=1), store)
    settings = replace(settings, core=replace(settings.core, store=store.uri()))
    published = publish_dataset(CRAWL, settings, store)
    with open_database(settings), open_client(settings) as client:
        (row,) = ask(client, "/api/overview")["crawls"]  # type: ignore[misc]
        made: Any = ask(client, f"/api/crawl/{CRAWL}")
    assert (row["crawl"], row["state"], row["dataset"]) == (CRAWL, "published", "laion")
    assert made["status"]["stages"][-1]["done"] == 1
    assert made["funnel"]["rows"][-1]["kept"] == published.kept > 0


def test_stats_of_partitions_are_read_once_and_again_when_they_change(any_store: Store) -> None:
    def write(number: int, kept: int) -> None:
        stats = StageStats("parse", "C", f"part-{number:05d}", "f", 10, kept, {"no_alt": 10 - kept})
        any_store.write_stats(f"pairs/C/part-{number:05d}.json", stats)

    for number in range(3):
        write(number, 5)
    any_store.write("pairs/C/part-00000.parquet", b"no stats")
    cache = PartitionStats("pairs/C")

    def kept(known: Container[int] = ()) -> dict[int, int]:
        numbers, stats = cache.numbers_and_stats(any_store, known)
        assert numbers == sorted({*stats, *(n for n in range(4) if n in known)})
        return {number: one.kept for number, one in stats.items()}

    assert kept() == {0: 5, 1: 5, 2: 5}
    assert (cache.read, cache.of) == (3, 3)
    write(1, 6)
    any_store.delete("pairs/C/part-00002.json")
    any_store.write("pairs/C/part-00003.json", b"{")
    assert kept() == {0: 5, 1: 6}
    assert cache.of == 2
    assert len(cache.broken) == 1
    assert "part-00003.json: not a stats file" in cache.broken[0]
    assert kept(known={1, 3}) == {0: 5}  # Postgres has the others
    assert (cache.of, cache.broken) == (0, ())


def test_runs_and_depths() -> None:
    rows = [(100_000 + n, "downloaded", False, float(n % 97)) for n in range(1_000)]
    grid = batch_grid(rows, ScoreProgress(runs=((100_001, 2, 500),)))
    assert grid.states == 500 * (Cell.DOWNLOADED.value + Cell.SCORED.value)
    assert set(grid.depths) == set("01234")
    assert runs([3, 4, 5, 9]) == [(3, 3), (9, 1)]


def test_of_many_batches_a_cell_is_a_thousand(settings: Settings, store: Store) -> None:
    """Batches 500 to 2,999 of CRAWL: some are done, held, silent or parked, every second one is scored."""
    settings = replace(settings, core=replace(settings.core, store=store.uri()))
    with open_database(settings) as database:
        database.run(write_thousands)
    record = GroupRecord(CRAWL, "0/2", 1_250, store)
    record.begin()
    for number in range(500, 1_700, 2):
        record.add(StageStats("score", CRAWL, batch_name(number), "f", 10, 7, {"low_similarity": 3}))
    record.finish()
    with open_client(settings) as client:
        made: Any = ask(client, f"/api/crawl/{CRAWL}")
        page: Any = client.get(f"/api/crawl/{CRAWL}/thousand/1").json()
        none: Any = client.get(f"/api/crawl/{CRAWL}/thousand/9").json()
    assert made["batches"]["states"] == ""
    names = ("thousand", "first", "last", "batches", "done", "failed", "held", "silent", "scored")
    assert [tuple(cell[name] for name in names) for cell in made["thousands"]] == [
        (0, 500, 999, 500, 500, 0, 0, 0, 250),
        (1, 1_000, 1_999, 1_000, 700, 3, 2, 1, 350),
        (2, 2_000, 2_999, 1_000, 0, 0, 0, 0, 0),
    ]
    assert page["numbers"] == [[1_000, 1_000]]
    assert page["states"] == 350 * "sd" + "fff" + "rx" + 295 * "."
    assert none["states"] == ""
    (cause,) = made["causes"]
    assert (cause["count"], [unit["unit"] for unit in cause["units"]]) == (
        3,
        ["batch 1700", "batch 1701", "batch 1702"],
    )
    stages = {stage["stage"]: (stage["done"], stage["of"]) for stage in made["status"]["stages"]}
    assert (stages["download"], stages["score"]) == ((1_200, 2_500), (600, 1_200))
    assert made["funnel"]["rows"][4]["dropped"] == {"low_similarity": 1_800}


def test_folders_and_etags_of_a_store(any_store: Store, crawl_settings: Settings) -> None:
    any_store.write("dataset/mini/1/_stats.json", b"1")
    any_store.write("dataset/more/part.parquet", b"1")
    assert any_store.folders("dataset") == ["mini", "more"]
    assert any_store.folders("nothing") == []
    before = any_store.etags("dataset", "_stats.json")
    any_store.write("dataset/mini/1/_stats.json", b"2")
    after = any_store.etags("dataset", "_stats.json")
    assert list(before) == list(after) == ["dataset/mini/1/_stats.json"]
    assert before != after
    assert open_store(crawl_settings.store_uri).etags("nothing", ".json") == {}

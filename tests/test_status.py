import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue
from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.io.storage import Store
from laion_etl.plan.stage import plan_batches, plan_range, prepare_plan
from laion_etl.report.crawl_status import CrawlStatus, all_crawls, crawl_status, duration
from laion_etl.settings import PlanSettings, Settings
from tests.database.pairs import batch_no, numbered_pairs, write_pairs
from tests.test_cli import laion_etl


@pytest.fixture
def at_work(store: Store, settings: Settings, database: Database) -> CrawlStatus:
    """Two of three partitions are loaded; of ten batches four are done, one failed, one leased, one lost."""
    for partition in range(3):
        write_pairs(store, "C", partition, numbered_pairs(partition * 50, partition * 50 + 50))
    for partition in range(2):
        load_partition("C", partition, settings, store, database)
    plan_batches("C", replace(settings, plan=PlanSettings(batch_size=10)), store, database)
    queue = BatchQueue(database, crawl_number(database.connection, "C"), lease_s=600, max_attempts=1)
    for number in range(4):
        claim = queue.claim()
        assert claim is not None
        queue.complete(claim, StageStats("download", "C", str(number), "f", 10, 7, {"dead": 3}))
    failing, lost, held = (queue.claim() for _ in range(3))
    assert failing
    assert lost
    assert held
    queue.fail(failing, "no space in \x1b[2J[bold]the worker's[/] folder")
    with database.connection.transaction():  # in which now() stands still
        database.connection.execute(
            "update batch set downloaded_at = now(), download_ms = 360000 where state = 'downloaded'"
        )
        database.connection.execute(
            "update batch set claimed_at = now() - interval '3 minutes', "
            "lease_expires = now() - interval '2 minutes' where batch = %s",
            [lost.batch],
        )
        return crawl_status("C", crawl_funnel(store, "C"), database)


def test_the_numbers(at_work: CrawlStatus) -> None:
    queue = at_work.queue
    assert (at_work.load.partitions, at_work.load.planned, at_work.load.pairs_kept) == (2, 2, 100)
    assert (queue.batches, queue.ready, queue.leased, queue.silent) == (10, 3, 2, 1)
    assert (queue.done, queue.failed, queue.images) == (4, 1, 28)
    assert (queue.pairs, queue.pairs_done, queue.pairs_left) == (100, 40, 50)
    assert queue.pairs_per_hour == pytest.approx(400)  # 40 pairs in 6 minutes
    assert queue.left_s == pytest.approx(50 / 400 * 3600)
    assert queue.oldest_lease_s == pytest.approx(180)
    progress = {stage.stage: (stage.done, stage.of, stage.running, stage.failed) for stage in at_work.stages}
    assert progress == {
        "parse": (3, None, 0, 0),
        "load": (2, 3, 0, 0),
        "plan": (2, 2, 0, 0),
        "download": (4, 10, 2, 1),
        "score": (0, 4, 0, 0),
        "publish": (0, 1, 0, 0),
    }


def printed(status: object) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(status)
    return " ".join(console.export_text().split())


def test_what_is_printed(at_work: CrawlStatus, database: Database) -> None:
    text = printed(at_work.as_table())
    assert f"oldest lease: batch {batch_no(5)}, attempt 1, held for 3 min" in text.replace("180 s", "3 min")
    assert "silent for 120 s too long" in text.replace("2 min", "120 s")
    assert f"batch {batch_no(4)} failed after 1 attempt: no space in" in text
    assert "[bold]the worker's[/] folder" in text  # verbatim: no markup, no control codes
    assert "\x1b" not in text
    overview = printed(all_crawls(database))
    assert "C " in overview
    assert "4/10" in overview


def test_plain_values_are_json(at_work: CrawlStatus) -> None:
    plain = json.loads(json.dumps(at_work.to_plain()))
    assert plain["queue"]["done"] == 4
    assert plain["failures"][0]["batch"] == batch_no(4)


def test_a_crawl_that_is_not_loaded(store: Store, database: Database) -> None:
    status = crawl_status("NONE", crawl_funnel(store, "NONE"), database)
    assert (status.load.partitions, status.queue.batches) == (0, 0)
    assert "Work on NONE" in printed(status.as_table())
    assert "nothing of NONE is done yet" in " ".join(printed(status.as_table()).split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h 0 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_command(tmp_path: Path, settings: Settings, store: Store, at_work: CrawlStatus) -> None:
    connected = {"DATABASE_URL": settings.core.database_url, "STORE": str(tmp_path / "store")}
    one = laion_etl(tmp_path, "status", "--crawl", "C", "--json", **connected)
    assert one.returncode == 0, one.stderr
    assert json.loads(one.stdout.splitlines()[-1])["queue"]["done"] == 4
    every = laion_etl(tmp_path, "status", "--json", **connected)
    assert every.returncode == 0, every.stderr
    assert "Crawls in Postgres" in every.stderr
    (crawl,) = json.loads(every.stdout.splitlines()[-1])["crawls"]
    assert (crawl["crawl"], crawl["queue"]["batches"]) == ("C", 10)
    elsewhere = connected | {"STORE": str(tmp_path / "none")}
    assert laion_etl(tmp_path, "status", "--crawl", "C", **elsewhere).returncode == 0
    assert not (tmp_path / "none").exists()  # it only reads: a store that cannot be written will do


def test_a_plan_at_work_shows_its_windows(store: Store, settings: Settings, database: Database) -> None:
    write_pairs(store, "C", 0, numbered_pairs(0, 60))
    load_partition("C", 0, settings, store, database)
    small = replace(
        settings,
        plan=PlanSettings(batch_size=5, window_pairs=10),
        airflow=replace(settings.airflow, plan_ranges=3),
    )
    prepare_plan("C", small, store, database)
    plan_range("C", 1, 3, small, store, database)
    at_work = crawl_status("C", crawl_funnel(store, "C"), database)
    assert "plan: 2 of 6 windows of new pairs are done" in printed(at_work.as_table())
    assert at_work.to_plain()["plan_windows"] == {"done": 2, "of": 6}
    plan_batches("C", small, store, database)
    assert "windows" not in printed(crawl_status("C", crawl_funnel(store, "C"), database).as_table())

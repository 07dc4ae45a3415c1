"""The examples in docs/how-to/alerts.md match the alerts: generated here, and compared with the chapter."""

import re
from pathlib import Path
from textwrap import indent

import pytest

from laion_etl.alerts import Alert, Kind, RunEnd, deliver, run_digest
from laion_etl.alerts.alert import PAGES
from laion_etl.settings import CoreSettings, Settings
from tests.documented_commands import ROOT, blocks

CHAPTER = ROOT / "docs" / "how-to" / "alerts.md"
CRAWL = "CC-MAIN-2024-38"
RUN = f"backfill__2024-09-16T00:00:00+00:00__{CRAWL}__1f3a"
RUN_URL = f"https://airflow.example.org/dags/crawl_{CRAWL}/runs/backfill__2024-09-16..."
VERSION = f"dataset/laion/{CRAWL}"

FAILED = Alert(
    Kind.FAILED,
    CRAWL,
    RUN,
    "parse",
    "partition 17",
    "cannot read s3://commoncrawl/...: access denied (laion-etl stage parse ended with exit code 1)",
    attempt=4,
    log_url=f"{RUN_URL}/tasks/partition.parse/mapped/17?try_number=4",
    command=f"LAION_ETL_PARSE_LANGUAGES=en laion-etl stage parse --crawl {CRAWL} --partition 17",
    task="partition.parse_17",
    run_url=RUN_URL,
)
WRONG_SETTING = Alert(
    Kind.FAILED,
    CRAWL,
    RUN,
    "score",
    "worker 0",
    "LAION_ETL_CLIP_DEVICE: cuda:3 is not there (laion-etl stage score ended with exit code 2)",
    attempt=1,
    log_url=f"{RUN_URL}/tasks/score/mapped/0?try_number=1",
    command=f"laion-etl stage score --crawl {CRAWL}",
    task="score_0",
    run_url=RUN_URL,
    retry_helps=False,
)
LATE = Alert(
    Kind.LATE,
    CRAWL,
    RUN,
    "download",
    "worker 3",
    "still at work after 7 days; Airflow ends it after 14 days",
    log_url=f"{RUN_URL}/tasks/download/mapped/3?try_number=1",
    task="download_3",
    run_url=RUN_URL,
)
RUN_LATE = Alert(
    Kind.RUN_LATE, CRAWL, RUN, reason="the run is not done 21 days after its start", run_url=RUN_URL
)


def digest(folder: Path) -> Alert:
    """The digest of a run with failed partition 17, a late download worker and a recovered score worker."""
    settings = Settings(core=CoreSettings(store=str(folder)))
    for alert in (FAILED, WRONG_SETTING, LATE):
        deliver(alert, settings)
    states = {f"partition.{stage}_{n}": "success" for stage in ("parse", "load") for n in range(900)}
    states |= {"partition.parse_17": "failed", "partition.load_17": "upstream_failed"}
    states |= dict.fromkeys(("estimate", "discover", "plan", "shards", "publish"), "success")
    states |= {f"download_{n}": "success" for n in range(4)} | {"score_0": "success", "score_1": "success"}
    published = {
        "rows": 148_302_117,
        "version": f"laion/{CRAWL}",
        "dataset": f"s3://bucket/{VERSION}",
        "report": f"s3://bucket/{VERSION}/report/index.html",
    }
    return run_digest(RunEnd(CRAWL, RUN, states, RUN_URL, published), settings)


@pytest.mark.parametrize("alert", [FAILED, WRONG_SETTING, LATE, RUN_LATE], ids=lambda alert: alert.kind)
def test_the_chapter_shows_the_alert_as_it_is(alert: Alert) -> None:
    assert indent(alert.text, "    ") in CHAPTER.read_text()


def test_the_pages_that_alerts_name_have_causes_and_commands() -> None:
    for page in {*PAGES.values(), LATE.page, RUN_LATE.page}:
        assert "## What can go wrong" in (ROOT / page).read_text(), page
        assert any(block.commands for block in blocks(ROOT / page)), page


def test_every_task_that_does_work_has_a_page() -> None:
    tasks = re.findall(r"(?m)^\| `(?:\w+\.)?(\w+)` \| [A-Z]", (ROOT / "docs" / "dags.md").read_text())
    assert set(tasks) - PAGES.keys() == {"workers", "score_workers", "shards", "verdict", "digest"}
    assert PAGES.keys() <= set(tasks)


def test_the_chapter_shows_the_digest_as_it_is(tmp_path: Path) -> None:
    assert indent(digest(tmp_path).text, "    ") in CHAPTER.read_text()

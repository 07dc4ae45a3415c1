"""A run is checked before any work, by the form or by its first task, at once and without retries."""

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import ROOT, Airflow
from tests.preloaded_commands import forked_commands
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.airflow

CRAWL = "CC-MAIN-2024-38"
DAG_ID = f"crawl_{CRAWL}"
DATASET = 'Asset("laion_dataset", uri="x-laion-etl://dataset")'


def list_wat_files(source: Path, count: int) -> None:
    """A crawl source that lists many WAT files, which are never read here."""
    folder = source / "crawl-data" / CRAWL
    folder.mkdir(parents=True, exist_ok=True)
    paths = "".join(f"crawl-data/{CRAWL}/{number}.wat.gz\n" for number in range(count))
    (folder / "wat.paths.gz").write_bytes(gzip.compress(paths.encode()))


@pytest.fixture
def crawled(migrated_airflow: Airflow, tmp_path: Path, shared: SharedFolder) -> Iterator[Airflow]:
    """Airflow with a crawl of two WAT files."""
    list_wat_files(tmp_path / "source", 2)
    own = {
        "LAION_ETL_CRAWL_SOURCE": str(tmp_path / "source"),
        "LAION_ETL_DATA_DIR": str(tmp_path / "data"),
        "LAION_ETL_STORE": str(tmp_path / "store"),
        **forked_commands(shared, migrated_airflow.environment, tmp_path),
    }
    yield migrated_airflow.with_settings(**own)
    migrated_airflow.forget_runs()


def manual(number: int, conf: dict[str, Any]) -> dict[str, Any]:
    day = f"2026-11-0{number}T00:00:00+00:00"
    return {"dag": DAG_ID, "type": "manual", "run_after": day, "began": day, "conf": conf}


def test_discover_refuses_what_no_form_can_and_nothing_else_runs(crawled: Airflow, tmp_path: Path) -> None:
    """The default of three retries is in force: a task that failed at its first try was not retried."""
    outcomes, log = crawled.run_dags(
        manual(1, {"wat_file": "0:1"}),
        manual(2, {"languages": "xx"}),
        manual(3, {"wat_files": "7:9"}),
        manual(4, {"wat_files": "1", "sample": 2}),
        manual(5, {"dry_run": True, "download_worker": 3}),
    )

    for outcome in outcomes[:4]:
        assert (outcome["state"], outcome["tasks"]["discover"]) == ("failed", ["failed", 1])
        worked = {name for name, (state, _) in outcome["tasks"].items() if state == "success"}
        assert worked <= {"estimate", "digest"}
    assert outcomes[4]["tasks"]["estimate"] == ["failed", 1]
    assert "'wat_file' in its configuration is not a parameter; did you mean wat_files?" in log
    assert "cannot keep captions in the language 'xx': the detector cld3 does not know it" in log
    assert f"cannot work on {CRAWL}: --wat-files 7:9 selects no WAT files" in log
    assert "--wat-files 1 selects no WAT files when only every 2-th is taken" in log
    assert "'download_worker' in its configuration is not a parameter; did you mean download_workers?" in log
    assert not list((tmp_path / "store").glob("pairs/**/*"))


def test_more_partitions_than_airflow_maps_are_refused_with_the_setting_to_raise(
    crawled: Airflow, tmp_path: Path
) -> None:
    list_wat_files(tmp_path / "source", 1025)

    [outcome], log = crawled.run_dags(manual(1, {}), LAION_ETL_WAT_FILES_PER_PARTITION="1")

    assert outcome["tasks"]["discover"] == ["failed", 1]
    assert "cannot map 1,025 partitions of" in log
    assert "raise LAION_ETL_WAT_FILES_PER_PARTITION" in log


REFUSED = {
    "wat_files": ("range of WAT files such as 0:2", ["5:2", "3:3", "x", "0-2", ":", " ", "1" * 5000]),
    "languages": ("list of language codes such as en,de,none", ["english", "en de", "en,", "../x"]),
    "store_prefix": (
        "folder such as trials/first",
        ["../x", "/etc", "a//b", "a/../b", "s3://b/x", ".git"],
    ),
}


def test_the_form_refuses_wrong_entries_in_words(crawled: Airflow) -> None:
    """By the REST API, which the form sends its entries to."""
    cases = [(param, entry, name) for param, (name, entries) in REFUSED.items() for entry in entries]
    path = f"dags/{DAG_ID}/dagRuns"
    answers = crawled.rest(
        *(("POST", path, {"logical_date": None, "conf": {param: entry}}) for param, entry, _ in cases)
    )

    for (param, entry, name), (status, answer) in zip(cases, answers, strict=True):
        assert status == 400, (param, entry)
        assert f"{entry!r} is not a '{name}" in str(answer["detail"])
    assert crawled.sql("select run_id from dag_run where dag_id = %s", DAG_ID) == []


def test_the_form_takes_its_defaults_empty_fields_and_right_entries(crawled: Airflow) -> None:
    right = [
        {},
        {"wat_files": None, "languages": None, "store_prefix": None},
        {"wat_files": "", "languages": "", "store_prefix": ""},
        {"wat_files": "0:2", "languages": "en,none", "store_prefix": "trials/first"},
        {"wat_files": "7", "languages": "eng_Latn"},
        {"wat_files": "10:"},
        {"wat_files": ":2"},
    ]
    path = f"dags/{DAG_ID}/dagRuns"
    answers = crawled.rest(*(("POST", path, {"logical_date": None, "conf": conf}) for conf in right))

    assert [status for status, _ in answers] == [200] * len(right)


def test_a_run_made_without_a_key_counts_for_a_backfill_of_what_is_missing(crawled: Airflow) -> None:
    [(status, made)] = crawled.rest(("POST", f"dags/{DAG_ID}/dagRuns", {"logical_date": None}))
    assert (status, made["partition_date"]) == (200, "2024-09-16T00:00:00Z")
    crawled.sql("update dag_run set state = 'success' where dag_id = %s returning 1", DAG_ID)

    dates = ("--from-date", "2024-09-01", "--to-date", "2024-09-30")
    crawled.cli("backfill", "create", "--dag-id", DAG_ID, *dates, "--reprocess-behavior", "none")

    runs = crawled.sql("select run_id from dag_run where dag_id = %s", DAG_ID)
    assert runs == [(made["dag_run_id"],)]


def test_a_dag_of_ones_own_is_started_by_the_asset_that_the_docs_name(
    crawled: Airflow, tmp_path: Path
) -> None:
    assert f"schedule={DATASET}" in (ROOT / "docs" / "how-to" / "own-dags.md").read_text()
    folder = tmp_path / "dags"
    shutil.copytree(ROOT / "dags", folder)
    mine = f"mine = DAG('mine', schedule={DATASET}, is_paused_upon_creation=False)"
    (folder / "mine.py").write_text(f"from airflow.sdk import DAG, Asset\n{mine}\n")
    airflow = crawled.with_settings(AIRFLOW__CORE__DAGS_FOLDER=str(folder))
    airflow.cli("dags", "reserialize")
    try:
        [(_, assets)] = airflow.rest(("GET", "assets?uri_pattern=x-laion-etl://dataset", None))
        [asset] = assets["assets"]
        assert [dag["dag_id"] for dag in asset["scheduled_dags"]] == ["mine"]
        assert {task["task_id"] for task in asset["producing_tasks"]} == {"publish", "publish_finish"}
        [(status, _)] = airflow.rest(("POST", "assets/events", {"asset_id": asset["id"]}))
        assert status == 200
        assert airflow.sql("select target_dag_id from asset_dag_run_queue") == [("mine",)]
    finally:
        airflow.cli("dags", "delete", "mine", "--yes")

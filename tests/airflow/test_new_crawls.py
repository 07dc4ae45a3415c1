"""The monthly DAG: what it registers and starts by hand, by schedule and by backfill.

Runs go through their real tasks: `register` reads an index of the test's own, and `start` creates runs that
are checked in Airflow's database.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import Airflow
from tests.preloaded_commands import forked_commands
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.airflow

OLDER, NEWER, NEWEST = "CC-MAIN-2024-38", "CC-MAIN-2024-42", "CC-MAIN-2024-46"
RELEASED = {OLDER: "2024-09-16", NEWER: "2024-10-14", NEWEST: "2024-11-11"}
OCTOBER = ["2024-10-01T00:00:00+00:00", "2024-11-01T00:00:00+00:00"]
NOVEMBER = ["2024-11-01T00:00:00+00:00", "2024-12-01T00:00:00+00:00"]


@pytest.fixture
def monthly(migrated_airflow: Airflow, tmp_path: Path, shared: SharedFolder) -> Iterator[Airflow]:
    """Airflow with an index of three crawls, without any runs, and DAGs in their initial state."""
    index = tmp_path / "collinfo.json"
    index.write_text(json.dumps([{"id": crawl, "name": crawl} for crawl in RELEASED]))
    own = {
        "LAION_ETL_COLLINFO": str(index),
        "LAION_ETL_DATA_DIR": str(tmp_path / "data"),
        **forked_commands(shared, migrated_airflow.environment, tmp_path),
    }
    airflow = migrated_airflow.with_settings(**own)
    clean(airflow)
    yield airflow
    clean(airflow)


def clean(airflow: Airflow) -> None:
    airflow.forget_runs()
    airflow.sql("update dag set is_paused = (dag_id = 'new_crawls') returning 1")


def run_of(kind: str, interval: list[str], began: str, **more: object) -> dict[str, Any]:
    return {
        "dag": "new_crawls",
        "type": kind,
        "interval": interval,
        "run_after": interval[1],
        "began": began,
        **more,
    }


def started(airflow: Airflow) -> dict[str, Any]:
    """Crawls whose DAGs have a run, with its conf."""
    rows = airflow.sql(
        "select dag_id, conf::text, run_type from dag_run where dag_id like 'crawl_%%' order by dag_id"
    )
    assert {kind for *_, kind in rows} <= {"operator_triggered"}
    return {dag.removeprefix("crawl_"): json.loads(conf) for dag, conf, _ in rows}


def test_a_backfill_starts_the_crawls_released_in_its_months(monthly: Airflow) -> None:
    """Runs made by `airflow backfill create`, as an operator makes them."""
    dates = ("--from-date", "2024-09-01", "--to-date", "2024-10-31")
    monthly.cli("backfill", "create", "--dag-id", "new_crawls", *dates)
    made = monthly.sql(
        "select run_id, run_type from dag_run where dag_id = 'new_crawls' order by logical_date"
    )
    assert [kind for _, kind in made] == ["backfill", "backfill"]

    began = "2026-11-29T00:00:00+00:00"

    outcomes, _ = monthly.run_dags(
        *({"dag": "new_crawls", "run_id": run_id, "began": began} for run_id, _ in made)
    )

    assert [outcome["state"] for outcome in outcomes] == ["success", "success"]
    started_by = monthly.sql("select dag_id, run_id from dag_run where dag_id like 'crawl%%' order by id")
    (september, _), (october, _) = made
    assert started_by == [
        (f"crawl_{OLDER}", f"{september}__{OLDER}"),
        (f"crawl_{NEWER}", f"{october}__{NEWER}"),
    ]


def test_a_scheduled_run_on_its_date_starts_the_newest_crawl_that_never_ran(monthly: Airflow) -> None:
    [first, second], _ = monthly.run_dags(
        run_of("scheduled", NOVEMBER, "2024-12-01T00:00:05+00:00", conf={"wat_files": "0:1"}),
        run_of("manual", ["2024-12-01T00:00:00+00:00"] * 2, "2024-12-01T00:00:00+00:00"),
    )

    assert (first["state"], second["state"]) == ("success", "success")
    assert started(monthly) == {NEWEST: {"wat_files": "0:1"}, NEWER: {"wat_files": None}}


def test_turning_the_dag_on_starts_nothing_and_says_what_it_would_have_started(monthly: Airflow) -> None:
    """Airflow makes the run of the month that has ended as soon as the DAG is unpaused."""
    [late, by_hand], log = monthly.run_dags(
        run_of("scheduled", NOVEMBER, "2024-12-20T10:00:00+00:00"),
        run_of("manual", OCTOBER, "2024-12-20T10:00:00+00:00"),
    )

    assert late["tasks"]["choose"] == ["skipped", 1]
    assert "started nothing: this run was due on 2024-12-01, 19 days before it began" in log
    assert f"It would have started {NEWEST}; to start that now, trigger this DAG" in log
    assert by_hand["state"] == "success"
    assert list(started(monthly)) == [NEWEST]


def test_a_paused_crawl_fails_the_run_at_once_with_the_command_that_unpauses_it(monthly: Airflow) -> None:
    monthly.cli("dags", "pause", f"crawl_{NEWEST}", "--yes")

    [outcome], log = monthly.run_dags(run_of("scheduled", NOVEMBER, "2024-12-01T00:00:05+00:00"))

    assert (outcome["state"], outcome["tasks"]["start[0]"]) == ("failed", ["failed", 1])
    assert f"cannot start crawl_{NEWEST}: the DAG is paused" in log
    assert f"airflow dags unpause crawl_{NEWEST}" in log
    assert started(monthly) == {}


def test_crawls_are_ready_to_be_started_and_the_monthly_dag_waits_to_be_turned_on(
    migrated_airflow: Airflow,
) -> None:
    """Whatever Airflow's default for new DAGs is: a crawl's DAG starts nothing on its own."""
    paused = migrated_airflow.sql("select dag_id from dag where is_paused")
    assert paused == [("new_crawls",)]


def test_forms_make_runs_of_months_and_of_crawls(monthly: Airflow) -> None:
    """By the REST API, as the UI does it, with the parameters' defaults."""
    months = {"dag_id": "new_crawls", "from_date": "2023-02-01T00:00:00Z", "to_date": "2023-03-01T00:00:00Z"}
    crawl = {**months, "dag_id": f"crawl_{NEWER}", "to_date": "2024-12-01T00:00:00Z"}
    answers = monthly.rest(("POST", "backfills", months), ("POST", "backfills", crawl))

    assert [status for status, _ in answers] == [200, 200]
    made = monthly.sql("select dag_id, to_char(coalesce(logical_date, partition_date) at time zone 'UTC',"
                       " 'YYYY-MM-DD') from dag_run where run_type = 'backfill' order by 1, 2")  # fmt: skip
    assert made == [
        (f"crawl_{NEWER}", "2024-10-14"),
        ("new_crawls", "2023-02-01"),
        ("new_crawls", "2023-03-01"),
    ]


def test_the_command_registers_what_the_index_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from laion_etl.cli import app

    index = tmp_path / "collinfo.json"
    index.write_text(json.dumps([{"id": "CC-MAIN-2031-05", "name": "January 2031"}]))
    monkeypatch.setenv("LAION_ETL_COLLINFO", str(index))
    monkeypatch.setenv("LAION_ETL_DATA_DIR", str(tmp_path / "data"))
    shown = CliRunner().invoke(app, ["crawl", "list", "--refresh", "--register", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output.splitlines()[-1])["crawls"][0]["id"] == "CC-MAIN-2031-05"
    assert "new: CC-MAIN-2031-05 (January 2031)" in shown.output
    again = CliRunner().invoke(app, ["crawl", "list", "--refresh", "--register"])
    assert "new:" not in again.output
    assert "CC-MAIN-2031-05" in CliRunner().invoke(app, ["crawl", "list"]).output

"""The monthly DAG: what it registers and starts, by hand, by schedule and by backfill."""

import json
from pathlib import Path

import psycopg
import pytest

from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

FOUND = [
    {"id": "CC-MAIN-2024-42", "released": "2024-10-14"},
    {"id": "CC-MAIN-2024-38", "released": "2024-09-16"},
]

CHOOSE = """
import json, sys
from datetime import datetime
from types import SimpleNamespace
import new_crawls
kind, first, end, after, most, already = json.loads(sys.argv[1])
day = lambda text: datetime.fromisoformat(text) if text else None
new_crawls.get_current_context = lambda: {
    "dag_run": SimpleNamespace(
        run_type=kind,
        run_id="RUN",
        data_interval_start=day(first),
        data_interval_end=day(end),
        run_after=day(after),
    ),
    "params": {"most": most, "wat_files": "0:2"},
    "ti": SimpleNamespace(get_dr_count=lambda dag_id: int(dag_id in already)),
}
dumps = json.loads(sys.argv[2])
print(json.dumps(new_crawls.choose.function(dumps)))
"""

RUN = """
import json, sys
import laion_stage
import pendulum
commands = []
def stand_in(command):
    commands.append(list(command.arguments))
    return {"crawls": json.loads(sys.argv[1])}
laion_stage.run_here = stand_in
from airflow.dag_processing.dagbag import DagBag
dag = DagBag().dags["new_crawls"]
day = pendulum.datetime(2024, 12, 1)
run = dag.test(run_after=day, logical_date=day, run_conf={"wat_files": "0:1"})
print(json.dumps({"state": str(run.state), "commands": commands}))
"""


def chosen(airflow: Airflow, *case: object) -> list[str]:
    found = airflow.python(CHOOSE, json.dumps(case), json.dumps(FOUND))
    assert all(entry["conf"] == {"wat_files": "0:2"} for entry in found)
    assert all(entry["trigger_run_id"] == f"RUN__{entry['trigger_dag_id'][6:]}" for entry in found)
    return [entry["trigger_dag_id"].removeprefix("crawl_") for entry in found]


def test_a_backfill_starts_the_dumps_released_in_its_month(airflow: Airflow) -> None:
    def month(first: str, end: str) -> list[str]:
        return chosen(airflow, "backfill", first, end, end, 1, ["crawl_CC-MAIN-2024-38"])

    assert month("2024-09-01", "2024-10-01") == ["CC-MAIN-2024-38"]
    assert month("2024-10-01", "2024-11-01") == ["CC-MAIN-2024-42"]
    assert month("2024-11-01", "2024-12-01") == []


def test_a_scheduled_run_starts_the_newest_recent_dump_that_never_ran(airflow: Airflow) -> None:
    def on(after: str, most: int, already: list[str]) -> list[str]:
        return chosen(airflow, "scheduled", "2024-10-01", "2024-11-01", after, most, already)

    assert on("2024-11-01", 1, []) == ["CC-MAIN-2024-42"]
    assert on("2024-11-01", 5, []) == ["CC-MAIN-2024-42", "CC-MAIN-2024-38"]
    assert on("2024-11-01", 1, ["crawl_CC-MAIN-2024-42"]) == ["CC-MAIN-2024-38"]
    assert on("2025-06-01", 5, []) == []


def runs(airflow: Airflow, dag_id: str) -> list[tuple[str, str, str]]:
    url = airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select run_type, to_char(data_interval_start at time zone 'UTC', 'YYYY-MM-DD'), conf::text "
            "from dag_run where dag_id = %s order by id",
            [dag_id],
        ).fetchall()


def test_nothing_starts_by_itself_before_somebody_wants_it(migrated_airflow: Airflow) -> None:
    url = migrated_airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with psycopg.connect(url) as connection:
        assert connection.execute("select is_paused from dag where dag_id = 'new_crawls'").fetchall() == [
            (True,)
        ]


def test_a_run_registers_and_triggers_through_airflow(migrated_airflow: Airflow) -> None:
    """The dump is one that no other test runs."""
    found = migrated_airflow.python(
        RUN, json.dumps([{"id": "CC-MAIN-2024-46", "released": "2024-11-11"}, *FOUND])
    )

    assert found == {"state": "success", "commands": [["crawls", "--refresh", "--register"]]}
    [started] = runs(migrated_airflow, "crawl_CC-MAIN-2024-46")
    assert started[0] == "operator_triggered"
    assert "0:1" in started[2]


def test_a_backfill_over_months_makes_a_run_of_each(migrated_airflow: Airflow) -> None:
    """By the REST API, as the UI does it, and by the command."""
    months = {"dag_id": "new_crawls", "from_date": "2023-02-01T00:00:00Z", "to_date": "2023-03-01T00:00:00Z"}
    dump = {**months, "dag_id": "crawl_CC-MAIN-2024-42", "to_date": "2024-12-01T00:00:00Z"}
    answers = migrated_airflow.rest(("POST", "backfills", months), ("POST", "backfills", dump))
    assert [status for status, _ in answers] == [200, 200]
    active = answers[0][1]["id"]  # there is one at a time
    assert migrated_airflow.rest(("PUT", f"backfills/{active}/cancel", None))[0][0] == 200
    migrated_airflow.cli(
        "backfill", "create", "--dag-id", "new_crawls", "--from-date", "2024-08-01", "--to-date", "2024-10-01"
    )
    migrated_airflow.cli("dags", "trigger", "new_crawls")
    found = runs(migrated_airflow, "new_crawls")
    backfilled = [month for kind, month, _ in found if kind == "backfill"]
    assert backfilled == ["2023-02-01", "2023-03-01", "2024-08-01", "2024-09-01", "2024-10-01"]
    assert "manual" in {kind for kind, _, _ in found}
    assert "backfill" in {run[0] for run in runs(migrated_airflow, "crawl_CC-MAIN-2024-42")}


def test_the_command_registers_what_the_index_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from laion_etl.cli import app

    index = tmp_path / "collinfo.json"
    index.write_text(json.dumps([{"id": "CC-MAIN-2031-05", "name": "January 2031"}]))
    monkeypatch.setenv("LAION_ETL_COLLINFO", str(index))
    monkeypatch.setenv("LAION_ETL_DATA_DIR", str(tmp_path / "data"))
    shown = CliRunner().invoke(app, ["crawls", "--refresh", "--register", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output.splitlines()[-1])["crawls"][0]["id"] == "CC-MAIN-2031-05"
    assert "new: CC-MAIN-2031-05 (January 2031)" in shown.output
    again = CliRunner().invoke(app, ["crawls", "--refresh", "--register"])
    assert "new:" not in again.output
    assert "CC-MAIN-2031-05" in CliRunner().invoke(app, ["crawls"]).output

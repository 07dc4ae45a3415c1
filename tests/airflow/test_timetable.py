"""A crawl is one partition: it can be backfilled and triggered, and never starts by itself."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

DAG_ID = "crawl_CC-MAIN-2024-38"


def triggered(airflow: Airflow, key: str) -> tuple[int, Any]:
    """What the REST API answers to a run of that partition key."""
    [answer] = airflow.rest(("POST", f"dags/{DAG_ID}/dagRuns", {"logical_date": None, "partition_key": key}))
    return answer


def runs(airflow: Airflow) -> list[tuple[str, str, str | None, str | None]]:
    """run type, run id, partition key and day of the DAG's runs, oldest first."""
    url = airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select run_type, run_id, partition_key, "
            "to_char(partition_date at time zone 'UTC', 'YYYY-MM-DD') "
            "from dag_run where dag_id = %s order by id",
            [DAG_ID],
        ).fetchall()


def backfill(airflow: Airflow, first: str, last: str) -> None:
    dates = ("--from-date", first, "--to-date", last)
    airflow.cli("backfill", "create", "--dag-id", DAG_ID, *dates)


@pytest.fixture(autouse=True)
def no_runs(migrated_airflow: Airflow) -> Iterator[None]:
    migrated_airflow.forget_runs()
    yield
    migrated_airflow.forget_runs()


def test_backfill_and_trigger_make_runs_of_the_crawl(migrated_airflow: Airflow) -> None:
    backfill(migrated_airflow, "2024-09-01", "2024-09-30")
    [(run_type, run_id, key, day)] = runs(migrated_airflow)
    assert (run_type, key, day) == ("backfill", "CC-MAIN-2024-38", "2024-09-16")
    assert run_id.startswith("backfill__2024-09-16T00:00:00+00:00__CC-MAIN-2024-38__")

    status, answer = triggered(migrated_airflow, "CC-MAIN-2024-38")
    assert (status, answer["partition_key"]) == (200, "CC-MAIN-2024-38")
    migrated_airflow.cli("dags", "trigger", DAG_ID)
    assert [run[0] for run in runs(migrated_airflow)] == ["backfill", "manual", "manual"]


def test_the_key_of_another_crawl_is_refused(migrated_airflow: Airflow) -> None:
    before = runs(migrated_airflow)
    status, answer = triggered(migrated_airflow, "CC-MAIN-2024-42")

    assert status == 400
    assert "every crawl has its own DAG, crawl_CC-MAIN-2024-42" in str(answer)
    assert runs(migrated_airflow) == before


def test_the_timetable_survives_serialization_and_schedules_nothing(airflow: Airflow) -> None:
    script = """
import json
from datetime import UTC, date, datetime
from airflow.timetables.base import TimeRestriction
from laion_etl.airflow.timetable import CrawlTimetable
timetable = CrawlTimetable.deserialize(CrawlTimetable("CC-MAIN-2024-38", date(2024, 9, 16)).serialize())
day = datetime(2024, 9, 16, tzinfo=UTC)
def keys(first, last):
    return [info.partition_key for info in timetable.iter_partition_dagrun_infos(earliest=first, latest=last)]
restriction = TimeRestriction(earliest=day, latest=None, catchup=True)
print(json.dumps({
    "exactly": keys(day, day),
    "before": keys(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 9, 15, 23, tzinfo=UTC)),
    "after": keys(datetime(2024, 9, 17, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)),
    "next": timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction),
}))
"""
    plugins = airflow.environment["AIRFLOW__CORE__PLUGINS_FOLDER"]
    assert airflow.python(script, PYTHONPATH=plugins) == {
        "exactly": ["CC-MAIN-2024-38"],
        "before": [],
        "after": [],
        "next": None,
    }

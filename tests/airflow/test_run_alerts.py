"""What an alert says of a failed or late task, from Airflow's own contexts and exceptions."""

from typing import Any

import pytest

from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

CAUSES = """
import json
from datetime import timedelta
from types import SimpleNamespace
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout
from laion_etl.airflow.alerts import cause_of, late_alert
from laion_etl.airflow.commands import Command, failed_command
from laion_etl.airflow.errors import retry_helps
from laion_etl.core.errors import SettingsError
context = {"task": SimpleNamespace(execution_timeout=timedelta(hours=8)), "ti": SimpleNamespace(
    dag_id="crawl_C", run_id="r", task_id="download", map_index=1, try_number=1, log_url="http://log")}
errors = [
    failed_command("parse", 1, ["reading", "error: cannot read x: denied; ask for access", ""]),
    failed_command("score", 2, ["error: LAION_ETL_CLIP_MODEL: no such model"]),
    failed_command("score", -9, ["download: 300 of 1,000"]),
    AirflowTaskTimeout(),
    AirflowFailException("the DAG is paused"),
    SettingsError("invalid LAION_ETL_RUNNER 'moon'"),
    ValueError("a bug"),
    KeyError(),
    "said by the DAG processor",
    None,
]
run_settings = {"LAION_ETL_PARSE_LANGUAGES": "en de", "LAION_ETL_RUNNER": "local",
                "LAION_ETL_DATABASE_URL": "postgresql://me:secret@host/x"}
print(json.dumps({
    "causes": [[cause_of(error, context), retry_helps(error)] for error in errors],
    "late": late_alert(context, 604800.0).text,
    "by hand": Command(["parse", "--crawl", "C"], {}, run_settings).by_hand,
}))
"""


@pytest.fixture(scope="module")
def made(airflow: Airflow) -> Any:
    folders = (
        airflow.environment["AIRFLOW__CORE__DAGS_FOLDER"],
        airflow.environment["AIRFLOW__CORE__PLUGINS_FOLDER"],
    )
    return airflow.python(CAUSES, PYTHONPATH=":".join(folders))


def test_the_cause_comes_first_and_says_whether_another_try_helps(made: Any) -> None:
    assert made["causes"] == [
        ["cannot read x: denied; ask for access (laion-etl stage parse ended with exit code 1)", True],
        ["LAION_ETL_CLIP_MODEL: no such model (laion-etl stage score ended with exit code 2)", False],
        [
            "the command was killed (SIGKILL), most often because the machine ran out of memory "
            "(laion-etl stage score ended with exit code -9)",
            True,
        ],
        ["the task took longer than 8 hours and was ended; see where its log stopped", True],
        ["the DAG is paused", False],
        ["invalid LAION_ETL_RUNNER 'moon'", False],
        ["ValueError: a bug", True],
        ["KeyError", True],
        ["said by the DAG processor", True],
        ["the task ended without an error; see its log", True],
    ]


def test_a_late_task_is_said_to_go_on(made: Any) -> None:
    assert "late: still at work after 7 days; Airflow ends it after 8 hours" in made["late"]
    assert "look here: http://log" in made["late"]


def test_a_command_by_hand_has_the_settings_of_its_run_and_no_secret(made: Any) -> None:
    assert made["by hand"] == (
        "LAION_ETL_DATABASE_URL='postgresql://me:***@host/x' LAION_ETL_PARSE_LANGUAGES='en de' "
        "laion-etl stage parse --crawl C"
    )

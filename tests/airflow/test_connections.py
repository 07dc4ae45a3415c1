"""What Airflow's own processes do in the store, they do with the S3 access of the connection."""

import json
from collections.abc import Mapping

import pytest

from laion_etl.storage import Store
from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

ELSEWHERE = "http://127.0.0.1:1"
FAILED_TASK = """
import json, os
from types import SimpleNamespace
from laion_alerts import TaskFailed
ti = SimpleNamespace(
    dag_id="crawl_C", run_id="manual", task_id="partition.parse", map_index=3, try_number=2, log_url=""
)
TaskFailed().notify({"ti": ti, "exception": OSError("the disk is full")})
names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_PROFILE")
print(json.dumps({name: os.environ.get(name) for name in names}))
"""


def failed_task(airflow: Airflow, store: Store, **more: str) -> Mapping[str, str | None]:
    """A task's failure is told of in a process whose own S3 access leads nowhere; what is left of that."""
    own = {
        "AWS_ENDPOINT_URL": ELSEWHERE,
        "AWS_ACCESS_KEY_ID": "of another",
        "PYTHONPATH": "{AIRFLOW__CORE__DAGS_FOLDER}:{AIRFLOW__CORE__PLUGINS_FOLDER}",
        "LAION_ETL_STORE": store.uri(),
        "LAION_ETL_AIRFLOW_S3_CONN_ID": "laion_s3",
    }
    found: Mapping[str, str | None] = airflow.python(
        FAILED_TASK, **{name: value.format(**airflow.environment) for name, value in own.items()}, **more
    )
    return found


def test_an_alert_is_kept_with_the_access_of_the_connection_and_the_environment_stays(
    airflow: Airflow, s3_store: Store, s3_endpoint: str
) -> None:
    connection = {"conn_type": "aws", "login": "testing", "password": "testing",
                  "extra": {"endpoint_url": s3_endpoint, "region_name": "us-east-1"}}  # fmt: skip
    left = failed_task(airflow, s3_store, AIRFLOW_CONN_LAION_S3=json.dumps(connection))
    assert left == {
        "AWS_ENDPOINT_URL": ELSEWHERE,
        "AWS_ACCESS_KEY_ID": "of another",
        "AWS_CONFIG_FILE": None,
        "AWS_PROFILE": None,
    }
    [name] = s3_store.list("alerts")
    alert = json.loads(s3_store.read(name))
    assert (alert["stage"], alert["unit"], alert["reason"]) == ("parse", "[3]", "OSError: the disk is full")


def test_a_missing_connection_and_half_an_access_do_not_keep_an_alert_from_being_told(
    airflow: Airflow, s3_store: Store
) -> None:
    failed_task(airflow, s3_store)
    assert s3_store.list("alerts") == []

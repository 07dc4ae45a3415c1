"""Airflow's own processes access the store with the S3 access of the connection."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from laion_etl.io.storage import Store
from tests.airflow.conftest import Airflow

pytestmark = pytest.mark.airflow

ELSEWHERE = "http://127.0.0.1:1"
FAILED_TASK = """
import json, logging, os
from types import SimpleNamespace
from laion_etl.airflow.alerts import TaskFailed
logged = []
class Causes(logging.Handler):
    def emit(self, record):
        logged.extend([record.getMessage()] if record.levelno == logging.ERROR else [])
logging.getLogger("laion_etl.airflow.alerts").addHandler(Causes())
ti = SimpleNamespace(
    dag_id="crawl_C", run_id="manual", task_id="partition.parse", map_index=3, try_number=2, log_url=""
)
TaskFailed().notify({"ti": ti, "exception": OSError("the disk of s3://me:hidden@h is full")})
names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_PROFILE")
print(json.dumps({name: os.environ.get(name) for name in names} | {"logged": " ".join(logged)}))
"""


def failed_task(airflow: Airflow, store: Store, **more: str) -> Mapping[str, str | None]:
    """The environment after an alert from a process whose own S3 access leads nowhere."""
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
        "logged": "cause: OSError: the disk of s3://me:***@h is full",
    }
    [name] = s3_store.list("alerts")
    alert = json.loads(s3_store.read(name))
    assert (alert["stage"], alert["unit"], alert["reason"]) == (
        "parse",
        "[3]",
        "OSError: the disk of s3://me:***@h is full",
    )


def test_a_missing_connection_and_half_an_access_do_not_keep_an_alert_from_being_sent(
    airflow: Airflow, s3_store: Store
) -> None:
    failed_task(airflow, s3_store)
    assert s3_store.list("alerts") == []


# The identity requests of a command that a task starts, and the keys they are signed with.
IDENTITY = """
import json, os, subprocess, sys
from laion_etl.airflow.connections import s3
from laion_etl.airflow.commands import without_none
child = '''
import boto3, json
asked = []
def noted(request_signer, operation_name, **_):
    asked.append([operation_name, getattr(request_signer._credentials, "access_key", "")])
session = boto3.Session()
session.events.register("before-sign", noted)
session.client("sts").get_caller_identity()
print(json.dumps(asked))
'''
with s3() as access:
    environment = without_none({**os.environ, **access})
    done = subprocess.run([sys.executable, "-c", child], env=environment, stdout=subprocess.PIPE, check=True)
print(done.stdout.decode().splitlines()[-1])
"""
OWN_KEYS = {"AWS_ACCESS_KEY_ID": "airflow", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
OWN_ROLE = {
    "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/airflow",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "{folder}/token",
}
KEYS = {"login": "connection", "password": "secret"}
ROLE = {"role_arn": "arn:aws:iam::123456789012:role/laion"}
BECOMES, WHO = "AssumeRole", "GetCallerIdentity"


@pytest.mark.parametrize(
    ("own", "keys", "role", "asked"),
    [
        (OWN_KEYS, KEYS, {}, [(WHO, "connection")]),
        (OWN_KEYS, {}, {}, [(WHO, "airflow")]),
        (OWN_KEYS, KEYS, ROLE, [(BECOMES, "connection"), (WHO, "ASIA")]),
        (OWN_KEYS, {}, ROLE, [(BECOMES, "airflow"), (WHO, "ASIA")]),
        (OWN_ROLE, {}, ROLE, [("AssumeRoleWithWebIdentity", ""), (BECOMES, "ASIA"), (WHO, "ASIA")]),
    ],
    ids=["keys", "own keys", "role by keys", "role by own keys", "role by a service account"],
)
def test_commands_are_who_the_connection_says_whatever_airflow_is(
    airflow: Airflow, s3_endpoint: str, tmp_path: Path,
    own: dict[str, str], keys: dict[str, str], role: dict[str, str], asked: list[tuple[str, str]],
) -> None:  # fmt: skip
    (tmp_path / "token").write_text("of Kubernetes")
    (tmp_path / "config").write_text("[profile of_airflow]\nregion = eu-central-1\n")
    extra = {"endpoint_url": s3_endpoint, "region_name": "us-east-1", **role}
    kept = {name: value for name, value in airflow.environment.items() if not name.startswith("AWS_")}
    found = replace(airflow, environment=kept).python(
        IDENTITY,
        PYTHONPATH=f"{kept['AIRFLOW__CORE__DAGS_FOLDER']}:{kept['AIRFLOW__CORE__PLUGINS_FOLDER']}",
        AWS_CONFIG_FILE=str(tmp_path / "config"),
        AWS_DEFAULT_PROFILE="of_airflow",
        LAION_ETL_AIRFLOW_S3_CONN_ID="laion_s3",
        AIRFLOW_CONN_LAION_S3=json.dumps({"conn_type": "aws", **keys, "extra": extra}),
        **{name: value.format(folder=tmp_path) for name, value in own.items()},
    )
    assumed = [(operation, "ASIA" if key.startswith("ASIA") else key) for operation, key in found]
    assert assumed == asked

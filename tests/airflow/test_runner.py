"""The runner seam: exit codes, streamed output and clean ends, with a stand-in for the command."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.conftest import Airflow, processes_of
from tests.forks import Fork, piped

pytestmark = pytest.mark.airflow

# The task itself has the real package, its command the one in the working folder: the task sets PYTHONPATH.
TASK = str(Path(__file__).with_name("run_stage.py"))
SHOW_ENVIRONMENT = Path(__file__).with_name("show_environment.py").read_text()


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder where the command runs `laion_etl/__main__.py`, which a test writes."""
    (tmp_path / "laion_etl").mkdir()
    (tmp_path / "laion_etl" / "__init__.py").touch()
    return tmp_path


def start(folder: Path, airflow: Airflow, command: str) -> Fork:
    (folder / "laion_etl" / "__main__.py").write_text(command)
    environment = {
        **airflow.environment,
        "LAION_ETL_DATABASE_URL": "postgresql://me:s3cr3t@host/laion",
        "LAION_ETL_ALERTS_WEBHOOK": "https://hooks.example/s3cr3t",
        "LAION_ETL_ALERTS_SMTP_PASSWORD": "s3cr3t",
        "AIRFLOW_CONN_WAREHOUSE": "postgresql://them:s3cr3t@host/sales",
        "AIRFLOW_VAR_API_KEY": "s3cr3t",
        "AWS_PROFILE": "images",
    }
    return piped(airflow.server, [TASK], environment, folder)


def lines_of(task: Fork) -> Iterator[str]:
    """Its output, as it comes."""
    assert task.stdout is not None
    with task.stdout:
        yield from (line.decode() for line in task.stdout)


def output_after_sigterm(folder: Path, airflow: Airflow, command: str) -> list[str]:
    """What a task writes after SIGTERM, which it gets when its command has printed "started"."""
    task = start(folder, airflow, command)
    lines = lines_of(task)
    while "started" not in next(lines):
        continue
    task.terminate()
    output = [*lines]
    task.wait()
    return output


def run(folder: Path, airflow: Airflow, command: str) -> tuple[list[object], str]:
    """The outcome of run_stage and everything that was logged."""
    output = start(folder, airflow, command).finished()
    return json.loads(output.splitlines()[-1]), output


def test_the_last_line_is_the_result_and_all_lines_are_logged(stand_in: Path, airflow: Airflow) -> None:
    command = "import sys; print('working'); print('careful', file=sys.stderr); print('{\"kept\": 3}')"
    outcome, log = run(stand_in, airflow, command)

    assert outcome == ["result", {"kept": 3}]
    assert "-m laion_etl stage parse --crawl 'C D' --json" in log
    assert "working" in log
    assert "careful" in log


def test_passwords_are_not_logged(stand_in: Path, airflow: Airflow) -> None:
    _, log = run(stand_in, airflow, "print('a library says: password=s3cr3t'); print('{}')")

    assert "postgresql://me:***@host/laion" in log
    assert "a library says: password=***" in log
    assert "s3cr3t" not in log


def test_a_command_gets_its_own_secrets_and_none_of_airflow(stand_in: Path, airflow: Airflow) -> None:
    """It reads what strangers wrote; Airflow's database, keys and connections would be a way on."""
    assert any(name.startswith("AIRFLOW__") for name in airflow.environment)
    [_, found], _ = run(stand_in, airflow, SHOW_ENVIRONMENT)
    assert isinstance(found, dict)
    assert [name for name in found if name.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_"))] == []
    assert {"LAION_ETL_ALERTS_WEBHOOK", "LAION_ETL_ALERTS_SMTP_PASSWORD"} & {*found} == set()
    assert found["LAION_ETL_DATABASE_URL"] == "postgresql://me:s3cr3t@host/laion"
    assert found["AWS_PROFILE"] == "images"


def test_a_failure_is_retried_and_carries_the_last_error_line(stand_in: Path, airflow: Airflow) -> None:
    command = "import sys; print('error: part.wat.gz is damaged', file=sys.stderr); sys.exit(1)"
    outcome, _ = run(stand_in, airflow, command)

    message = "part.wat.gz is damaged (laion-etl stage parse ended with exit code 1)"
    assert outcome == ["AirflowException", message]


def test_a_usage_error_is_not_retried(stand_in: Path, airflow: Airflow) -> None:
    command = "import sys; print('error: no such setting', file=sys.stderr); sys.exit(2)"
    outcome, _ = run(stand_in, airflow, command)

    assert outcome[0] == "FinalError"


def test_a_command_that_ends_well_without_json_fails_the_task(stand_in: Path, airflow: Airflow) -> None:
    outcome, _ = run(stand_in, airflow, "print('all done')")

    assert outcome[0] == "AirflowException"
    assert "is not a JSON object" in str(outcome[1])


def test_lines_are_logged_while_the_command_runs(stand_in: Path, airflow: Airflow) -> None:
    """The command continues only after its line was seen."""
    command = """
import pathlib, time
print("half way", flush=True)
while not pathlib.Path("seen").exists():
    time.sleep(0.01)
print('{"kept": 1}')
"""
    task = start(stand_in, airflow, command)
    lines = lines_of(task)
    while "half way" not in next(lines):
        continue
    (stand_in / "seen").touch()

    assert json.loads([*lines][-1]) == ["result", {"kept": 1}]
    assert task.wait() == 0


def test_sigterm_reaches_the_command_and_its_clean_end_is_awaited(stand_in: Path, airflow: Airflow) -> None:
    command = """
import pathlib, signal, subprocess, sys, time
def end(*_):
    time.sleep(0.5)
    pathlib.Path("ended-cleanly").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("started", flush=True)
time.sleep(600)
"""
    output = output_after_sigterm(stand_in, airflow, command)

    assert json.loads(output[-1])[0] == "AirflowException"
    assert "exit code 130" in output[-1]
    assert (stand_in / "ended-cleanly").exists()
    assert processes_of(stand_in) == []


def test_a_command_that_ignores_sigterm_does_not_outlive_its_task(stand_in: Path, airflow: Airflow) -> None:
    command = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started", flush=True)
time.sleep(600)
"""
    output = output_after_sigterm(stand_in, airflow, command)

    assert "exit code -9" in output[-1]
    assert processes_of(stand_in) == []


def test_the_database_may_be_an_airflow_connection(stand_in: Path, airflow: Airflow) -> None:
    """Its secrets reach only the command, never the log."""
    connected = airflow.with_settings(
        LAION_ETL_DATABASE_CONN_ID="laion_pairs",
        AIRFLOW_CONN_LAION_PAIRS="postgresql://loader:p%40ss@db.example:6432/laion?sslmode=require",
    )
    command = """
import json, os
from psycopg.conninfo import conninfo_to_dict
parts = conninfo_to_dict(os.environ["LAION_ETL_DATABASE_URL"])
assert parts.pop("password") == "p@ss"
print(json.dumps(parts))
"""
    outcome, log = run(stand_in, connected, command)
    expected = {
        "host": "db.example",
        "port": "6432",
        "user": "loader",
        "dbname": "laion",
        "sslmode": "require",
    }
    assert outcome == ["result", expected]
    assert "p@ss" not in log
    assert "p%40ss" not in log


def test_key_ranges_on_several_servers_have_a_connection_each(stand_in: Path, airflow: Airflow) -> None:
    """In the order of their names; a comma in one does not end a list entry."""
    connected = airflow.with_settings(
        LAION_ETL_DATABASE_CONN_ID="laion_pairs,laion_pairs_1",
        AIRFLOW_CONN_LAION_PAIRS="postgresql://loader:p%2C%40ss@one.example:6432/laion?sslmode=require",
        AIRFLOW_CONN_LAION_PAIRS_1="postgresql://loader:other@two.example/laion",
    )
    command = """
import json, os
from psycopg.conninfo import conninfo_to_dict
urls = os.environ["LAION_ETL_DATABASE_URLS"].split(",")
assert urls[0] == os.environ["LAION_ETL_DATABASE_URL"]
servers = [conninfo_to_dict(url) for url in urls]
assert [server.pop("password") for server in servers] == ["p,@ss", "other"]
print(json.dumps({"servers": servers}))
"""
    outcome, log = run(stand_in, connected, command)
    common = {"user": "loader", "dbname": "laion"}
    first = common | {"host": "one.example", "port": "6432", "sslmode": "require"}
    assert outcome == ["result", {"servers": [first, common | {"host": "two.example"}]}]
    assert "ss@" not in log
    assert "other" not in log


def test_an_airflow_connection_that_is_not_there_is_named(stand_in: Path, airflow: Airflow) -> None:
    connected = airflow.with_settings(LAION_ETL_DATABASE_CONN_ID="missing")
    outcome, _ = run(stand_in, connected, "print('{}')")
    assert outcome[0] == "AirflowNotFoundException"
    assert "missing" in str(outcome[1])


def test_settings_that_are_none_fail_the_task_for_good(stand_in: Path, airflow: Airflow) -> None:
    mistaken = airflow.with_settings(LAION_ETL_STROE="/data")
    outcome, _ = run(stand_in, mistaken, "print('{}')")
    assert outcome[0] == "SettingsError"
    assert "did you mean LAION_ETL_STORE" in str(outcome[1])


SEAM = """
import json, os
from airflow.sdk.exceptions import AirflowException
from laion_etl.airflow.operators import StageOperator
from laion_etl.core.errors import LaionEtlError

def ended(**params):
    try:
        task = StageOperator(
            task_id="load", stage="load", arguments=["--crawl", "C", ""], on_result=lambda found, _: found
        )
        return task.execute({"params": params})
    except (AirflowException, LaionEtlError) as error:
        return [type(error).__name__, str(error)]

def with_role():
    os.environ["LAION_ETL_AIRFLOW_S3_CONN_ID"] = "role"
    return ended(runner="venv")

chosen = {"threshold_en": 0.31, "languages": "en,none", "sample": 5, "store_prefix": "tries/a"}
print(json.dumps({
    "as set": ended(runner="default"),
    "chosen": ended(runner="venv", **chosen),
    "with a role": with_role(),
    "unknown": ended(runner="moon"),
}))
"""
ANOTHER_PYTHON = f"""#!{sys.executable}
import boto3, json, os, sys
names = [name for name in os.environ if name.startswith(("LAION_ETL_", "PYTHONPATH"))]
print(json.dumps({{
    "arguments": sys.argv[1:],
    "settings": {{name: os.environ[name] for name in sorted(names)}},
    "s3": [boto3.Session().get_credentials().method, boto3.Session().region_name],
    "endpoint": os.environ.get("AWS_ENDPOINT_URL"),
}}))
"""


def test_a_run_chooses_its_runner_and_settings_and_commands_have_the_s3_of_a_connection(
    tmp_path: Path, airflow: Airflow
) -> None:
    program = tmp_path / "laion-etl"
    program.write_text(ANOTHER_PYTHON)
    program.chmod(0o755)
    keys = {"conn_type": "aws", "login": "KEY", "password": "hidden"}
    place = {"region_name": "eu-central-1", "endpoint_url": "https://s3.example"}
    role = {"role_arn": "arn:aws:iam::123456789012:role/laion"}
    outcome = airflow.python(
        SEAM,
        LAION_ETL_RUNNER="venv",
        LAION_ETL_STORE="s3://bucket/base",
        LAION_ETL_AIRFLOW_VENV=str(program),
        LAION_ETL_AIRFLOW_S3_CONN_ID="laion_s3",
        AIRFLOW_CONN_LAION_S3=json.dumps({**keys, "extra": place}),
        AIRFLOW_CONN_ROLE=json.dumps({**keys, "extra": {**place, **role}}),
    )
    as_set, chosen = outcome["as set"], outcome["chosen"]
    assert as_set["arguments"] == chosen["arguments"] == ["stage", "load", "--crawl", "C", "--json"]
    assert {
        name: value for name, value in chosen["settings"].items() if as_set["settings"].get(name) != value
    } == {
        "LAION_ETL_CLIP_THRESHOLD_EN": "0.31",
        "LAION_ETL_PARSE_LANGUAGES": "en,none",
        "LAION_ETL_STORE": "s3://bucket/base/tries/a",
        "LAION_ETL_WAT_FILES_SAMPLE": "5",
    }
    assert "PYTHONPATH" not in as_set["settings"]  # Airflow's packages are not the other Python's
    assert (as_set["s3"], as_set["endpoint"]) == (["env", "eu-central-1"], "https://s3.example")
    assert outcome["with a role"]["s3"] == ["assume-role", "eu-central-1"]
    assert outcome["unknown"][0] == "SettingsError"
    assert "invalid LAION_ETL_RUNNER 'moon'; expected one of local, venv, kubernetes" in outcome["unknown"][1]

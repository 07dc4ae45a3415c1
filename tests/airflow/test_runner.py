"""The runner seam: exit codes, streamed output and clean ends, with a stand-in for the command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.conftest import ROOT, Airflow, processes_of

pytestmark = pytest.mark.airflow

RUN = """
import json
from airflow.sdk.exceptions import AirflowException
from laion_runner import Command, run_here
try:
    outcome = ["result", run_here(Command(["parse", "--crawl", "C D"]))]
except AirflowException as error:
    outcome = [type(error).__name__, str(error)]
print(json.dumps(outcome), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder where `python -m laion_etl` runs `laion_etl/__main__.py`, which a test writes."""
    (tmp_path / "laion_etl").mkdir()
    (tmp_path / "laion_etl" / "__init__.py").touch()
    return tmp_path


def start(folder: Path, airflow: Airflow, command: str) -> subprocess.Popen[str]:
    (folder / "laion_etl" / "__main__.py").write_text(command)
    environment = {
        **airflow.environment,
        "PYTHONPATH": str(ROOT / "dags"),
        "LAION_ETL_DATABASE_URL": "postgresql://me:secret@host/laion",
        "LAION_ETL_ALERTS_WEBHOOK": "https://hooks.example/secret",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-c", RUN],  # the runner itself has the real package
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def started_and_asked_to_end(
    folder: Path, airflow: Airflow, command: str
) -> tuple[subprocess.Popen[str], Iterator[str]]:
    """A task whose command has printed "started", just sent SIGTERM; and the lines still to come."""
    process = start(folder, airflow, command)
    assert process.stdout is not None
    lines = iter(process.stdout)
    while "started" not in next(lines):
        continue
    os.kill(process.pid, signal.SIGTERM)
    return process, lines


def run(folder: Path, airflow: Airflow, command: str) -> tuple[list[object], str]:
    """The outcome of run_stage and everything that was logged."""
    output, _ = start(folder, airflow, command).communicate(timeout=60)
    return json.loads(output.splitlines()[-1]), output


def test_the_last_line_is_the_result_and_all_lines_are_logged(stand_in: Path, airflow: Airflow) -> None:
    command = "import sys; print('working'); print('careful', file=sys.stderr); print('{\"kept\": 3}')"
    outcome, log = run(stand_in, airflow, command)

    assert outcome == ["result", {"kept": 3}]
    assert "-m laion_etl parse --crawl 'C D' --json" in log
    assert "working" in log
    assert "careful" in log


def test_passwords_are_not_logged(stand_in: Path, airflow: Airflow) -> None:
    _, log = run(stand_in, airflow, "print('{}')")

    assert "postgresql://me:***@host/laion" in log
    assert "secret" not in log


def test_a_failure_is_retried_and_carries_the_last_error_line(stand_in: Path, airflow: Airflow) -> None:
    command = "import sys; print('error: part.wat.gz is damaged', file=sys.stderr); sys.exit(1)"
    outcome, _ = run(stand_in, airflow, command)

    message = "laion-etl parse ended with exit code 1: part.wat.gz is damaged"
    assert outcome == ["AirflowException", message]


def test_a_usage_error_is_not_retried(stand_in: Path, airflow: Airflow) -> None:
    command = "import sys; print('error: no such setting', file=sys.stderr); sys.exit(2)"
    outcome, _ = run(stand_in, airflow, command)

    assert outcome[0] == "AirflowFailException"


def test_a_command_that_ends_well_without_json_fails_the_task(stand_in: Path, airflow: Airflow) -> None:
    outcome, _ = run(stand_in, airflow, "print('all done')")

    assert outcome[0] == "AirflowException"
    assert "no JSON object" in str(outcome[1])


def test_lines_are_logged_while_the_command_runs(stand_in: Path, airflow: Airflow) -> None:
    command = "import time; print('half way', flush=True); time.sleep(1.5); print('{}')"
    process = start(stand_in, airflow, command)
    assert process.stdout is not None
    for line in process.stdout:
        if "half way" in line:
            break
    seen = time.monotonic()
    process.communicate(timeout=60)

    assert time.monotonic() - seen > 1.0


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
    process, lines = started_and_asked_to_end(stand_in, airflow, command)
    output = [*lines]
    process.wait(10)

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
    process, lines = started_and_asked_to_end(stand_in, airflow, command)
    output = [*lines]
    process.wait(10)

    assert "exit code -9" in output[-1]
    assert processes_of(stand_in) == []


def test_the_database_may_be_an_airflow_connection(stand_in: Path, airflow: Airflow) -> None:
    """Its secrets go to the command alone, and not into the log."""
    connected = Airflow(
        airflow.home,
        {
            **airflow.environment,
            "LAION_ETL_DATABASE_CONN_ID": "laion_pairs",
            "AIRFLOW_CONN_LAION_PAIRS": "postgresql://loader:p%40ss@db.example:6432/laion?sslmode=require",
        },
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


def test_an_airflow_connection_that_is_not_there_is_named(stand_in: Path, airflow: Airflow) -> None:
    connected = Airflow(airflow.home, {**airflow.environment, "LAION_ETL_DATABASE_CONN_ID": "missing"})
    outcome, _ = run(stand_in, connected, "print('{}')")
    assert outcome[0] == "AirflowFailException"
    assert "missing" in str(outcome[1])


def test_settings_that_are_none_fail_the_task_for_good(stand_in: Path, airflow: Airflow) -> None:
    mistaken = Airflow(airflow.home, {**airflow.environment, "LAION_ETL_STROE": "/data"})
    outcome, _ = run(stand_in, mistaken, "print('{}')")
    assert outcome[0] == "AirflowFailException"
    assert "did you mean LAION_ETL_STORE" in str(outcome[1])

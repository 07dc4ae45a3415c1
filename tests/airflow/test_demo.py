"""The demo as a user runs it: a process, its output, its exit code and what it leaves behind."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import urllib3

from laion_etl.dataset.funnel_report import crawl_funnel
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.build import CRAWL
from tests.airflow.conftest import ROOT, Airflow, processes_of
from tests.airflow.started import LONGEST_S, until
from tests.forked_command import installed
from tests.forks import piped
from tests.preloaded_commands import command_server
from tests.shared_folder import SharedFolder

pytestmark = pytest.mark.airflow

DEMO = [sys.executable, "-m", "laion_etl", "demo"]


def environment_of(data: Path) -> dict[str, str]:
    return {**os.environ, "LAION_ETL_DATA_DIR": str(data), "COLUMNS": "200"}


@contextmanager
def running(command: list[str], data: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo in a folder of its own; its output is read line by line."""
    process = subprocess.Popen(
        command,
        cwd="/",
        env=environment_of(data),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=LONGEST_S)


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """All lines up to the one with the text."""
    seen = []
    for line in process.stdout or ():
        seen.append(line)
        if text in line:
            return "".join(seen)
    pytest.fail(f"the demo ended without {text!r}:\n{''.join(seen)}")


def test_the_demo_makes_a_dataset_with_airflow_and_leaves_nothing_running(
    demo_data: Path, tmp_path_factory: pytest.TempPathFactory, airflow: Airflow, shared: SharedFolder
) -> None:
    """Forked, as forked_demo.py says; the tests below have all processes as a user has them."""
    programs = tmp_path_factory.mktemp("programs")
    environment = environment_of(demo_data)
    commands = command_server(shared, environment)
    forked = (
        installed(programs / "airflow", airflow.server, ("-m", "airflow")),
        installed(programs / "commands", commands),
    )
    command = ["-m", "tests.airflow.forked_demo", *map(str, forked)]
    demo = piped(commands, command, environment, ROOT)
    output = demo.finished()

    assert demo.returncode == 0, output
    for line in ("discover 1/1 done", "parse 3/3 done", "download 2/2 done", "publish 1/1 done"):
        assert line in output
    store = LocalStore(demo_data / "demo" / "store")
    funnel = crawl_funnel(store, CRAWL)
    assert not funnel.problems
    assert all(row.units > 0 for row in funnel.rows)
    assert funnel.row("download").kept >= 1_000
    dataset = demo_data / "demo" / "store" / "dataset" / "mini" / CRAWL
    parts = list(dataset.glob("laion-*/part-*.parquet"))
    assert sum(pq.read_metadata(part).num_rows for part in parts) >= funnel.row("publish").kept > 0
    assert (dataset / "manifest.json").is_file()
    assert (dataset / "report" / "index.html").is_file()
    assert f"dataset: {dataset}" in output
    assert f"search it: LAION_ETL_CONFIG={demo_data / 'demo' / 'laion_etl.toml'} " in output
    [program] = re.findall(r"^search it: \S+ (\S+) search serve$", output, re.MULTILINE)
    assert shutil.which(program)
    assert store.list("index/mini/_parts")
    assert [process for process in processes_of(demo_data) if "postgres" in process] == []  # no forks
    until(lambda: not processes_of(demo_data), "the end of forks whose program was killed")


def test_ctrl_c_while_airflow_starts_stops_everything(demo_data: Path) -> None:
    with running(DEMO, demo_data) as process:
        wait_for(process, "Airflow ...")
        until(lambda: len(processes_of(demo_data)) > 3, "processes that start")
        stopped(process, signal.SIGINT)
    assert processes_of(demo_data) == []


def test_the_printed_login_opens_airflow_and_sigterm_while_tasks_run_stops_everything(
    demo_data: Path,
) -> None:
    with running([*DEMO, "--keep"], demo_data) as process:
        output = wait_for(process, "discover 1/1 done")
        site, user, password = printed_login(output)
        wrong = {"username": user, "password": f"{password}x"}
        assert urllib3.request("POST", f"{site}/auth/token", json=wrong, timeout=LONGEST_S).status == 401
        right = {"username": user, "password": password}
        assert urllib3.request("POST", f"{site}/auth/token", json=right, timeout=LONGEST_S).status == 201
        home = demo_data / "demo" / "airflow"
        assert [stat.S_IMODE(path.stat().st_mode) for path in (home, home / "login.json")] == [0o700, 0o600]
        stopped(process, signal.SIGTERM)
    assert processes_of(demo_data) == []


def printed_login(output: str) -> tuple[str, str, str]:
    """Airflow's address, a user and a password, each as the terminal shows it."""
    page = re.search(rf"^Airflow: (http://127\.0\.0\.1:\d+)/dags/crawl_{CRAWL}$", output, re.MULTILINE)
    login = re.search(r"^log in as (\w+) with the password (\S+)$", output, re.MULTILINE)
    assert page, output
    assert login, output
    return page[1], login[1], login[2]


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Sends the signal and checks that the demo ends as it should."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 130
    assert "stopped" in output
    assert "Traceback" not in output

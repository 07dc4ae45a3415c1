"""The demo's parts: child processes, its folder, and its progress lines."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from laion_etl.core.errors import DemoError
from laion_etl.demo.airflow import TaskInstance, reserved_port
from laion_etl.demo.progress import stage_seconds, stage_states
from laion_etl.demo.services import Services
from laion_etl.demo.workspace import fresh_folder
from tests.airflow.conftest import processes_of

STUBBORN = """
import signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if sys.argv[1:] != ["child"]:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    marker = {"TEST_MARK": str(tmp_path)}
    with Services({**os.environ, **marker}, tmp_path, tmp_path / "logs", "TEST_MARK") as services:
        yield services


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_a_service_that_dies_is_reported_with_the_end_of_its_log(services: Services) -> None:
    service = services.start("scheduler", python("import sys; print('no database'); sys.exit(3)"))
    service.process.wait(200)

    with pytest.raises(DemoError, match=r"scheduler ended with exit code 3; (.|\n)*no database"):
        services.check()


def test_a_command_that_fails_or_hangs_is_reported(services: Services) -> None:
    with pytest.raises(DemoError, match=r"migrate failed with exit code 1; (.|\n)*bad url"):
        services.run("migrate", python("raise SystemExit('bad url')"), 200)
    with pytest.raises(DemoError, match=r"hang did not end within 0.5 s"):
        services.run("hang", python("import time; time.sleep(600)"), 0.5)


def test_children_that_ignore_signals_and_leave_the_group_do_not_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("laion_etl.demo.services._CLEAN_END_S", 1.0)
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    environment = {**os.environ, "TEST_MARK": str(tmp_path)}
    with Services(environment, tmp_path, tmp_path / "logs", "TEST_MARK") as services:
        service = services.start("stubborn", [sys.executable, str(script)])
        deadline = time.monotonic() + 200
        while service.log.read_text().count("up") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(processes_of(tmp_path)) == 2

    assert processes_of(tmp_path) == []


def test_a_reserved_port_is_only_for_a_server_that_reuses_it() -> None:
    with reserved_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        for _ in ("first", "started again"):
            with socket.create_server(("127.0.0.1", port)) as server:  # sets SO_REUSEADDR
                socket.create_connection(server.getsockname()).close()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("precious")

    with pytest.raises(DemoError, match="it was not made by the demo"), fresh_folder(tmp_path):
        pytest.fail("the folder was taken")
    assert precious.read_text() == "precious"


def test_an_earlier_demo_is_replaced_but_not_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with fresh_folder(folder):
        (folder / "old").touch()
        with pytest.raises(DemoError, match="another demo is running"), fresh_folder(folder):
            pytest.fail("the folder was taken")
    assert (folder / "old").exists()
    with fresh_folder(folder):
        assert not (folder / "old").exists()


def task(task_id: str, map_index: int, state: str | None, seconds: tuple[int, int] | None) -> TaskInstance:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    started, ended = [noon + timedelta(seconds=s) for s in seconds] if seconds else (None, None)
    return TaskInstance(task_id, map_index, state, 1, None, started, ended)


def test_stages_are_counted_and_timed_over_their_mapped_tasks() -> None:
    tasks = [
        task("partition.parse", 0, "success", (0, 5)),
        task("partition.parse", 1, "failed", (3, 9)),
        task("partition.parse", 2, "up_for_retry", None),
        task("partition.load", 1, "upstream_failed", None),
        task("plan", -1, None, None),
    ]
    states = {state.stage: str(state) for state in stage_states(tasks)}

    assert states["parse"] == "parse 1/3 done (1 failed, 1 to be retried)"
    assert states["load"] == "load 0/1 done (1 failed)"
    assert states["plan"] == "plan 0/1 done"
    assert stage_seconds(tasks) == {"  parse": 9.0}

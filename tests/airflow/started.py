"""A complete Airflow for one test, with a triggerer, and a scheduler that may be killed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from laion_etl.demo.airflow import COMPONENTS, AirflowApi, environment, reserved_port
from laion_etl.demo.login import new_login
from tests.airflow.components import Components
from tests.airflow.conftest import ROOT, Airflow

Found = TypeVar("Found")
LONGEST_S = 1_200
_QUICK = {
    # A lost scheduler is detected, and its tasks are adopted, within seconds.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    # DAG files do not change: parsing them again takes cores from what is tested.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1000",
    "AIRFLOW__WORKERS__API_RETRY_WAIT_MIN": "0.2",
    "AIRFLOW__WORKERS__API_RETRY_WAIT_MAX": "2",
}


@dataclass(frozen=True)
class StartedAirflow:
    """Its REST API and its processes."""

    api: AirflowApi
    components: Components

    def task_processes(self) -> list[psutil.Process]:
        """The scheduler's workers, their tasks and the commands of these."""
        return self.components.descendants("scheduler")

    def kill_scheduler(self) -> None:
        """SIGKILL for the scheduler and all its descendants; it is started again, as in a cluster."""
        self.components.kill("scheduler")
        self.components.restart("scheduler")

    def ended(self, dag: str, run: str) -> str:
        """The state of the run, once it has ended."""
        states = ("success", "failed")
        return until(lambda: (s := self.api.run_state(dag, run)) in states and s, f"run {run}", every_s=1)


@contextmanager
def started_airflow(
    folder: Path, airflow: Airflow, metadata_url: str, settings: Mapping[str, str]
) -> Iterator[StartedAirflow]:
    """Healthy, with this checkout's DAGs and a migrated database; all processes end with the block."""
    home = folder / "airflow"
    home.mkdir()
    login = new_login(home)
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        variables = {**settings, **environment(home, metadata_url, port, ROOT, login), **_QUICK}
        components = stack.enter_context(Components(airflow.server, variables, home))
        for name, arguments in component_arguments(port).items():
            components.start(name, arguments)
        api = AirflowApi(f"http://127.0.0.1:{port}", login, components.check)
        api.wait_until_healthy(LONGEST_S)
        yield StartedAirflow(api, components)


def component_arguments(port: int) -> dict[str, Sequence[str]]:
    """Of each component by name; a fork does not look for the address of its API server when it starts."""
    more = {
        "api-server": ("api-server", "--host", "127.0.0.1", "--port", str(port)),
        "triggerer": ("triggerer", "--skip-serve-logs"),
    }
    return {**COMPONENTS, **more}


def until(look: Callable[[], Found], what: str, every_s: float = 0.2) -> Found:
    """The first result of `look` that is not empty; each look costs its target CPU time, too."""
    deadline = time.monotonic() + LONGEST_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(every_s)
    return found

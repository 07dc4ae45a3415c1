"""A process that has imported Airflow, and forks for each script, command and component of the tests.

Importing Airflow, its REST API included, takes some seconds of CPU, and tests need it dozens of times. So
does making the API that tasks talk to. A fork initializes Airflow in its environment, as a new process does.

    python -m tests.airflow.preloaded FOLDER        # prints the path of its socket; ends when stdin does
"""

import inspect
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.forks import import_for_forks, serve

_LOOK_S = 0.02
# Imports that take long, that scripts, commands and components are likely to need, and that read no database.
# No module of this package: a fork imports those, in the order of a new process.
_MODULES = (
    "airflow.api_fastapi.app",
    "airflow.api_fastapi.core_api.routes.public",
    "airflow.api_fastapi.core_api.routes.ui",
    "airflow.api_fastapi.execution_api.routes",
    "airflow.cli.cli_parser",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.manager",
    "airflow.executors.local_executor",
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.models.serialized_dag",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.sdk.execution_time.task_runner",
    "fastapi.testclient",
    "kubernetes.client",
    "kubernetes_asyncio.client",
)
# Read the place of the logs when they are imported.
_OF_AN_ENVIRONMENT = ("airflow.config_templates.airflow_local_settings",)


def _make_api_of_tasks() -> None:
    """The first one of a fork is made here: for each version of the API Airflow makes all routes again, which
    takes 1.5 s of CPU time in each run by `DAG.test`, in each API server and in each triggerer. It is the
    same in any environment, except for what begins and ends with it."""
    from airflow.api_fastapi import app as server
    from airflow.api_fastapi.execution_api import app as tasks

    create, usual = tasks.create_task_execution_api_app, tasks.lifespan
    made = [create()]
    made[0]._cadwyn_initialize()

    def first_made_before(lifespan: Any = usual) -> Any:
        if not made:
            return create(lifespan)
        made[0].router.lifespan_context = lifespan
        return made.pop()

    tasks.create_task_execution_api_app = server.create_task_execution_api_app = first_made_before


def _look_for_tasks_at_once() -> None:
    """`DAG.test` sleeps for a second whenever no task can start at once, as when one after another is
    skipped: six times in a run, while nothing happens that it could wait for."""
    from airflow.sdk import DAG

    sleep, test = time.sleep, inspect.unwrap(DAG.test).__code__

    def shorter(seconds: float) -> None:
        sleep(_LOOK_S if sys._getframe(1).f_code is test else seconds)

    time.sleep = shorter


def _initialize() -> None:
    from airflow import settings

    for name in _OF_AN_ENVIRONMENT:
        sys.modules.pop(name, None)
    settings.dispose_orm(do_log=False)
    settings.initialize()


if __name__ == "__main__":
    before = dict(os.environ)
    import_for_forks(_MODULES)
    _make_api_of_tasks()
    _look_for_tasks_at_once()
    serve(Path(sys.argv[1]) / "socket", before, _initialize)

"""A process that has imported Airflow, and forks for each script and command of the tests.

Importing Airflow, its REST API included, takes some seconds of CPU, and tests need it dozens of times. A fork
initializes Airflow in its environment, as a new process does.

    python -m tests.airflow.preloaded FOLDER        # prints the path of its socket; ends when stdin does
"""

import os
import sys
from importlib import import_module
from pathlib import Path

from tests.forks import serve


def _import_airflow() -> None:
    """All that takes long and that scripts and commands are likely to need, without a look at a database."""
    for name in (
        "airflow.api_fastapi.app",
        "airflow.api_fastapi.core_api.routes.public",
        "airflow.api_fastapi.core_api.routes.ui",
        "airflow.api_fastapi.execution_api.routes",
        "airflow.cli.cli_parser",
        "airflow.dag_processing.dagbag",
        "airflow.models.serialized_dag",
        "airflow.sdk.execution_time.task_runner",
        "fastapi.testclient",
    ):
        import_module(name)


def _initialize() -> None:
    from airflow import settings

    settings.dispose_orm(do_log=False)
    settings.initialize()


if __name__ == "__main__":
    before = dict(os.environ)
    _import_airflow()
    serve(Path(sys.argv[1]) / "socket", before, _initialize)

"""What runs whose stages are pods of the fake cluster have in common."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from tests.forks import Fork, piped
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.environment import Image
from tests.preloaded_commands import command_server
from tests.shared_folder import SharedFolder

SPACE, IMAGE = "laion", "laion-etl-worker:test"
_AT_WORK = """
    select 1 from pg_stat_activity where application_name = 'laion_etl' and datname = current_database()
"""


def worker_image(shared: SharedFolder, data: Path, environment: Mapping[str, str] | None = None) -> Image:
    """The image of the stages; their data folder is `data`.

    It has no settings for threads and BLAS kernels, unlike the reference run: the scores are the same. In
    this user's home the kernels are compiled already, as they are in the real image. Its `laion-etl` is
    forked: it need not import torch for each pod.
    """
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    home = {"HOME": str(Path.home())}

    def start(command: Sequence[str], variables: Mapping[str, str], folder: Path) -> Fork:
        program, *arguments = command
        assert program == "laion-etl"
        server = command_server(shared, variables)  # the first pod starts it
        return piped(server, ["-m", "laion_etl", *arguments], variables, folder)

    return Image(
        environment={**path, **(environment or {})},
        mounts={**home, "LAION_ETL_DATA_DIR": str(data)},
        start=start,
    )


def airflow_settings(cluster: Cluster) -> dict[str, str]:
    """Settings of an Airflow that starts the pods there, with short waits."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(cluster.kubeconfig)}}
    return {
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(connection),
        "LAION_ETL_TASK_RETRIES": "2",
        "LAION_ETL_TASK_RETRY_DELAY_S": "1",
        "LAION_ETL_TASK_RESTART_DELAY_S": "1",
        "LAION_ETL_KUBERNETES_IMAGE": IMAGE,
        "LAION_ETL_KUBERNETES_NAMESPACE": SPACE,
        "LAION_ETL_KUBERNETES_SECRETS": "database",
        "LAION_ETL_KUBERNETES_POLL_S": "1",
        "LAION_ETL_KUBERNETES_LOGS_S": "20",
    }


class Observer:
    """Asks a database many times by one connection, made anew after the server was away: a new one for each
    question would take more CPU time than what is observed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None

    def first_row(self, query: LiteralString) -> tuple[Any, ...] | None:
        """Raises OperationalError while the server is away."""
        if self._connection is not None:
            with suppress(psycopg.OperationalError):
                return self._connection.execute(query).fetchone()
        self._connection = psycopg.connect(self._url, autocommit=True)
        return self._connection.execute(query).fetchone()


def at_work(database: str) -> Callable[[], bool]:
    """Whether a command talks with the database; not while the server is away."""
    observer = Observer(database)

    def found() -> bool:
        with suppress(psycopg.OperationalError):
            return observer.first_row(_AT_WORK) is not None
        return False

    return found

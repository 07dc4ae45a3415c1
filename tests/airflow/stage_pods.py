"""What runs whose stages are pods of the fake cluster have in common."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.environment import Image

SPACE, IMAGE = "laion", "laion-etl-worker:test"


def worker_image(data: Path, environment: Mapping[str, str] | None = None) -> Image:
    """The image of the stages; their data folder is `data`.

    It has no settings for threads and BLAS kernels, unlike the reference run: the scores are the same. In
    this user's home the kernels are compiled already, as they are in the real image.
    """
    return Image(
        environment={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(environment or {})},
        mounts={"HOME": str(Path.home()), "LAION_ETL_DATA_DIR": str(data)},
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
        "LAION_ETL_KUBERNETES_POLL_S": "0.5",
        "LAION_ETL_KUBERNETES_LOGS_S": "1",
    }


def at_work(database: str) -> Callable[[], bool]:
    """Whether a command talks with the database; not while the server is away."""

    def found() -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(database) as connection:
            working = "select 1 from pg_stat_activity where application_name = 'laion_etl' and datname = "
            return connection.execute(working + "current_database()").fetchone() is not None
        return False

    return found

"""Settings of what the DAGs' tasks use of Airflow."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import not_empty
from laion_etl.settings.fields import Group, setting


@dataclass(frozen=True, slots=True)
class AirflowSettings(Group):
    """What the DAGs' tasks use of Airflow, and the other Python of the runner venv."""

    GROUP: ClassVar[str] = "airflow"

    parse_pool: str = setting(
        "default_pool",
        "Pool of parse tasks. A pool has to exist, or its tasks wait for ever; docker/pools.json has "
        "laion_parse, laion_download and laion_gpu.",
        changes=None,
        check=not_empty,
    )
    download_pool: str = setting(
        "default_pool", "Pool of download tasks, such as laion_download.", changes=None, check=not_empty
    )
    score_pool: str = setting(
        "default_pool", "Pool of score tasks, such as laion_gpu.", changes=None, check=not_empty
    )
    s3_conn_id: str = setting(
        "",
        "Airflow connection (type aws) whose keys, region and endpoint commands get that run on Airflow's "
        "machine. Empty: what boto3 finds by itself. Pods have a Secret or a service account.",
        changes=None,
    )
    venv: str = setting(
        "",
        "Runner venv: path of that environment's python, or of its laion-etl. No default.",
        changes=None,
    )

"""Settings of the pools and connections of Airflow that the DAGs' tasks use."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import not_empty
from laion_etl.settings.fields import Group, setting


@dataclass(frozen=True, slots=True)
class AirflowSettings(Group):
    """Pools and connections of Airflow that the DAGs' tasks use, and the Python of the runner venv."""

    GROUP: ClassVar[str] = "airflow"

    parse_pool: str = setting(
        "default_pool",
        "Pool of parse tasks. A pool must exist, or its tasks never start; docker/pools.json has "
        "laion_parse, laion_load, laion_plan, laion_download, laion_gpu and laion_publish.",
        changes=None,
        check=not_empty,
    )
    load_pool: str = setting(
        "default_pool",
        "Pool of load tasks, such as laion_load. Loaders beyond its slots wait in Airflow instead of for "
        "each other in Postgres: there they take no slot and no pod, and their time limit does not run.",
        changes=None,
        check=not_empty,
    )
    plan_pool: str = setting(
        "default_pool",
        "Pool of the tasks that plan ranges of a crawl's keys, such as laion_plan.",
        changes=None,
        check=not_empty,
    )
    plan_ranges: int = setting(
        16,
        "Largest number of tasks that plan a crawl side by side, each some of its windows "
        "(LAION_ETL_PLAN_WINDOW_PAIRS). A crawl of one window is planned by the task plan alone.",
        changes=None,
        unit="tasks",
        minimum=1,
        maximum=1_024,
    )
    download_pool: str = setting(
        "default_pool", "Pool of download tasks, such as laion_download.", changes=None, check=not_empty
    )
    score_pool: str = setting(
        "default_pool", "Pool of score tasks, such as laion_gpu.", changes=None, check=not_empty
    )
    publish_pool: str = setting(
        "default_pool",
        "Pool of the tasks that publish ranges of a crawl's batches, such as laion_publish.",
        changes=None,
        check=not_empty,
    )
    s3_conn_id: str = setting(
        "",
        "Airflow connection (type aws) with keys, region and endpoint for commands that run on Airflow's "
        "machine. Empty: boto3's own configuration. Pods use a Secret or a service account.",
        changes=None,
    )
    venv: str = setting(
        "",
        "Runner venv: path of the environment's python, or of its laion-etl. No default.",
        changes=None,
    )

"""The crawls in Airflow: DAGs, operators, pods, alerts, pages. No other package of laion_etl imports it.

An installed laion_etl registers its plugin with Airflow itself. Its DAGs need a file in Airflow's DAG folder:

    from laion_etl.airflow import crawl_dags, new_crawls_dag
    globals().update(crawl_dags(), new_crawls=new_crawls_dag())

`StageOperator` is for DAGs of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from laion_etl.airflow.crawl_dag import crawl_dags as crawl_dags
    from laion_etl.airflow.new_crawls_dag import new_crawls_dag as new_crawls_dag
    from laion_etl.airflow.operators import StageOperator as StageOperator

_MODULES = {
    "StageOperator": "laion_etl.airflow.operators",
    "crawl_dags": "laion_etl.airflow.crawl_dag",
    "new_crawls_dag": "laion_etl.airflow.new_crawls_dag",
}

__all__ = ["StageOperator", "crawl_dags", "new_crawls_dag"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the plugin uses other modules."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found
    return found

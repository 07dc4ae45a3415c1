"""What the tasks of all our DAGs share: retries and alerts, the parameter that selects WAT files, assets."""

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, Param, get_current_context

from laion_alerts import TaskFailed
from laion_etl.settings import load_settings

SETTINGS = load_settings()

DEFAULTS: dict[str, Any] = {
    "owner": "laion_etl",
    "retries": SETTINGS.core.task_retries,
    "retry_delay": timedelta(seconds=SETTINGS.core.task_retry_delay_s),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
    "on_failure_callback": TaskFailed(),
}

# What a crawl has produced, for DAGs of others: `schedule=Asset("laion_dataset")`. One of each for all dumps;
# the event says which dump it was, and where the result is.
PAIRS = Asset("laion_pairs", uri="x-laion-etl://pairs")
SHARDS = Asset("laion_shards", uri="x-laion-etl://shards")
DATASET = Asset("laion_dataset", uri="x-laion-etl://dataset")


def wat_files_param(description: str) -> Param:
    """A selection of WAT files, as `--wat-files` takes it."""
    return Param(
        "", type="string", pattern=r"^(\d+|\d+:\d*|:\d+)?$", title="WAT files", description=description
    )


def produced(asset: Asset, **what: Any) -> None:
    """Notes on the event of a task's asset what it stands for."""
    get_current_context()["outlet_events"][asset].extra = what

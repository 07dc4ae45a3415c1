"""What all tasks of laion_etl's DAGs have in common: retries and alerts."""

from datetime import timedelta
from typing import Any

from laion_etl.airflow.alerts import TaskFailed, TaskSucceeded
from laion_etl.settings import Settings


def task_defaults(settings: Settings) -> dict[str, Any]:
    """Return the `default_args` of a DAG."""
    return {
        "owner": "laion_etl",
        "retries": settings.core.task_retries,
        "retry_delay": timedelta(seconds=settings.core.task_retry_delay_s),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=30),
        "on_failure_callback": TaskFailed(),
        "on_success_callback": TaskSucceeded(),
        "on_skipped_callback": TaskSucceeded(),
    }

"""What tasks of laion_etl's DAGs have in common: retries, alerts, trigger rules, parameters."""

from datetime import timedelta
from typing import Any

from airflow.sdk import TriggerRule

from laion_etl.airflow.alerts import TaskFailed, TaskSucceeded
from laion_etl.settings import Settings

# A failed partition or worker does not block the others: later tasks continue with those that
# succeeded, and the verdict at the end fails the run.
GO_ON = TriggerRule.ALL_DONE_MIN_ONE_SUCCESS

# The share that may be missing, of what is scored as of what is published.
ALLOWED = "{{ params.allow_missing_percent / 100 }}"


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

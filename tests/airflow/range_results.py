"""A script for `Airflow.run`: what the task plan_range returns for each result of its command, as JSON."""

import json
import sys
from typing import Any, cast

from airflow.sdk import Context

from laion_etl.airflow.crawl_results import range_planned
from laion_etl.airflow.errors import FinalError, retry_helps


class TaskInstance:
    """Keeps what a task passes on."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    task = TaskInstance()
    try:
        value = range_planned(result, cast("Context", {"ti": task}))
    except FinalError as error:
        return {"error": str(error), "retried": retry_helps(error), "pushed": task.pushed}
    return {"value": value, "pushed": task.pushed}


print(json.dumps([outcome(result) for result in json.loads(sys.argv[1])]))

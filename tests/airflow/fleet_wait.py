"""A script of test_fleet.py: waits for a queue as task and triggerer do. Prints one JSON line.

    python tests/airflow/fleet_wait.py CRAWL

Both queues, of downloads and of scores, are stalled at once; after the alert this script does the batch that
is left.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import AirflowException, TaskDeferred
from structlog.testing import capture_logs

from laion_etl.airflow import queue_trigger
from laion_etl.airflow.crawl_dag import crawl_dag
from laion_etl.airflow.errors import retry_helps
from laion_etl.airflow.fleet import FleetOperator
from laion_etl.alerts import Alert
from laion_etl.core.consumers import QueueState
from laion_etl.core.errors import SettingsError
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import known_crawls
from laion_etl.database.connection import open_database
from laion_etl.database.queue import QueueStage, queue_of
from laion_etl.io.storage import open_store
from laion_etl.settings import load_settings

notify = queue_trigger.notify


def context(**params: object) -> dict[str, Any]:
    task = SimpleNamespace(
        dag_id=f"crawl_{sys.argv[1]}", run_id="r", task_id="download", map_index=-1, try_number=1, log_url=""
    )
    return {"ti": task, "params": params}


def deferred(operator: FleetOperator) -> TaskDeferred:
    try:
        FleetOperator.execute.__wrapped__(operator, context())  # type: ignore[attr-defined]
    except TaskDeferred as found:
        return found
    raise AssertionError("the task did not wait")


def refused(operator: FleetOperator) -> str:
    try:
        FleetOperator.execute.__wrapped__(operator, context(store_prefix="x"))  # type: ignore[attr-defined]
    except SettingsError as error:
        return str(error)
    return ""


def alerts() -> list[Mapping[str, Any]]:
    store = open_store(load_settings().store_uri)
    return [json.loads(store.read(name)) for name in store.list("alerts/") if name.endswith(".json")]


def do_what_is_left(stage: QueueStage) -> None:
    settings = load_settings()
    with open_database(settings) as database:
        queue = queue_of(sys.argv[1], settings.download, database, stage)
        claim = queue.claim()
        assert claim is not None
        queue.complete(claim, StageStats(stage.name.lower(), sys.argv[1], str(claim.batch), "f", 1, 1))


async def waited(trigger: queue_trigger.QueueTrigger) -> dict[str, Any]:
    _, arguments = trigger.serialize()  # as a triggerer gets it
    async for event in queue_trigger.QueueTrigger(**arguments).run():
        return dict(event.payload)
    raise AssertionError("the trigger ended without an event")


def resumed(operator: FleetOperator, event: Mapping[str, Any], allow_missing_percent: float = 0) -> object:
    """What the task returns, or its error and whether it is tried again."""
    try:
        return operator.resume(context(allow_missing_percent=allow_missing_percent), dict(event))  # type: ignore[arg-type]
    except AirflowException as error:
        return [retry_helps(error), str(error)]


def fleet(operator: FleetOperator) -> dict[str, Any]:
    """What the task of a consumer does from its start to its end."""

    def notified(alert: Alert) -> None:
        """Delivers the alert; then the fleet does its work."""
        notify(alert)
        do_what_is_left(QueueStage[operator.consumer.upper()])

    queue_trigger.notify = notified
    trigger = deferred(operator).trigger
    with capture_logs() as lines:
        event = asyncio.run(waited(trigger))
    four = asdict(QueueState(open=0, at_work=0, finished=3, parked=1))
    return {
        "after": sorted(operator.upstream_task_ids),
        "before": sorted(operator.downstream_task_ids),
        "refused": refused(operator),
        "lines": [line["event"] for line in lines],
        "event": event,
        "result": resumed(operator, event),
        "a quarter parked": {percent: resumed(operator, four, percent) for percent in (24, 25)},
    }


def main() -> None:
    queue_trigger._MIN_DEFERRED_S = 0.0
    (crawl,) = [one for one in known_crawls(load_settings()) if one.id == sys.argv[1]]
    dag = crawl_dag(crawl, load_settings())
    operators = [task for task in dag.tasks if isinstance(task, FleetOperator)]
    found: dict[str, Any] = {operator.task_id: fleet(operator) for operator in operators}
    found["alerts"] = [alert["reason"] for alert in alerts()]
    trigger = deferred(operators[0]).trigger
    url = os.environ["LAION_ETL_DATABASE_URLS"]
    for case, other in (("no database", ""), ("refusing", url.replace("?", "_missing?"))):
        os.environ["LAION_ETL_DATABASE_URLS"] = other
        found[case] = resumed(operators[0], asyncio.run(waited(trigger)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

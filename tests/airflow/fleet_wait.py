"""A script of test_fleet.py: waits for a queue as task and triggerer do. Prints one JSON line.

    python tests/airflow/fleet_wait.py CRAWL

The queue is stalled at once; after the alert this script does the batch that is left.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import AirflowException, TaskDeferred
from structlog.testing import capture_logs

from laion_etl.airflow import queue_trigger
from laion_etl.airflow.crawl_dag import crawl_dag
from laion_etl.airflow.fleet import FleetOperator
from laion_etl.alerts import Alert
from laion_etl.core.errors import SettingsError
from laion_etl.core.stage_stats import StageStats
from laion_etl.crawl import known_crawls
from laion_etl.database.connection import open_database
from laion_etl.download.worker import open_queue
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


def do_what_is_left() -> None:
    settings = load_settings()
    with open_database(settings) as database:
        queue = open_queue(sys.argv[1], settings, database)
        claim = queue.claim()
        assert claim is not None
        queue.complete(claim, StageStats("download", sys.argv[1], str(claim.batch), "f", 1, 1))


def notified(alert: Alert) -> None:
    """Delivers the alert; then the fleet does its work."""
    notify(alert)
    do_what_is_left()


async def waited(trigger: queue_trigger.QueueTrigger) -> dict[str, Any]:
    _, arguments = trigger.serialize()  # as a triggerer gets it
    async for event in queue_trigger.QueueTrigger(**arguments).run():
        return dict(event.payload)
    raise AssertionError("the trigger ended without an event")


def main() -> None:
    queue_trigger._MIN_DEFERRED_S = 0.0
    queue_trigger.notify = notified
    (crawl,) = [one for one in known_crawls(load_settings()) if one.id == sys.argv[1]]
    dag = crawl_dag(crawl, load_settings())
    operator = dag.get_task("download")
    assert isinstance(operator, FleetOperator)
    with capture_logs() as lines:
        event = asyncio.run(waited(deferred(operator).trigger))  # type: ignore[arg-type]
    try:
        parked = str(operator.resume({}, event | {"parked": 2}))
    except AirflowException as error:
        parked = str(error)
    print(
        json.dumps(
            {
                "after": sorted(operator.upstream_task_ids),
                "before": sorted(operator.downstream_task_ids),
                "refused": refused(operator),
                "alerts": [alert["reason"] for alert in alerts()],
                "lines": [line["event"] for line in lines],
                "event": event,
                "result": operator.resume({}, event),
                "parked": parked,
            }
        )
    )


if __name__ == "__main__":
    main()

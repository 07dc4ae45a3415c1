"""A script for `Airflow.run`: single tries of tasks, with the triggerer's part in them, but no scheduler.

It takes cases as JSON, runs them side by side, and prints one JSON line: the outcome of each.
"""

import asyncio
import json
import logging
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize, serialize

from laion_etl.airflow import pod_trigger, pods
from laion_etl.airflow.commands import Command, run_in_venv
from laion_etl.airflow.pods import stage_pod
from laion_etl.core.errors import StoreOutageError

TIMEOUT = timedelta(hours=8)


class Lines(logging.Handler):
    """What the tasks' own logger writes, by thread: a case has one."""

    def __init__(self) -> None:
        super().__init__()
        self.of_thread: dict[int, list[str]] = defaultdict(list)

    def emit(self, record: logging.LogRecord) -> None:
        self.of_thread[threading.get_ident()].append(record.getMessage())


LINES = Lines()


def as_stored(value: Any) -> Any:
    """A value as it comes back from Airflow's database."""
    return deserialize(json.loads(json.dumps(serialize(value))))


async def first_event(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


SHIFT = threading.local()
REAL_TIME = time.time


@contextmanager
def elsewhere() -> Iterator[None]:
    """On the machine of the triggerer, whose clock is an hour behind."""
    SHIFT.seconds = -3_600.0
    yield
    SHIFT.seconds = 0.0


def shifted_time() -> float:
    return REAL_TIME() + getattr(SHIFT, "seconds", 0.0)


def one_try(case: dict[str, Any]) -> dict[str, Any]:
    """Kind and text of its outcome, its log, its waits, and by how much its time limit was put off."""
    LINES.of_thread[threading.get_ident()] = log = []
    crawl, waits, deadline = case["crawl"], 0, 0.0
    task = SimpleNamespace(
        dag_id=f"crawl_{crawl}",
        run_id="run",
        task_id=case.get("stage", "parse"),
        map_index=-1,
        try_number=1,
        start_date=datetime.now(UTC),
        xcom_push=lambda **_: None,
    )
    context: dict[str, Any] = {"ti": task, "run_id": task.run_id, "dag": None}
    command = Command([task.task_id, "--crawl", crawl], context, case.get("settings", {}))
    event: Any = None
    while True:
        try:
            if case["runner"] == "venv":
                outcome = ["result", run_in_venv(command)]
            elif event is None:
                outcome = ["result", stage_pod(command, TIMEOUT).run(context)]
            else:
                outcome = ["result", stage_pod(command, TIMEOUT).resume(context, event)]
        except TaskDeferred as deferred:
            path, arguments = deferred.trigger.serialize()
            arguments = as_stored(arguments)
            with elsewhere():
                event = as_stored(asyncio.run(first_event(import_string(path)(**arguments))))
            if event["status"] == pod_trigger.WAITED:
                waits += 1
                event[pod_trigger.MEASURED_S] += case.get("longer_s", 0)
            else:
                deadline = arguments["trigger_kwargs"]["_execution_deadline"]
            continue
        except Exception as error:  # noqa: BLE001 - each fails a task and costs it a try
            outcome = [type(error).__name__, str(error)]
        put_off_s = deadline - (task.start_date + TIMEOUT).timestamp() if deadline else 0
        return {"outcome": outcome, "log": log, "waits": waits, "put_off_s": put_off_s}


def with_outages(open_store: Any, outages: dict[str, int]) -> Any:
    """`open_store` of the operator; the results of a crawl cannot be read so often."""

    def opened(folder: str) -> Any:
        crawl = next((crawl for crawl in outages if f"/{crawl}/" in folder), None)
        if crawl is not None and outages[crawl] > 0:
            outages[crawl] -= 1
            raise StoreOutageError(f"cannot read {folder}: it does not answer")
        return open_store(folder)

    return opened


def main() -> None:
    time.time = shifted_time
    pod_trigger._MIN_DEFERRED_S = 0.0  # there is no scheduler that could be too early
    pod_trigger._LOST_AFTER_S = -60.0  # a lost node is given up when it is first seen
    logger = logging.getLogger("laion_etl.stage")
    logger.setLevel(logging.INFO)
    logger.addHandler(LINES)
    cases = json.loads(sys.argv[1])
    outages = {case["crawl"]: case.get("store_outages", 0) for case in cases}
    pods.open_store = with_outages(pods.open_store, outages)
    began = time.monotonic()
    with ThreadPoolExecutor(len(cases)) as threads:
        outcomes = dict(zip((case["crawl"] for case in cases), threads.map(one_try, cases), strict=True))
    print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()

"""A script for `Airflow.run_dags`: runs DAG runs with their real tasks in this process, as DAG.test does.

`DAG.test` makes manual runs only. The runs here are of any type, and may have been made before by Airflow's
own commands, so that tasks get them as a scheduler hands them out. Prints one JSON line, a list of outcomes.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch

from airflow import settings
from airflow.dag_processing.dagbag import DagBag
from airflow.models.asset import AssetEvent
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.timetables.base import DataInterval
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select


def made(case: dict[str, Any]) -> str:
    """A new run of the case's type; returns its id."""
    dag = SerializedDagModel.get_dag(case["dag"])
    kind, after = DagRunType(case["type"]), datetime.fromisoformat(case["run_after"])
    months = case.get("interval")
    interval = DataInterval(*map(datetime.fromisoformat, months)) if months else None
    run_id = kind.generate_run_id(suffix=case["run_after"])
    dag.create_dagrun(
        run_id=run_id,
        logical_date=interval.start if interval else None,
        data_interval=interval,
        run_after=after,
        run_type=kind,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.QUEUED,
        conf=case.get("conf"),
    )
    return run_id


@contextmanager
def runs_of_tests(case: dict[str, Any], run_id: str) -> Iterator[None]:
    """Within the block `DAG.test` uses this run instead of a new manual one."""

    def existing(*, dag: Any, session: Any, **_: Any) -> DagRun:
        run = session.scalars(
            select(DagRun).where(DagRun.dag_id == case["dag"], DagRun.run_id == run_id)
        ).one()
        run.dag = dag
        run.state = DagRunState.RUNNING
        run.start_date = datetime.fromisoformat(case["began"])
        session.commit()
        return run

    with patch("airflow.models.dagrun.get_or_create_dagrun", existing):
        yield


def events() -> list[tuple[str, object]]:
    """All asset events so far, the oldest first: name and extra."""
    found = settings.Session().scalars(select(AssetEvent).order_by(AssetEvent.id)).all()
    return [(event.asset.name, event.extra) for event in found]


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    """State of the run, state and tries of its tasks, and its asset events."""
    before = len(events())
    run_id = case.get("run_id") or made(case)
    dag = DagBag().dags[case["dag"]]  # parsed again: a run leaves its conf in the params of its DAG
    dag.deadline = None  # DAG.test looks it up by its id, which only DAGs read from the database have
    with runs_of_tests(case, run_id):
        run = dag.test()
    tasks = run.get_task_instances(session=settings.Session())
    return {
        "run_id": run_id,
        "state": str(run.state),
        "tasks": {
            task.task_id + (f"[{task.map_index}]" if task.map_index >= 0 else ""): [
                str(task.state),
                task.try_number,
            ]
            for task in tasks
        },
        "events": events()[before:],
    }


if __name__ == "__main__":
    print(json.dumps([outcome(case) for case in json.loads(sys.argv[1])]))

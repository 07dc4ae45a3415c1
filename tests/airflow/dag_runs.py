"""Runs DAGs, each with a conf, task by task in this process; prints their outcomes as JSON.

python dag_runs.py '[["crawl_CC-MAIN-2024-38", {"wat_files": "0:2"}]]'
"""

import json
import sys

from airflow.dag_processing.dagbag import DagBag
from airflow.models.asset import AssetEvent
from airflow.utils.session import create_session
from sqlalchemy import select


def events() -> list[tuple[str, object]]:
    """All asset events so far, the oldest first: name and extra."""
    with create_session() as session:
        found = session.scalars(select(AssetEvent).order_by(AssetEvent.id)).all()
        return [(event.asset.name, event.extra) for event in found]


def main() -> None:
    found = []
    for dag_id, conf in json.loads(sys.argv[1]):
        dag = DagBag().dags[dag_id]  # parsed again: a run leaves its conf in the params of its DAG
        dag.deadline = None  # dag.test looks it up by its id, which only DAGs read from the database have
        before = len(events())
        run = dag.test(logical_date=None, run_conf=conf)
        tasks = {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in run.get_task_instances()}
        found.append({"state": str(run.state), "tasks": tasks, "events": events()[before:]})
    print(json.dumps(found))


main()

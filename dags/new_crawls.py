"""New dumps: once a month the crawl's index is asked, what is new gets a DAG, and that DAG is started.

    register -> choose -> start[dump]

A scheduled run starts the newest dump that has never been run, if it is recent; a backfill over some months
starts the dumps released in each of them.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, get_current_context, task
from pendulum import datetime as moment

from laion_stage import Stage, stage
from laion_tasks import DEFAULTS, Section, wat_files_param

_RECENT = timedelta(days=120)

PARAMS = {
    "most": Param(
        1,
        type="integer",
        minimum=1,
        maximum=20,
        section=Section.HOW_MANY.value,
        title="Crawls to start, at most",
        description="How many new crawls a scheduled or manual run starts, the newest first.",
    ),
    "wat_files": wat_files_param(
        "Which WAT files of each crawl to work on: 0:2 is the first two. Leave it empty for all of them."
    ),
}


@stage(execution_timeout=timedelta(minutes=15))
def register() -> Stage[list[dict[str, str]]]:
    """Asks the index for dumps and makes new ones known; returns all, newest first."""
    found = yield ["crawls", "--refresh", "--register"]
    return found["crawls"]


@task
def choose(dumps: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What to start: arguments of a trigger for each dump."""
    context = get_current_context()
    run, params, count = context["dag_run"], context["params"], context["ti"].get_dr_count
    if str(run.run_type) == "backfill":
        first, end = (day.date() for day in (run.data_interval_start, run.data_interval_end))
        chosen = [dump["id"] for dump in dumps if str(first) <= dump["released"] < str(end)]
    else:
        since = str((run.run_after - _RECENT).date())
        recent = [dump["id"] for dump in dumps if dump["released"] >= since]
        chosen = [crawl for crawl in recent if not count(dag_id=f"crawl_{crawl}")][: params["most"]]
    return [
        {
            "trigger_dag_id": f"crawl_{crawl}",
            "trigger_run_id": f"{run.run_id}__{crawl}",  # a retry finds the run it made
            "conf": {"wat_files": params["wat_files"]},
        }
        for crawl in chosen
    ]


with DAG(
    dag_id="new_crawls",
    description="Registers new dumps every month and starts their DAGs",
    schedule=CronDataIntervalTimetable("@monthly", timezone="UTC"),
    start_date=moment(2013, 1, 1),
    catchup=False,
    is_paused_upon_creation=True,  # whatever Airflow's default is: it starts what costs money
    max_active_runs=1,
    default_args=DEFAULTS,
    params=PARAMS,
    tags=["laion_etl"],
    doc_md=__doc__,
) as dag:
    # The DAG of a dump just registered comes with the next reading of the DAG files, within minutes.
    TriggerDagRunOperator.partial(
        task_id="start",
        logical_date=None,
        skip_when_already_exists=True,
        retries=12,
        retry_delay=timedelta(minutes=1),
    ).expand_kwargs(choose(register()))

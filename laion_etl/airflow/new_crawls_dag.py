"""Finds new crawls every month, gives each a DAG, and starts the newest one.

    register -> choose -> start[crawl]

What a run starts depends on how it was created:

- *Schedule*: on the first of each month, the newest crawl that has never run and was released in the last
  120 days (more than one if *Crawls to start, at most* allows it), with all its WAT files unless the
  parameter *WAT files* selects some.
- *Turning this DAG on* starts nothing. Airflow then creates the run of the previous month; a run that begins
  more than a day after its date only registers crawls, and the log of `choose` lists what it would have
  started. The first crawl is started on the first of the next month.
- *Trigger* starts the same crawls at once. So does clearing a run: both are requests by a person.
- *Backfill* over some months starts every crawl released in them, including those that have run before.

A crawl whose DAG is paused cannot be started: `start` fails at once and explains how to unpause it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, get_current_context, task
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRuntimeError,
    AirflowSkipException,
)
from airflow.utils.types import DagRunType
from pendulum import datetime as moment

from laion_etl.airflow.operators import StageOperator
from laion_etl.airflow.run_params import Section, wat_files_param
from laion_etl.airflow.task_defaults import task_defaults
from laion_etl.settings import load_settings

_RECENT = timedelta(days=120)
_ON_TIME = timedelta(days=1)  # a scheduler may have been down over midnight

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


def register() -> StageOperator:
    """Ask Common Crawl's index for crawls and register new ones; returns all, newest first."""
    return StageOperator(
        task_id="register",
        stage="crawls",
        arguments=["--refresh", "--register"],
        on_result=lambda found, _: found["crawls"],
        runner="local",  # it saves new crawls in a file that Airflow's components read
        execution_timeout=timedelta(minutes=15),
        doc_md=register.__doc__,
    )


@task
def choose(crawls: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Decide which crawls to start; returns the arguments of `start` for each."""
    context = get_current_context()
    run, params = context["dag_run"], context["params"]
    if run.run_type.value == DagRunType.BACKFILL_JOB.value:
        chosen = _released_in_its_month(crawls, run)
    else:
        chosen = _never_run(crawls, run, context["ti"], params["most"])
        _skip_if_late(run, chosen)
    return [
        {
            "trigger_dag_id": f"crawl_{crawl}",
            "trigger_run_id": f"{run.run_id}__{crawl}",  # a retry finds the run of the previous try
            "conf": {"wat_files": params["wat_files"]},
        }
        for crawl in chosen
    ]


class StartCrawl(TriggerDagRunOperator):
    """Trigger a crawl's DAG, unless it is paused: its run would stay queued."""

    def execute(self, context: Any) -> None:
        """Raise AirflowFailException for a paused DAG, AirflowException for one that does not exist yet."""
        crawl_dag = self.trigger_dag_id
        try:
            paused = context["ti"].get_dag(crawl_dag).is_paused
        except AirflowRuntimeError as error:
            raise AirflowException(
                f"cannot start {crawl_dag}: Airflow does not know this DAG yet; it appears when the DAG "
                "files are read again, and this task is retried until then"
            ) from error
        if paused:
            raise AirflowFailException(
                f"cannot start {crawl_dag}: the DAG is paused and its run would never start; unpause it "
                f"(airflow dags unpause {crawl_dag}), then clear this task"
            )
        super().execute(context)


def _released_in_its_month(crawls: list[dict[str, str]], run: Any) -> list[str]:
    first, end = (str(day.date()) for day in (run.data_interval_start, run.data_interval_end))
    return [crawl["id"] for crawl in crawls if first <= crawl["released"] < end]


def _never_run(crawls: list[dict[str, str]], run: Any, task_instance: Any, limit: int) -> list[str]:
    """The newest crawls, at most `limit`, that are recent and whose DAGs have no runs."""
    since = str((run.run_after - _RECENT).date())
    recent = [crawl["id"] for crawl in crawls if crawl["released"] >= since]
    return [crawl for crawl in recent if not task_instance.get_dr_count(dag_id=f"crawl_{crawl}")][:limit]


def _skip_if_late(run: Any, chosen: list[str]) -> None:
    """Raise AirflowSkipException for the run that Airflow creates when this DAG is turned on."""
    late = (run.start_date or datetime.now(UTC)) - run.run_after
    if run.run_type.value != DagRunType.SCHEDULED.value or run.clear_number or late <= _ON_TIME:
        return
    raise AirflowSkipException(
        f"started nothing: this run was due on {run.run_after.date()}, {late.days} days before it began, "
        f"which happens when this DAG is turned on. It would have started {', '.join(chosen) or 'nothing'}; "
        "to start that now, trigger this DAG. The next scheduled run starts what is new then"
    )


def new_crawls_dag() -> DAG:
    """Return the monthly DAG. Raises SettingsError."""
    with DAG(
        dag_id="new_crawls",
        dag_display_name="New crawls: found and started monthly",
        description="Every month: finds new crawls and starts the newest one",
        schedule=CronDataIntervalTimetable("@monthly", timezone="UTC"),
        start_date=moment(2013, 1, 1),
        catchup=False,
        is_paused_upon_creation=True,  # regardless of Airflow's default: it starts work that costs money
        max_active_runs=1,
        default_args=task_defaults(load_settings()),
        params=PARAMS,
        tags=["laion_etl", "monthly"],
        doc_md=__doc__,
    ) as dag:
        # The DAG of a new crawl appears when the DAG files are next parsed, within minutes.
        StartCrawl.partial(
            task_id="start",
            logical_date=None,
            skip_when_already_exists=True,
            retries=12,
            retry_delay=timedelta(minutes=1),
            doc_md="Trigger the crawl's DAG; fails at once where that DAG is paused.",
        ).expand_kwargs(choose(cast("list[dict[str, str]]", register().output)))
    return dag

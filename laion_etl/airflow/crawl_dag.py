"""One DAG per known crawl: the order of its tasks. The work itself is done by laion_etl's stage commands.

    estimate -> discover -> (parse -> load)[partition] -> plan -> plan_range[range]
             -> download[worker], score[worker] -> publish -> publish_range[range] -> publish_finish
             -> digest, verdict

Download and score workers start together and claim batches from one queue, so a batch is scored soon after
its download. For a crawl of one range `plan` and `publish` do all the work themselves, and their follow-up
tasks are skipped.

Making the DAGs reads one local JSON file, the catalogue: no network, no database, no torch.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule, XComArg, get_current_context, get_parsing_context, task, task_group
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert
from airflow.sdk.definitions.mappedoperator import MappedOperator

from laion_etl.airflow import crawl_results as results
from laion_etl.airflow.alerts import RunCreated, run_is_late, send_digest
from laion_etl.airflow.crawl_params import PARAMS
from laion_etl.airflow.operators import StageOperator
from laion_etl.airflow.publish_tasks import (
    publish,
    publish_compare,
    publish_finish,
    publish_hashes,
    publish_range,
)
from laion_etl.airflow.queue_tasks import downloads, score_workers, scores, shards, workers
from laion_etl.airflow.task_defaults import GO_ON, task_defaults
from laion_etl.airflow.timetable import CrawlTimetable
from laion_etl.crawl import Crawl, known_crawls, written_numbers
from laion_etl.settings import Settings, load_settings

# The WAT files of the run; no argument, which means all of them, when the parameter is empty.
WAT_FILES = "{{ '--wat-files=' ~ params.wat_files if params.wat_files }}"

DOC = """\
Builds the image-text dataset of **{crawl.id}** ({crawl.name}, released {crawl.released}).

Press *Trigger*: by default it works on all WAT files, with `0:2` on the first two. Or backfill it over its
release date. It never starts on its own. `discover` checks the parameters of a run, and refuses rules that
differ from those under which pairs of this crawl are already planned.

Every task runs one `laion-etl` command, shown at the top of its log; copy it from there to repeat it by hand.

A red partition does not stop the others, but `publish` refuses to leave it out unless *Missing, at most (%)*
allows that; `verdict` fails the run. Fix the cause and clear the red task with *downstream*; finished work
is recognised and skipped. See docs/how-to/failed-partition.md.
"""


def crawl_dags() -> dict[str, DAG]:
    """Return the DAGs of all known crawls by their ids, for `globals().update(crawl_dags())` in a DAG file.

    Airflow's process of a task gets the DAG of that task only. Raises SettingsError.
    """
    settings = load_settings()
    wanted = get_parsing_context().dag_id
    known = ((f"crawl_{crawl.id}", crawl) for crawl in known_crawls(settings))
    return {dag: crawl_dag(crawl, settings) for dag, crawl in known if wanted in (None, dag)}


def crawl_dag(crawl: Crawl, settings: Settings) -> DAG:
    """Return the DAG of a crawl."""
    with DAG(
        dag_id=f"crawl_{crawl.id}",
        # The list of DAGs shows no description, only this name; longer ones wrap in titles and links.
        dag_display_name=f"{crawl.id}: image-text dataset",
        description=f"Builds the image-text dataset of {crawl.id} ({crawl.name})",
        schedule=CrawlTimetable(crawl.id, crawl.released),
        catchup=False,
        # It never starts on its own (see the timetable), and a run of a paused DAG would wait indefinitely.
        is_paused_upon_creation=False,
        max_active_runs=1,
        default_args=task_defaults(settings),
        tags=["laion_etl", "crawl", str(crawl.released.year)],
        doc_md=DOC.format(crawl=crawl),
        deadline=DeadlineAlert(
            reference=RunCreated(),
            interval=timedelta(days=settings.alerts.run_days),
            callback=AsyncCallback(run_is_late, kwargs={"days": settings.alerts.run_days}),
            name="run",
        ),
        user_defined_macros={"written_numbers": written_numbers},
    ) as dag:
        estimated = estimate(crawl.id)
        discovered = discover(crawl.id)
        pools = {"parse_pool": settings.airflow.parse_pool, "load_pool": settings.airflow.load_pool}
        loaded = partition.partial(crawl=crawl.id, **pools).expand(number=discovered.output)
        planned = plan(crawl.id)
        plan_ranges = plan_range(crawl.id, planned.output, settings.airflow.plan_pool)
        numbers = workers()
        downloaded = downloads(crawl.id, numbers, settings)
        score_numbers = score_workers()
        scored = scores(crawl.id, score_numbers, settings)
        published = publish(crawl.id)
        estimated >> discovered
        loaded >> planned
        [planned, plan_ranges] >> numbers
        numbers >> score_numbers
        downloaded >> shards()
        publish_ranges = publish_range(crawl.id, published.output, settings.airflow.publish_pool)
        finished = publish_finish(crawl.id)
        scored >> published  # score workers end after the downloads have
        publish_ranges >> finished
        everything = [loaded, plan_ranges, downloaded, scored, published, publish_ranges, finished]
        if settings.publish.looks_for_duplicates:
            hashed = publish_hashes(crawl.id, published.output, settings.airflow.publish_pool)
            hashed >> publish_ranges
            everything.append(hashed)
        if settings.publish.compares_ranges:
            compared = publish_compare(crawl.id, settings.airflow.publish_pool)
            hashed >> compared >> publish_ranges
            everything.append(compared)
        everything >> verdict()
        everything >> digest()
    # They were checked once. `DAG(params=...)` would check them for every DAG and copy them into every task:
    # three quarters of the parsing time with 150 crawls.
    dag.params.update(PARAMS)
    return dag


def estimate(crawl: str) -> StageOperator:
    """In a dry run, estimate the output of the WAT files; otherwise do nothing."""
    return results.EstimateOperator(
        task_id="estimate",
        stage="estimate",
        arguments=["--crawl", crawl, WAT_FILES],
        on_result=results.end_dry_run,
        execution_timeout=timedelta(minutes=15),
        doc_md=estimate.__doc__,
    )


def discover(crawl: str) -> StageOperator:
    """Check the parameters of the run and list its partitions; returns their numbers."""
    return StageOperator(
        task_id="discover",
        stage="discover",
        arguments=["--crawl", crawl, WAT_FILES],
        on_result=results.partitions,
        execution_timeout=timedelta(minutes=15),
        doc_md=discover.__doc__,
    )


def parse(crawl: str, number: Any, pool: str) -> StageOperator:
    """Extract image links with captions from the WAT files of one partition."""
    return StageOperator(
        task_id="parse",
        stage="parse",
        unit=number,
        unit_name="partition",
        arguments=["--crawl", crawl, "--partition", "{{ task.unit }}", WAT_FILES],
        pool=pool,
        execution_timeout=timedelta(hours=8),
        doc_md=parse.__doc__,
    )


def load(crawl: str, number: Any, pool: str) -> StageOperator:
    """Put the pairs of one partition into Postgres, without duplicates."""
    return StageOperator(
        task_id="load",
        stage="load",
        unit=number,
        unit_name="partition",
        arguments=["--crawl", crawl, "--partition", "{{ task.unit }}"],
        pool=pool,
        execution_timeout=timedelta(hours=2),
        doc_md=load.__doc__,
    )


@task_group(group_id="partition", tooltip="Consecutive WAT files")
def partition(crawl: str, parse_pool: str, load_pool: str, number: Any) -> None:
    """Parse and then load each partition separately."""
    parse(crawl, number, parse_pool) >> load(crawl, number, load_pool)


def plan(crawl: str) -> StageOperator:
    """Cut the loaded pairs into batches; returns the ranges that are left to do, none of a small crawl."""
    return StageOperator(
        task_id="plan",
        stage="plan",
        arguments=["--crawl", crawl, "--prepare"],
        on_result=results.plan_ranges,
        trigger_rule=GO_ON,
        execution_timeout=timedelta(hours=6),
        doc_md=plan.__doc__,
    )


def plan_range(crawl: str, ranges: XComArg, pool: str) -> MappedOperator:
    """Cut the pairs in one range of the crawl's keys into batches; skipped if `plan` has done everything."""
    return StageOperator.partial(
        task_id="plan_range",
        stage="plan",
        unit_name="range",
        arguments=["--crawl", crawl, "--range", "{{ task.unit }}"],
        on_result=results.range_planned,
        map_index_template="range {{ task.unit.replace('/', ' of ') }}",
        pool=pool,
        execution_timeout=timedelta(hours=6),
        doc_md=plan_range.__doc__,
    ).expand(unit=ranges)


@task(trigger_rule=TriggerRule.ALL_DONE, execution_timeout=timedelta(minutes=15))
def digest() -> None:
    """Send a summary of the run, whether it succeeded or not."""
    send_digest(get_current_context())


def verdict() -> EmptyOperator:
    """Succeed only if every task did: otherwise a published run would hide its failed partitions."""
    # Without its own callback the scheduler runs it, without a worker.
    return EmptyOperator(
        task_id="verdict",
        # A crawl of one range skips tasks; a dry run skips all of them, and this one.
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        doc_md=verdict.__doc__,
        on_success_callback=None,
        on_skipped_callback=None,
    )

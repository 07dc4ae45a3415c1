"""The tasks of the queue: workers that download, and workers that score what is downloaded, side by side."""

from datetime import timedelta

from airflow.sdk import TriggerRule, XComArg, get_current_context, task
from airflow.sdk.definitions.mappedoperator import MappedOperator

from laion_etl.airflow import crawl_results as results
from laion_etl.airflow.assets import PAIRS, SHARDS
from laion_etl.airflow.fleet import FleetOperator
from laion_etl.airflow.operators import StageOperator
from laion_etl.airflow.task_defaults import ALLOWED, GO_ON
from laion_etl.settings import Settings


# Neither skipped nor failed ranges stop the download. GO_ON would skip it if a range was skipped.
@task(trigger_rule=TriggerRule.ALL_DONE, outlets=[PAIRS])
def workers() -> list[int]:
    """Announce the batches; return a number for each download worker, at most one per batch."""
    return results.download_workers(get_current_context())


def downloads(crawl: str, workers: XComArg, settings: Settings) -> MappedOperator | FleetOperator:
    """The download task, with the kind of workers that LAION_ETL_FLEET selects."""
    if settings.core.fleet == "tasks":
        return download(crawl, workers, settings.airflow.download_pool)
    return wait_for_fleet(crawl, "download", workers)


def scores(crawl: str, workers: XComArg, settings: Settings) -> MappedOperator | FleetOperator:
    """The score task, with the kind of workers that LAION_ETL_FLEET selects."""
    if settings.core.fleet == "tasks":
        return score(crawl, workers, settings.airflow.score_pool)
    return wait_for_fleet(crawl, "score", workers)


def wait_for_fleet(crawl: str, consumer: str, workers: XComArg) -> FleetOperator:
    """Wait until KEDA's workers have emptied the queue; they need the ScaledObject of this stage."""
    waiting = FleetOperator(
        task_id=consumer,
        crawl=crawl,
        consumer=consumer,
        execution_timeout=timedelta(days=14),
        doc_md=wait_for_fleet.__doc__,
    )
    workers >> waiting
    return waiting


def download(crawl: str, workers: XComArg, pool: str) -> MappedOperator:
    """Download images: claim one batch after another until none is left."""
    return StageOperator.partial(
        task_id="download",
        stage="download",
        unit_name="worker",
        arguments=["--crawl", crawl],
        on_result=results.downloaded,
        pool=pool,
        priority_weight=100,  # if slots are scarce: score workers would hold them, waiting for downloads
        execution_timeout=timedelta(days=14),
        doc_md=download.__doc__,
    ).expand(unit=workers)


@task
def score_workers() -> list[int]:
    """Return a number for each score worker, at most one per batch."""
    return results.score_workers(get_current_context())


@task(trigger_rule=GO_ON, outlets=[SHARDS])
def shards() -> None:
    """Announce the shards once all downloads have ended."""
    results.announce_shards(get_current_context())


def score(crawl: str, workers: XComArg, pool: str) -> MappedOperator:
    """Compute similarity, safety and aesthetic scores: claim one downloaded batch after another until every
    batch of the crawl is scored or parked.
    """
    return StageOperator.partial(
        task_id="score",
        stage="score",
        unit_name="worker",
        arguments=["--crawl", crawl, "--allow-missing", ALLOWED],
        pool=pool,
        execution_timeout=timedelta(days=14),
        doc_md=score.__doc__,
    ).expand(unit=workers)

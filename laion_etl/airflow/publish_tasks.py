"""The tasks that publish a crawl: all at once, or range by range and then the end."""

from datetime import timedelta

from airflow.sdk import XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator

from laion_etl.airflow import crawl_results as results
from laion_etl.airflow.assets import DATASET
from laion_etl.airflow.operators import RANGE, StageOperator
from laion_etl.airflow.task_defaults import ALLOWED, GO_ON


def publish(crawl: str) -> StageOperator:
    """Check that the crawl is complete and divide its batches into ranges; returns I/N of every range.

    A crawl of few batches it publishes itself, with card, manifest and report, and returns no ranges.
    """
    expected = "{{ written_numbers(ti.xcom_pull(task_ids='discover')) }}"
    return StageOperator(
        task_id="publish",
        stage="publish",
        arguments=["--crawl", crawl, "--prepare", "--expect", expected, "--allow-missing", ALLOWED],
        on_result=results.publish_ranges,
        outlets=[DATASET],
        trigger_rule=GO_ON,
        execution_timeout=timedelta(hours=12),
        doc_md=publish.__doc__,
    )


def publish_hashes(crawl: str, ranges: XComArg, pool: str) -> MappedOperator:
    """Collect the digests of the images of one range, by which ranges find duplicates among all of them."""
    return StageOperator.partial(
        task_id="publish_hashes",
        stage="publish",
        unit_name=RANGE,
        arguments=["--crawl", crawl, "--hashes", "{{ task.unit }}"],
        pool=pool,
        execution_timeout=timedelta(hours=12),
        doc_md=publish_hashes.__doc__,
    ).expand(unit=ranges)


def publish_compare(crawl: str, pool: str) -> StageOperator:
    """Find images of all ranges, and of earlier crawls, that are nearly equal."""
    return StageOperator(
        task_id="publish_compare",
        stage="publish",
        arguments=["--crawl", crawl, "--compare"],
        pool=pool,
        execution_timeout=timedelta(hours=12),
        doc_md=publish_compare.__doc__,
    )


def publish_range(crawl: str, ranges: XComArg, pool: str) -> MappedOperator:
    """Write the files of one range of batches, and their statistics."""
    return StageOperator.partial(
        task_id="publish_range",
        stage="publish",
        unit_name=RANGE,
        arguments=["--crawl", crawl, "--range", "{{ task.unit }}"],
        pool=pool,
        execution_timeout=timedelta(hours=12),
        doc_md=publish_range.__doc__,
    ).expand(unit=ranges)


def publish_finish(crawl: str) -> StageOperator:
    """Merge the ranges, write card, manifest and report, and make the version visible."""
    return StageOperator(
        task_id="publish_finish",
        stage="publish",
        arguments=["--crawl", crawl, "--finish"],
        on_result=results.published,
        outlets=[DATASET],
        execution_timeout=timedelta(hours=12),
        doc_md=publish_finish.__doc__,
    )

"""What the tasks of a crawl's DAG return and announce, given the results of their commands."""

from typing import Any

from airflow.sdk import BaseXCom, Context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException

from laion_etl.airflow.alerts import ESTIMATE, PUBLISHED, crawl_of
from laion_etl.airflow.assets import DATASET, PAIRS, SHARDS, nothing_produced, produced
from laion_etl.airflow.errors import FinalError
from laion_etl.airflow.operators import StageOperator, counts
from laion_etl.core.errors import SettingsError
from laion_etl.core.quantities import quantity

PLANNED = "planned"  # key of what the task plan passes on beside its ranges


class EstimateOperator(StageOperator):
    """Estimate the output of a dry run and skip all that follows; in other runs do nothing."""

    def execute(self, context: Context) -> Any:
        """Run the command in a dry run only."""
        return super().execute(context) if context["params"]["dry_run"] else None


def end_dry_run(estimate: dict[str, Any], context: Context) -> None:
    """Pass the estimate on to the digest. Raises AirflowSkipException: a dry run ends here."""
    context["ti"].xcom_push(key=ESTIMATE, value=estimate)
    raise AirflowSkipException("dry run: the estimate is in the log above; nothing else is done")


def partitions(discovered: dict[str, Any], context: Context) -> list[int]:
    """Return the numbers of the partitions. Raises SettingsError if there are more than Airflow can map."""
    numbers: list[int] = discovered["partitions"]
    longest = conf.getint("core", "max_map_length")
    if len(numbers) > longest:
        crawl = crawl_of(context["ti"].dag_id)
        raise SettingsError(
            f"cannot map {quantity(len(numbers), 'partition')} of {crawl}: Airflow maps at most {longest:,} "
            "tasks; raise LAION_ETL_WAT_FILES_PER_PARTITION, or choose fewer WAT files with the parameter "
            "wat_files"
        )
    return numbers


def plan_ranges(planned: dict[str, Any], context: Context) -> list[str]:
    """Return the ranges of a plan that are left to do; pass its batches and its fingerprint on."""
    context["ti"].xcom_push(key=PLANNED, value={name: planned[name] for name in ("batches", "plan")})
    ranges: list[str] = planned["ranges"]
    return ranges


def range_planned(result: dict[str, Any], context: Context) -> dict[str, int | str]:
    """Return the counts of a range, and the fingerprint of the plan if this range was the last.

    Raises FinalError if partitions were loaded after the plan had begun, so that they are in no batch: the
    batches are still downloaded, but the verdict fails the run.
    """
    value = {**counts(result, context), "plan": result["plan"]}
    if later := result.get("unplanned", 0):  # worker images of version 0.1 do not report it
        context["ti"].xcom_push(key=BaseXCom.XCOM_RETURN_KEY, value=value)
        raise FinalError(
            f"cannot plan all of {result['crawl']}: {quantity(later, 'partition')} loaded after this plan "
            "began; clear the task plan with its downstream tasks to plan them too"
        )
    return value


def download_workers(context: Context) -> list[int]:
    """Announce the batches; return the numbers of the download workers, at most one a batch.

    Raises AirflowSkipException if there is no plan, which the verdict sees.
    """
    planned = context["ti"].xcom_pull(task_ids="plan", key=PLANNED)
    if planned is None:
        raise AirflowSkipException("there is no plan: nothing is downloaded")
    batches, plan = planned["batches"], planned["plan"]
    for done in context["ti"].xcom_pull(task_ids=["plan_range"]):
        plan = (done and done["plan"]) or plan
    if batches:
        produced(PAIRS, context, batches=batches, plan=plan)
    else:
        nothing_produced(PAIRS, context)
    workers = int(context["params"]["download_workers"])
    return list(range(max(1, min(workers, batches))))


def downloaded(result: dict[str, Any], context: Context) -> dict[str, int | str]:
    """Return the counts of a download worker, and how many batches of which plan are done."""
    return {**counts(result, context), "done": result["done"], "plan": result["plan"]}


def score_workers(context: Context) -> list[int]:
    """Return a number for each score worker, at most one per batch."""
    batches = context["ti"].xcom_pull(task_ids="plan", key=PLANNED)["batches"]
    return list(range(max(1, min(int(context["params"]["score_workers"]), batches))))


def announce_shards(context: Context) -> None:
    """Announce the shards, if there are any."""
    ended = [worker for worker in context["ti"].xcom_pull(task_ids=["download"]) if worker]
    last = max(ended, key=lambda worker: worker["done"], default={"done": 0})
    if last["done"]:
        produced(SHARDS, context, batches=last["done"], plan=last["plan"])
    else:
        nothing_produced(SHARDS, context)


def publish_ranges(result: dict[str, Any], context: Context) -> list[str]:
    """Return I/N of every range to publish; announce the dataset if there is nothing left to do."""
    ranges: list[str] = result["ranges"]
    if ranges:
        nothing_produced(DATASET, context)
    else:
        published(result, context)
    return ranges


def published(result: dict[str, Any], context: Context) -> None:
    """Announce the dataset; pass its location, its report's and its number of rows on to the digest.

    Does neither when the crawl has nothing new.
    """
    if result.get("nothing_new"):
        nothing_produced(DATASET, context)
        return
    places = {what: result[what] for what in ("dataset", "report")}
    produced(DATASET, context, **places, fingerprint=result["fingerprint"])
    value = {**places, "version": result["unit"], "rows": result["kept"]}
    context["ti"].xcom_push(key=PUBLISHED, value=value)

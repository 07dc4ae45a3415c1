"""Alerts from Airflow: failures, delays and digests of runs; laion_etl.alerts sends them.

The triggerer and the DAG processor import the callables by their path.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.configuration import conf
from airflow.sdk import BaseNotifier, timezone
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineReference, deadline_reference
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError, AirflowTaskTimeout

from laion_etl.airflow.connections import database_url, use_own_s3
from laion_etl.airflow.errors import retry_helps
from laion_etl.alerts import (
    Alert,
    Kind,
    RunEnd,
    Unit,
    deliver,
    late_after_s,
    resolve,
    run_digest,
    span,
    wrapped,
)
from laion_etl.core.errors import LaionEtlError
from laion_etl.io.storage import open_store
from laion_etl.settings import load_settings

if TYPE_CHECKING:
    from laion_etl.database.parked import ParkedCause

log = logging.getLogger(__name__)

# Keys that a task sets in its context for callbacks.
LABEL, COMMAND = "label", "laion_command"
# The XComs that pass a dry run's estimate, and what was published, to the digest.
ESTIMATE = "estimate"
PUBLISHED = "published"


class TaskFailed(BaseNotifier):
    """`on_failure_callback` of tasks: called after the last try, once for each mapped task."""

    def notify(self, context: Any) -> None:
        """Report the failed task; the cause is the last line of its log."""
        error = context.get("exception")
        alert = task_alert(Kind.FAILED, context, cause_of(error, context))
        notify(alert if retry_helps(error) else replace(alert, retry_helps=False))
        for line in wrapped(f"cause: {alert.cleaned().reason}"):
            log.error("%s", line)


class TaskSucceeded(BaseNotifier):
    """`on_success_callback` of tasks: a unit that had failed and now succeeds is no longer broken."""

    def notify(self, context: Any) -> None:
        """Remove the task's unit from the list of broken units."""
        alert = task_alert(Kind.FAILED, context, "")
        unit = Unit(alert.crawl, alert.run, alert.stage, alert.unit, _index(context["ti"]))
        try:
            use_own_s3()
            resolve(unit, open_store(load_settings().store_uri))
        except (AirflowException, AirflowRuntimeError, LaionEtlError, OSError) as error:
            # The work itself is done: only log it.
            log.warning("cannot remove this task from the list of failures: %s", error)


def notify(alert: Alert) -> None:
    """Send an alert from any of Airflow's processes, with the S3 access of the connection."""
    try:
        use_own_s3()
    except (AirflowException, AirflowRuntimeError, LaionEtlError) as error:
        # A callback that reports a failure must not fail itself.
        log.warning("cannot get the S3 access of the store: %s; the alert may not be recorded", error)
    deliver(alert, load_settings())


def crawl_of(dag_id: str) -> str:
    """The crawl of a DAG; for other DAGs, such as new_crawls, their own id."""
    return str(dag_id).removeprefix("crawl_")


def cause_of(error: object, context: Mapping[str, Any]) -> str:
    """The cause as a readable sentence: our own errors are sentences, others need their type."""
    if isinstance(error, AirflowTaskTimeout):
        return f"the task took longer than {_hard_limit(context)} and was ended; see where its log stopped"
    if not isinstance(error, BaseException):
        return str(error or "") or "the task ended without an error; see its log"
    if isinstance(error, (AirflowException, LaionEtlError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def run_url(dag_id: str, run_id: str) -> str:
    """The page of a run in Airflow's UI."""
    base = conf.get("api", "base_url", fallback="http://localhost:8080/").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"


def task_alert(kind: Kind, context: Mapping[str, Any], reason: str) -> Alert:
    """The alert about the task of a context."""
    task, index = context["ti"], _index(context["ti"])
    return Alert(
        kind,
        crawl=crawl_of(task.dag_id),
        run=str(task.run_id),
        stage=str(task.task_id).rpartition(".")[2],
        unit=str(context.get(LABEL) or (f"[{index}]" if index >= 0 else "")),
        reason=reason,
        attempt=int(task.try_number or 0),
        log_url=str(getattr(task, "log_url", "")),
        command=str(context.get(COMMAND, "")) if kind is Kind.FAILED else "",
        task=f"{task.task_id}_{index}" if index >= 0 else str(task.task_id),
        run_url=run_url(str(task.dag_id), str(task.run_id)),
    )


def late_alert(context: Mapping[str, Any], limit_s: float) -> Alert:
    """The alert about a task that runs longer than `limit_s`."""
    end = f"Airflow ends it after {_hard_limit(context)}"
    return task_alert(Kind.LATE, context, f"still at work after {span(limit_s)}; {end}")


def _hard_limit(context: Mapping[str, Any]) -> str:
    limit = getattr(context.get("task"), "execution_timeout", None)
    return span(limit.total_seconds()) if limit else "the limit of its execution"


def _index(task: Any) -> int:
    index = getattr(task, "map_index", None)
    return index if index is not None else -1


@contextmanager
def lateness_watched(stage: str, context: Mapping[str, Any]) -> Iterator[None]:
    """Send an alert when the block takes longer than LAION_ETL_ALERTS_LATE_AFTER; the block continues."""
    limit = late_after_s(load_settings().alerts, stage)
    if limit is None or "ti" not in context:
        yield
        return
    timer = threading.Timer(limit, _notify_late, [context, limit])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    timer.join()  # an alert in flight is recorded before the task's success removes it


def _notify_late(context: Mapping[str, Any], limit: float) -> None:
    notify(late_alert(context, limit))


def send_digest(context: Mapping[str, Any]) -> Alert:
    """Send the digest of the context's run, once each time it ends."""
    task = context["ti"]
    states = task.get_task_states(dag_id=task.dag_id, run_ids=[task.run_id])[task.run_id]
    states = {name: str(state) for name, state in states.items() if name != task.task_id}
    publishers = [name for name in ("publish_finish", "publish") if states.get(name) == "success"]
    published = next(
        filter(None, (task.xcom_pull(task_ids=name, key=PUBLISHED) for name in publishers)), None
    )
    end = RunEnd(
        crawl_of(task.dag_id),
        str(task.run_id),
        states,
        run_url(str(task.dag_id), str(task.run_id)),
        published or {},
        task.xcom_pull(task_ids="estimate", key=ESTIMATE) or {},
        _parked(crawl_of(task.dag_id)),
    )
    use_own_s3()
    digest = run_digest(end, load_settings())
    deliver(digest, load_settings())
    return digest


def _parked(crawl: str) -> "tuple[ParkedCause, ...]":
    """Return why batches of the crawl are parked; nothing if Postgres cannot be asked, which is logged."""
    from laion_etl.database.connection import Database
    from laion_etl.database.parked import parked_causes

    try:
        settings = load_settings()
        url = database_url(settings)
        if not url:  # the embedded server belongs to the tasks of this machine
            return ()
        queue = Database(url, replace(settings.database, retry_for_s=0.0))
        try:
            return parked_causes(crawl, queue)
        finally:
            queue.close()
    except (AirflowException, AirflowRuntimeError, LaionEtlError) as error:
        log.warning("cannot read why batches are parked: %s; the digest does not name them", error)
        return ()


async def run_is_late(context: Mapping[str, Any], days: float) -> None:
    """Callback of the run's deadline; the triggerer passes the run as the REST API describes it."""
    run = context["dag_run"]
    dag_id, run_id = str(run["dag_id"]), str(run["dag_run_id"])
    alert = Alert(
        Kind.RUN_LATE,
        crawl_of(dag_id),
        run_id,
        reason=f"the run is not done {days:g} days after its start",
        run_url=run_url(dag_id, run_id),
    )
    await asyncio.to_thread(notify, alert)


@deadline_reference(DeadlineReference.TYPES.DAGRUN_CREATED)
class RunCreated(BaseDeadlineReference):
    """The time a run is created. Airflow's DAGRUN_QUEUED_AT breaks the clearing of tasks (issue 70368)."""

    required_kwargs: frozenset[str] = frozenset()

    def _evaluate_with(self, *, session: Any, **kwargs: Any) -> datetime:
        del session, kwargs
        return timezone.utcnow()

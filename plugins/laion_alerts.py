"""Alerts from Airflow: who failed, who is late, how a run ended; laion_etl.alerts sends them.

Callables live here and not in dags/, because the triggerer and the DAG processor import them by their path.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseNotifier, timezone
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineReference, deadline_reference
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRuntimeError

from laion_connections import use_own_s3
from laion_etl.alerts import Alert, Kind, deliver, late_after_s, summary
from laion_etl.errors import LaionEtlError, SettingsError
from laion_etl.settings import load_settings

log = logging.getLogger(__name__)

# What a task leaves in its context for callbacks.
LABEL, COMMAND = "label", "laion_command"


class TaskFailed(BaseNotifier):
    """`on_failure_callback` of tasks: comes after the last try, for every mapped task by itself."""

    def notify(self, context: Any) -> None:
        """Tells of the failed task."""
        error = context.get("exception")
        reason = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error or "")
        tell(task_alert(Kind.FAILED, context, reason))


def tell(alert: Alert) -> None:
    """Delivers an alert from any of Airflow's processes, with the store's access of the connection."""
    try:
        use_own_s3()
    except (AirflowException, AirflowRuntimeError, LaionEtlError) as error:
        # Who is told of a failure must not fail of it.
        log.warning("the alert may not be kept: %s", error)
    deliver(alert, load_settings())


def crawl_of(dag_id: str) -> str:
    """The dump a DAG is about; other DAGs, such as new_crawls, stand for themselves."""
    return str(dag_id).removeprefix("crawl_")


def task_alert(kind: Kind, context: Mapping[str, Any], reason: str) -> Alert:
    """The alert about the task of a context."""
    task = context["ti"]
    index = task.map_index if task.map_index is not None else -1
    return Alert(
        kind,
        crawl=crawl_of(task.dag_id),
        run=str(task.run_id),
        stage=str(task.task_id).rpartition(".")[2],
        unit=str(context.get(LABEL) or (f"[{index}]" if index >= 0 else "")),
        reason=reason,
        attempt=int(task.try_number or 0),
        log_url=str(getattr(task, "log_url", "")),
        command=str(context.get(COMMAND, "")),
    )


@contextmanager
def lateness_watched(stage: str, context: Mapping[str, Any]) -> Iterator[None]:
    """Tells people when the block takes longer than LAION_ETL_ALERTS_LATE_AFTER; it goes on all the same."""
    try:
        settings = load_settings()
        limit = late_after_s(settings.alerts, stage)
    except SettingsError as error:
        raise AirflowFailException(str(error)) from error  # another try can't help
    if limit is None or "ti" not in context:
        yield
        return
    timer = threading.Timer(limit, _tell_late, [context, limit])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell_late(context: Mapping[str, Any], limit: float) -> None:
    reason = f"still at work after {timedelta(seconds=limit)}"
    tell(task_alert(Kind.LATE, context, reason))


def send_digest(context: Mapping[str, Any]) -> Alert:
    """The digest of the context's run, sent once for each of its ends."""
    task = context["ti"]
    states = task.get_task_states(dag_id=task.dag_id, run_ids=[task.run_id])[task.run_id]
    others = {name: str(state) for name, state in states.items() if name != task.task_id}
    use_own_s3()
    digest = summary(crawl_of(task.dag_id), str(task.run_id), others, load_settings())
    deliver(digest, load_settings())
    return digest


async def run_is_late(context: Mapping[str, Any], days: float) -> None:
    """Callback of the run's deadline, in the triggerer, which gives it the run as the REST API shows it."""
    run = context["dag_run"]
    dag_id, run_id = str(run["dag_id"]), str(run["dag_run_id"])
    alert = Alert(
        Kind.RUN_LATE,
        crawl_of(dag_id),
        run_id,
        reason=f"not done {days:g} days after its start",
    )
    await asyncio.to_thread(tell, alert)


@deadline_reference(DeadlineReference.TYPES.DAGRUN_CREATED)
class RunCreated(BaseDeadlineReference):
    """The time a run is made. Airflow's own DAGRUN_QUEUED_AT breaks clearing of tasks (its issue 70368)."""

    required_kwargs: frozenset[str] = frozenset()

    def _evaluate_with(self, *, session: Any, **kwargs: Any) -> datetime:
        del session, kwargs
        return timezone.utcnow()


class LaionAlertsPlugin(AirflowPlugin):
    """Makes the deadline reference known, so that serialized DAGs can be read back."""

    name = "laion_alerts"
    deadline_references = [RunCreated]  # noqa: RUF012 - Airflow's way

"""`FleetOperator`: a task that waits while workers outside Airflow empty a queue (LAION_ETL_FLEET=keda).

It starts nothing itself: KEDA scales the workers with the depth of the queue (keda.py). The task is deferred,
so it takes no worker slot. It logs the queue's depth and rate, and sends an alert when no batch has finished
for a long time. It ends when nothing is left to do. As with workers started by tasks, one parked batch fails
the task `download`, and more parked batches than the run allows fail `score`; a retry would not change that.
"""

from collections.abc import MutableMapping
from typing import Any, NoReturn, cast

from airflow.sdk import BaseOperator, Context

from laion_etl.airflow.alerts import LABEL, task_alert
from laion_etl.airflow.connections import use_own_s3
from laion_etl.airflow.errors import RETRY_POLICY, FinalError
from laion_etl.airflow.run_params import check_conf
from laion_etl.alerts import Kind
from laion_etl.core.consumers import Consumer, QueueState
from laion_etl.core.errors import SettingsError
from laion_etl.core.quantities import quantity
from laion_etl.io.storage import open_store
from laion_etl.settings import load_settings

REFUSED = "refused"  # in the event of the trigger: why the queue can't be read until a setting is changed


class FleetOperator(BaseOperator):
    """Wait until the workers of a consumer have emptied the queue of a crawl; return what they did."""

    def __init__(self, *, crawl: str, consumer: str, **of_the_task: Any) -> None:
        super().__init__(retry_policy=RETRY_POLICY, **of_the_task)
        self.crawl = crawl
        self.consumer = consumer

    def execute(self, context: Context) -> NoReturn:
        """Check that the fleet can do this run's work, and defer."""
        from laion_etl.airflow.queue_trigger import QueueTrigger

        check_conf(context)
        _label(context)
        if context["params"].get("store_prefix"):
            raise SettingsError(
                "cannot use the parameter store_prefix with LAION_ETL_FLEET=keda: the fleet's workers use "
                "LAION_ETL_STORE for all runs; leave the parameter empty, or set LAION_ETL_FLEET=tasks"
            )
        settings = load_settings()
        alert = task_alert(Kind.LATE, context, "").to_plain()
        trigger = QueueTrigger(
            crawl=self.crawl,
            consumer=self.consumer,
            poll_s=settings.kubernetes.queue_poll_s,
            stalled_after_s=settings.alerts.stalled_after_s,
            alert={**alert, "kind": str(alert["kind"])},
        )
        self.defer(trigger=trigger, method_name="resume", timeout=self.execution_timeout)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the counts of the queue and the plan that it is of.

        Raises FinalError if more batches are parked than may be, or the queue cannot be read as settings say.
        """
        from laion_etl.core.schemas import plan_stats_name  # imports pyarrow, and DAGs are parsed often

        _label(context)
        if refused := event.get(REFUSED):
            raise FinalError(refused)
        state = QueueState(**event)
        self._check_parked(state, context)
        use_own_s3()
        plan = open_store(load_settings().store_uri).read_stats(plan_stats_name(self.crawl))
        return {"done": state.finished, "plan": plan.fingerprint}

    def _check_parked(self, state: QueueState, context: Context) -> None:
        """As workers that tasks start decide it: a download that failed fails its task in any case."""
        from laion_etl.dataset.missing_batches import share_allowed

        percent = context["params"]["allow_missing_percent"] if self.consumer == Consumer.SCORE else 0
        total = state.finished + state.parked
        if share_allowed(state.parked, total, percent / 100):
            return
        allowed = (
            f", and at most {percent:g} % may be (the parameter allow_missing_percent)" if percent else ""
        )
        raise FinalError(
            f"cannot {self.consumer} {state.parked:,} of {quantity(total, 'batch', 'batches')} of "
            f"{self.crawl}: they are parked{allowed}; see `laion-etl status --crawl {self.crawl}`, fix the "
            f"cause, run `laion-etl db requeue --crawl {self.crawl}` and clear this task"
        )


def _label(context: Context) -> None:
    """Set the unit that alerts name, so that a stalled-queue alert is resolved when this task succeeds."""
    cast("MutableMapping[str, Any]", context)[LABEL] = "queue"

"""The triggerer's side of a queue that a task waits for: read it, log it, and send an alert if it stalls."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException, AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TriggerEvent

from laion_etl.airflow.alerts import notify
from laion_etl.airflow.connections import database_url
from laion_etl.airflow.fleet import REFUSED
from laion_etl.airflow.queue_watch import QueueWatch
from laion_etl.airflow.restarts import in_words
from laion_etl.alerts import Alert
from laion_etl.core.consumers import Consumer, QueueState
from laion_etl.core.errors import LaionEtlError, RefusedError, SettingsError
from laion_etl.database.connection import Database
from laion_etl.database.fleet import queue_state
from laion_etl.settings import load_settings

_MIN_DEFERRED_S = 5.0  # see pod_trigger.py
# Until a setting is changed; AirflowNotFoundException: a connection that they name does not exist.
_FINAL = (SettingsError, RefusedError, AirflowNotFoundException)


class QueueTrigger(BaseTrigger):
    """Fires when nothing is open in the queue, or when the settings do not let it be read.

    Sends an alert, given by its fields, when the queue stalls.
    """

    def __init__(
        self, *, crawl: str, consumer: str, poll_s: float, stalled_after_s: float, alert: dict[str, Any]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.crawl = crawl
        self.consumer = consumer
        self.poll_s = poll_s
        self.stalled_after_s = stalled_after_s
        self.alert = alert

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("crawl", "consumer", "poll_s", "stalled_after_s", "alert")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the state of the empty queue, or why it is REFUSED, but not within `_MIN_DEFERRED_S`."""
        began = time.monotonic()
        try:
            event = asdict(await self._empty(QueueWatch(self.stalled_after_s, began)))
        except _FINAL as error:
            event = {REFUSED: str(error)}
        await asyncio.sleep(began + _MIN_DEFERRED_S - time.monotonic())
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _empty(self, watch: QueueWatch) -> QueueState:
        """Waits until nothing is open."""
        while (state := await self._look(watch)) is None or state.open:
            if watch.has_stalled(now := time.monotonic()):
                await asyncio.to_thread(notify, self._stalled(watch.silent_s(now), state))
            await asyncio.sleep(self.poll_s)
        return state

    async def _look(self, watch: QueueWatch) -> QueueState | None:
        """Reads and logs the queue; None if it cannot be read now, which is logged. Raises _FINAL."""
        try:
            state = await asyncio.to_thread(_read, self.crawl, Consumer(self.consumer))
        except _FINAL:
            raise
        except (AirflowException, AirflowRuntimeError, LaionEtlError) as error:
            self.log.warning("cannot read the queue: %s; it is read again in %g s", error, self.poll_s)
            return None
        watch.see(state, time.monotonic())
        self.log.info("%s: %s", self.consumer, watch.line(state))
        return state

    def _stalled(self, silent_s: float, state: QueueState | None) -> Alert:
        namespace = load_settings().kubernetes.namespace
        kubectl = f"kubectl -n {namespace}" if namespace else "kubectl"
        left = f"{state.open:,} are left, {state.at_work:,} at work" if state else "the queue cannot be read"
        return replace(
            Alert.from_plain(self.alert),
            reason=f"no batch has ended for {in_words(silent_s)}: {left}; look at the pods of the fleet and "
            f"at its ScaledObject ({kubectl} get scaledobjects,pods -l stage={self.consumer})",
        )


def _read(crawl: str, consumer: Consumer) -> QueueState:
    settings = load_settings()
    url = database_url(settings)
    if not url:
        raise SettingsError(
            "cannot wait for the fleet: none of LAION_ETL_DATABASE_CONN_ID, LAION_ETL_DATABASE_URL and "
            "LAION_ETL_DATABASE_URLS is set; set one to the Postgres of the queue"
        )
    queue = Database(url, replace(settings.database, retry_for_s=0.0))
    try:
        return queue_state(crawl, consumer, queue)
    finally:
        queue.close()

"""The triggerer's side of a running pod: watch it, fetch its log, send an alert when it is late."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.triggers.base import TriggerEvent

from laion_etl.airflow.alerts import notify
from laion_etl.alerts import Alert

# If a task is re-queued before the executor reports the deferring process as finished, the scheduler marks it
# as lost; on a busy machine that report takes seconds.
_MIN_DEFERRED_S = 5.0


class StagePodTrigger(KubernetesPodTrigger):
    """A pod's trigger that sends an alert, given by its fields, once the pod has run for `late_after_s`."""

    def __init__(self, *, late_after_s: float | None, alert: dict[str, Any], **of_the_pod: Any) -> None:
        super().__init__(**of_the_pod)
        self.late_after_s = late_after_s
        self.alert = alert

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, of_the_pod = super().serialize()
        own = {"late_after_s": self.late_after_s, "alert": self.alert}
        return f"{__name__}.{type(self).__name__}", {**of_the_pod, **own}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the completion event, but not within `_MIN_DEFERRED_S` of the deferral (see above)."""
        watch = asyncio.create_task(self._alert_when_late())
        clock = asyncio.get_running_loop()
        settled = clock.time() + _MIN_DEFERRED_S
        try:
            async for event in super().run():
                await asyncio.sleep(settled - clock.time())
                yield event
        finally:
            watch.cancel()

    async def _alert_when_late(self) -> None:
        if self.late_after_s is None:
            return
        spent = (datetime.now(UTC) - self.trigger_start_time).total_seconds()
        await asyncio.sleep(max(0.0, self.late_after_s - spent))
        await asyncio.to_thread(notify, Alert.from_plain(self.alert))

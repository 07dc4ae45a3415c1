"""The triggerer's side of a pod: wait to start it, watch it, fetch its log, send an alert when it is late."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import ContainerState, KubernetesPodTrigger
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodLaunchTimeoutException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from laion_etl.airflow.alerts import notify
from laion_etl.alerts import Alert

# If a task is re-queued before the executor reports the deferring process as finished, the scheduler marks it
# as lost; on a busy machine that report takes seconds.
_MIN_DEFERRED_S = 5.0
# A node that was lost never confirms the end of its pods: they stay "Running" until the node comes back or is
# removed. This long after the end of its grace period a pod is given up.
_LOST_AFTER_S = 120.0

WAITED = "waited"  # the status of the event of a WaitTrigger


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

    def define_pod_container_state(self, pod: Any) -> ContainerState:
        """The state of the command's container. Raises PodLaunchTimeoutException for a pod on a lost node.

        Of all exceptions this is the one after which the operator does not wait for the pod's end.
        """
        ended_by = pod.metadata.deletion_timestamp  # the time of the request and the grace period
        overdue = ended_by is not None and time.time() > ended_by.timestamp() + _LOST_AFTER_S
        if overdue or pod.status.reason == "NodeLost":
            raise PodLaunchTimeoutException("the pod's node no longer reports on it")
        return super().define_pod_container_state(pod)

    async def _alert_when_late(self) -> None:
        if self.late_after_s is None:
            return
        spent = (datetime.now(UTC) - self.trigger_start_time).total_seconds()
        await asyncio.sleep(max(0.0, self.late_after_s - spent))
        await asyncio.to_thread(notify, Alert.from_plain(self.alert))


class WaitTrigger(BaseTrigger):
    """Ends at a time, in seconds since the epoch, with an event; the task that waits takes no worker slot."""

    def __init__(self, *, until: float, event: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until
        self.event = event

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {"until": self.until, "event": self.event}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the event, but not within `_MIN_DEFERRED_S` of the deferral."""
        await asyncio.sleep(max(self.until - time.time(), _MIN_DEFERRED_S))
        yield TriggerEvent(self.event)  # type: ignore[no-untyped-call]

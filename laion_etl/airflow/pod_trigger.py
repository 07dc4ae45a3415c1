"""The triggerer's side of a pod: wait to start it, watch it, fetch its log, send an alert when it is late.

Times are measured here, by this process's monotonic clock, and go back to the task in the event: the clocks
of the machines that run the task, the triggerer and Kubernetes may differ or jump. A triggerer that takes
over a trigger measures anew: a wait may take twice as long, and an alert come later. Only Airflow's own
limit, the execution timeout, is a time of day.
"""

import asyncio
import time
from collections.abc import AsyncIterator
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
MEASURED_S = "measured_s"  # in each event: for how long its trigger ran


class StagePodTrigger(KubernetesPodTrigger):
    """A pod's trigger that sends an alert, given by its fields, once the pod has run for `late_after_s`."""

    def __init__(self, *, late_after_s: float | None, alert: dict[str, Any], **of_the_pod: Any) -> None:
        super().__init__(**of_the_pod)
        self.late_after_s = late_after_s
        self.alert = alert
        self._ending_since: float | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, of_the_pod = super().serialize()
        own = {"late_after_s": self.late_after_s, "alert": self.alert}
        return f"{__name__}.{type(self).__name__}", {**of_the_pod, **own}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the completion event, but not within `_MIN_DEFERRED_S` of the deferral (see above)."""
        watch = asyncio.create_task(self._alert_when_late())
        clock = asyncio.get_running_loop()
        began = clock.time()
        try:
            async for event in super().run():
                await asyncio.sleep(began + _MIN_DEFERRED_S - clock.time())
                yield TriggerEvent({**event.payload, MEASURED_S: clock.time() - began})  # type: ignore[no-untyped-call]
        finally:
            watch.cancel()

    def define_pod_container_state(self, pod: Any) -> ContainerState:
        """The state of the command's container. Raises PodLaunchTimeoutException for a pod on a lost node.

        Of all exceptions this is the one after which the operator does not wait for the pod's end.
        """
        if self._is_overdue(pod.metadata) or pod.status.reason == "NodeLost":
            raise PodLaunchTimeoutException("the pod's node no longer reports on it")
        return super().define_pod_container_state(pod)

    def _is_overdue(self, pod: Any) -> bool:
        """Whether a pod that is being deleted has not ended long after its grace period."""
        if pod.deletion_timestamp is None:
            return False
        if self._ending_since is None:
            self._ending_since = time.monotonic()
        grace_s = pod.deletion_grace_period_seconds or 0
        return time.monotonic() - self._ending_since > grace_s + _LOST_AFTER_S

    async def _alert_when_late(self) -> None:
        if self.late_after_s is None:
            return
        await asyncio.sleep(self.late_after_s)
        await asyncio.to_thread(notify, Alert.from_plain(self.alert))


class WaitTrigger(BaseTrigger):
    """Ends after a time with an event; the task that waits takes no worker slot."""

    def __init__(self, *, event: dict[str, Any], delay_s: float = 0.0, until: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.delay_s = delay_s if until is None else max(0.0, until - time.time())  # as 0.1.0 deferred tasks
        self.event = event

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {"delay_s": self.delay_s, "event": self.event}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the event, but not within `_MIN_DEFERRED_S` of the deferral."""
        clock = asyncio.get_running_loop()
        began = clock.time()
        await asyncio.sleep(max(self.delay_s, _MIN_DEFERRED_S))
        yield TriggerEvent({**self.event, MEASURED_S: clock.time() - began})  # type: ignore[no-untyped-call]

"""Runner kubernetes: a `laion-etl` command as a pod; the triggerer waits for it.

A pod gets the settings that differ from their defaults, but no secrets: those come from Kubernetes Secrets.
It writes its result to the store, under a name made of run and task, where the task finds it; so nothing is
executed inside pods, and a retried task finds the pod of its previous try still running.

Importing this takes seconds, because of the Kubernetes client, so DAG files do not.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, cast

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodNotFoundException, PodPhase
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger
from kubernetes.client import V1EnvVar
from kubernetes.client.exceptions import ApiException

from laion_etl.airflow.alerts import late_alert
from laion_etl.airflow.commands import Command, shown_settings
from laion_etl.airflow.connections import use_own_s3
from laion_etl.airflow.pod_failures import failure
from laion_etl.airflow.pod_spec import pod_parts, result_uri
from laion_etl.airflow.pod_trigger import StagePodTrigger
from laion_etl.alerts import late_after_s
from laion_etl.core.errors import LaionEtlError
from laion_etl.io.storage import open_store
from laion_etl.settings import Settings, load_settings

_log = logging.getLogger("laion_etl.stage")


class StagePodOperator(KubernetesPodOperator):
    """The pod of a stage's command. Created at run time; never part of a serialized DAG."""

    def __init__(self, *, command: Command, settings: Settings, **of_the_pod: Any) -> None:
        super().__init__(**of_the_pod)
        self.command = command
        self.settings = settings
        self._event: Mapping[str, Any] = {}

    def run(self, context: Any) -> dict[str, Any]:
        """Starts the pod, or finds that of an earlier try, and defers; returns a result that exists."""
        variables = cast("list[V1EnvVar]", self.env_vars)
        _log.info("settings: %s", shown_settings({one.name: one.value for one in variables}))
        _log.info("command: %s", self.command.by_hand)
        self.execute_async(context)
        return self._result()

    def resume(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resumes after the trigger's event: returns the result, or raises the pod's failure."""
        self._event = event
        try:
            self.trigger_reentry(context, dict(event))
        except PodNotFoundException as error:
            raise AirflowException(
                f"the pod {event['name']} is gone: it was deleted, or its node was lost"
            ) from error
        return self._result()

    def defer(
        self,
        *,
        trigger: BaseTrigger,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        timeout: timedelta | float | None = None,
    ) -> NoReturn:
        """Defers to our own trigger, which sends an alert when the task is late."""
        _, of_the_pod = trigger.serialize()
        late = late_after_s(self.settings.alerts, self.command.stage)
        alert = late_alert(self.command.context, late or 0).to_plain()
        own = StagePodTrigger(late_after_s=late, alert={**alert, "kind": str(alert["kind"])}, **of_the_pod)
        super().defer(trigger=own, method_name=method_name, kwargs=kwargs, timeout=timeout)

    def get_or_create_pod(self, pod_request_obj: Any, context: Any) -> Any:
        """Reuses an earlier try's pod, unless it has failed: that would fail this try as well."""
        pod = super().get_or_create_pod(pod_request_obj, context)
        if pod.status is None or pod.status.phase != PodPhase.FAILED:
            return pod
        _log.warning("pod %s of an earlier try has failed; this try starts a new one", pod.metadata.name)
        self.patch_already_checked(pod, reraise=False)
        return super().get_or_create_pod(pod_request_obj, context)

    def cleanup(self, pod: Any, remote_pod: Any, *rest: Any, **more: Any) -> None:
        """Removes the pod; a failed one is kept for inspection, and the task raises its failure."""
        try:
            super().cleanup(pod, remote_pod, *rest, **more)
        except AirflowException as error:
            event_message = str(self._event.get("message", error))
            raise failure(self.command.stage, remote_pod, event_message) from error

    def process_pod_deletion(self, pod: Any, *, reraise: bool = True) -> bool:
        """Also deletes a running or pending pod: it must not run alongside the task's next try."""
        if pod is not None and pod.status.phase not in (PodPhase.SUCCEEDED, PodPhase.FAILED):
            _log.warning("pod %s is stopped", pod.metadata.name)
            with _left_to_its_deadline(reraise=reraise):
                self.pod_manager.delete_pod(pod)
            return True
        return bool(super().process_pod_deletion(pod, reraise=reraise))

    def _result(self) -> dict[str, Any]:
        uri = result_uri(self.command, self.settings)
        folder, _, name = uri.rpartition("/")
        try:
            use_own_s3()
            return dict(json.loads(open_store(folder).read(name)))
        except (LaionEtlError, ValueError) as error:
            raise AirflowException(f"the pod succeeded but left no result in {uri}: {error}") from error


@contextmanager
def _left_to_its_deadline(*, reraise: bool) -> Iterator[None]:
    """Only log a failed deletion: the pod ends at its deadline, and the task's own failure matters more."""
    try:
        yield
    except ApiException as error:
        if reraise:
            raise
        _log.warning("cannot stop the pod: %s; it ends at its deadline", error.reason)


def stage_pod(command: Command, timeout: timedelta | None) -> StagePodOperator:
    """Return the pod of a command by the settings of its run; raises SettingsError for invalid ones."""
    settings = load_settings(os.environ | command.settings)
    parts = pod_parts(command, settings, timeout)
    return StagePodOperator(command=command, settings=settings, execution_timeout=timeout, **parts)

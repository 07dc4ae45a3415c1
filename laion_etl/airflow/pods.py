"""Runner kubernetes: a `laion-etl` command as a pod; the triggerer waits for it.

A pod gets the settings that differ from their defaults, but no secrets: those come from Kubernetes Secrets.
It writes its result to the store, under a name made of run and task, where the task finds it; so nothing is
executed inside pods, and a retried task finds the pod of its previous try still running.

What becomes of a pod through no fault of its command costs the task no try (restarts.py): it defers, which
takes no worker slot, and then starts another pod, or reads the result again that an outage of the store kept
from it. Airflow counts the execution timeout of a deferred task
from the start of its try; these waits are added to it.

Importing this takes seconds, because of the Kubernetes client, so DAG files do not.
"""

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
from urllib3.exceptions import HTTPError

from laion_etl.airflow.alerts import late_alert
from laion_etl.airflow.commands import Command, next_restart
from laion_etl.airflow.connections import use_own_s3
from laion_etl.airflow.masked_settings import shown_settings
from laion_etl.airflow.pod_failures import PodLostError, failure
from laion_etl.airflow.pod_refusals import refusal
from laion_etl.airflow.pod_spec import pod_parts, result_uri
from laion_etl.airflow.pod_trigger import MEASURED_S, WAITED, StagePodTrigger, WaitTrigger
from laion_etl.airflow.restarts import LimitReachedError, Restarts, in_words
from laion_etl.alerts import late_after_s
from laion_etl.core.errors import LaionEtlError, OutageError
from laion_etl.core.plain_json import parse_json
from laion_etl.io.storage import open_store
from laion_etl.settings import Settings, load_settings

_log = logging.getLogger("laion_etl.stage")

_FINISHED = "finished"  # the status of an event: the pod has succeeded, what is left is to read its result


class StagePodOperator(KubernetesPodOperator):
    """The pod of a stage's command. Created at run time; never part of a serialized DAG."""

    def __init__(self, *, command: Command, settings: Settings, **of_the_pod: Any) -> None:
        super().__init__(**of_the_pod)
        self.command = command
        self.settings = settings
        self._event: Mapping[str, Any] = {}
        self._restarts = Restarts()

    def run(self, context: Any) -> dict[str, Any]:
        """Starts the pod, or finds that of an earlier try, and defers; returns a result that exists."""
        variables = cast("list[V1EnvVar]", self.env_vars)
        _log.info("settings: %s", shown_settings({one.name: one.value for one in variables}))
        _log.info("command: %s", self.command.by_hand)
        with self._at_no_cost_of_a_try():
            self.execute_async(context)
        return self._result()

    def resume(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """Resumes after the trigger's event: returns the result, or raises the pod's failure."""
        waits = event["status"] == WAITED
        restarts = Restarts.from_plain(event.get("restarts"))
        measured_s = float(event.get(MEASURED_S, 0.0))  # of a trigger of an earlier version: none
        self._restarts = restarts.waited(measured_s) if waits else restarts.worked(measured_s)
        if self.execution_timeout is not None:
            self.execution_timeout += timedelta(seconds=self._restarts.waited_s)
        if waits and event["then"] is None:
            return self.run(context)
        self._event = event["then"] if waits else event
        if self._event["status"] == _FINISHED:
            return self._result()
        with self._at_no_cost_of_a_try():
            self.trigger_reentry(context, dict(self._event))
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
        restarts = self._restarts.accepted().to_plain()
        of_the_pod["trigger_kwargs"] = {**of_the_pod["trigger_kwargs"], "restarts": restarts}
        late = late_after_s(self.settings.alerts, self.command.stage)
        alert = late_alert(self.command.context, late or 0).to_plain()
        worked_s = self._restarts.worked_s  # of the pods before this one
        late = late - worked_s if late is not None and late > worked_s else None
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

    @contextmanager
    def _at_no_cost_of_a_try(self) -> Iterator[None]:
        """Defers when the pod is lost within the block, or the cluster refuses what the block asks for."""
        try:
            yield
        except PodLostError as lost:
            self._start_another(str(lost))
        except PodNotFoundException:
            self._start_another(f"the pod {self._pod_name} is gone: it was deleted, or its node was lost")
        except (ApiException, HTTPError) as error:
            if not (why := refusal(error)):
                raise
            self._ask_again(why)
        except AirflowException:
            if not self._event or self.pod is not None:
                raise
            # It had failed when the triggerer saw it, and was gone before this process could read why.
            self._start_another(
                f"the pod {self._pod_name} failed, and was deleted before its status could be read"
            )

    def _start_another(self, why: str) -> NoReturn:
        limit = self.execution_timeout
        if limit is not None and self._restarts.now_s >= limit.total_seconds():
            raise AirflowException(f"{why}; the time limit of the task has passed as well")
        started = "another pod is started"
        self._restarts, delay_s = self._restarted(why, started)
        self._wait(delay_s, then=None)

    def _ask_again(self, why: str) -> NoReturn:
        now, limit_s = self._restarts.now_s, self.settings.kubernetes.create_timeout_s
        try:
            self._restarts = self._restarts.refused(now, limit_s)
        except LimitReachedError as reached:
            raise AirflowException(f"{why}; {reached}") from reached
        delay_s = self._restarts.refusal_delay_s(self.settings.core.task_restart_delay_s)
        _log.warning(
            "%s; it is asked again in %s, without using up a retry (refused for %s so far, at most %s)",
            why,
            in_words(delay_s),
            in_words(self._restarts.refused_s),
            in_words(limit_s),
        )
        self._wait(delay_s, then=dict(self._event) or None)

    def _wait(self, delay_s: float, then: dict[str, Any] | None) -> NoReturn:
        """Defers for a time; after it comes the event `then`, or another pod."""
        event = {"status": WAITED, "then": then, "restarts": self._restarts.to_plain()}
        super().defer(trigger=WaitTrigger(delay_s=delay_s, event=event), method_name="trigger_reentry")

    def _restarted(self, why: str, what: str) -> tuple[Restarts, float]:
        return next_restart(self._restarts, self._restarts.now_s, why, what, self.settings.core)

    @property
    def _pod_name(self) -> str:
        return str(self._event.get("name", "of this task"))

    def _result(self) -> dict[str, Any]:
        uri = result_uri(self.command, self.settings)
        folder, _, name = uri.rpartition("/")
        try:
            use_own_s3()
            return dict(parse_json(open_store(folder).read(name)))
        except OutageError as error:
            why = f"the pod succeeded, but its result cannot be read yet: {error}"
            again = "it is read again"
            self._restarts, delay_s = self._restarted(why, again)
            self._wait(delay_s, then={"status": _FINISHED})
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

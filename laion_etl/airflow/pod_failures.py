"""Why a pod failed: its Kubernetes status becomes the exception that alerts show."""

from typing import Any

from airflow.sdk.exceptions import AirflowException

from laion_etl.airflow.commands import failed_command
from laion_etl.airflow.errors import FinalError

# Stages that start over on a retry: with the same memory they would fail again.
_FROM_THE_START = {"parse", "load", "plan", "publish"}
_DISRUPTED = {"Evicted", "Preempting", "NodeShutdown", "Terminated", "Shutdown", "NodeLost", "NodeAffinity"}
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


def failure(stage: str, pod: Any, event_message: str) -> AirflowException:
    """The exception of the task; `event_message` is used where the pod's status gives no cause."""
    status, container = pod.status, _container(pod)
    terminated, waiting = (container and container.state.terminated), (container and container.state.waiting)
    if status.reason in _DISRUPTED or _disruption(status):
        why = status.message or _disruption(status) or "no reason given"
        return AirflowException(f"the pod was {_past(status.reason)} by Kubernetes: {why}")
    if terminated and terminated.reason == "OOMKilled":
        return _out_of_memory(stage, pod)
    if waiting and waiting.reason in _NO_IMAGE:
        image = pod.spec.containers[0].image
        return AirflowException(
            f"cannot pull the image {image} ({waiting.reason}: {waiting.message}); see "
            "LAION_ETL_KUBERNETES_IMAGE and LAION_ETL_KUBERNETES_IMAGE_PULL_SECRETS"
        )
    if waiting:
        return AirflowException(f"the pod did not start ({waiting.reason}: {waiting.message})")
    if status.reason == "DeadlineExceeded":
        return AirflowException(f"the {stage} command exceeded the time limit of its pod: {status.message}")
    if terminated:
        return failed_command(stage, terminated.exit_code, (terminated.message or event_message).splitlines())
    if status.phase == "Pending":
        return AirflowException(f"no node accepted the pod: {_unschedulable(status) or event_message}")
    return AirflowException(f"the pod was stopped: {event_message}")


def _out_of_memory(stage: str, pod: Any) -> AirflowException:
    limits = pod.spec.containers[0].resources.limits or {}
    kind = FinalError if stage in _FROM_THE_START else AirflowException
    return kind(
        f"the pod was OOM-killed at {limits.get('memory', 'the memory of its node')}; raise "
        f"{stage}=... in LAION_ETL_KUBERNETES_MEMORY"
    )


def _container(pod: Any) -> Any:
    """The status of the command's container; None before it exists."""
    return next(iter(pod.status.container_statuses or []), None)


def _disruption(status: Any) -> str:
    """The message of the condition that Kubernetes sets when it ends a pod itself."""
    conditions = [one for one in status.conditions or [] if one.type == "DisruptionTarget"]
    return next((f"{one.reason}: {one.message}" for one in conditions if one.status == "True"), "")


def _unschedulable(status: Any) -> str:
    conditions = [one for one in status.conditions or [] if one.type == "PodScheduled"]
    return next((str(one.message) for one in conditions if one.status == "False"), "")


def _past(reason: str | None) -> str:
    return {"Evicted": "evicted", "Preempting": "preempted"}.get(str(reason), "ended")

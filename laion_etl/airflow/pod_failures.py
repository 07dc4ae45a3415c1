"""Why a pod failed: its Kubernetes status becomes the exception that alerts show.

A pod that was lost through no fault of its command raises PodLostError: pods.py starts another one. Reasons
and conditions: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions and
kubelet's eviction and node shutdown managers.
"""

import re
from typing import Any

from airflow.sdk.exceptions import AirflowException

from laion_etl.airflow.command_failures import failed_command
from laion_etl.airflow.errors import FinalError
from laion_etl.airflow.restarts import ASKED_TO_END, RESUMABLE

# Stages that start over on a retry: with the same memory they would fail again.
_FROM_THE_START = {"parse", "load", "plan", "publish"}
_DISRUPTED = {"Evicted", "Preempting", "NodeShutdown", "Terminated", "Shutdown", "NodeLost", "NodeAffinity"}
# A node that takes a pod but then has no room for it, or lost its devices in a reboot.
_NOT_ADMITTED = re.compile(r"OutOf\w+|UnexpectedAdmissionError")
# Evictions for what the pod itself did, unlike those for want of memory or disk on the node.
_OWN_DISK = re.compile(r"exceed(s|ed) (its local ephemeral storage|the total|the) limit")
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


class PodLostError(AirflowException):
    """Kubernetes ended the pod, or its command ended early but can go on: another pod continues the work."""


def failure(stage: str, pod: Any, event_message: str) -> AirflowException:
    """The exception of the task; `event_message` is used where the pod's status gives no cause."""
    status, container = pod.status, _container(pod)
    terminated, waiting = (container and container.state.terminated), (container and container.state.waiting)
    if own := _own_excess(stage, pod, terminated):
        return own
    if lost := _lost(pod, terminated):
        return PodLostError(lost)
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
        lines = (terminated.message or event_message).splitlines()
        error = failed_command(stage, terminated.exit_code, lines)
        return PodLostError(str(error)) if terminated.exit_code in RESUMABLE else error
    if status.phase == "Pending":
        return AirflowException(f"no node accepted the pod: {_unschedulable(status) or event_message}")
    return AirflowException(f"the pod was stopped: {event_message}")


def _lost(pod: Any, terminated: Any) -> str:
    """How the pod was lost, by its status; '' for one that ended by itself or was ended by Airflow."""
    status, reason = pod.status, str(pod.status.reason)
    if reason in _DISRUPTED or _NOT_ADMITTED.fullmatch(reason) or _disruption(status):
        why = status.message or _disruption(status) or "no reason given"
        return f"the pod was {_past(status.reason)} by Kubernetes: {why}"
    if terminated and terminated.reason == "ContainerStatusUnknown":
        return f"the pod's node was lost: {terminated.message or 'the state of its container is not known'}"
    killed = terminated is None or terminated.exit_code in (*ASKED_TO_END, 137)
    if pod.metadata.deletion_timestamp is not None and killed and reason != "DeadlineExceeded":
        return "the pod was deleted, and not by this task"
    return ""


def _own_excess(stage: str, pod: Any, terminated: Any) -> AirflowException | None:
    """The failure of a pod that was ended because it used more memory or disk than its limit."""
    kind = FinalError if stage in _FROM_THE_START else AirflowException
    if _OWN_DISK.search(pod.status.message or ""):
        return kind(
            f"the pod was evicted for the disk it used: {pod.status.message.strip()}; raise "
            f"{stage}=... in LAION_ETL_KUBERNETES_SCRATCH"
        )
    if terminated and terminated.reason == "OOMKilled":
        limits = pod.spec.containers[0].resources.limits or {}
        return kind(
            f"the pod was OOM-killed at {limits.get('memory', 'the memory of its node')}; raise "
            f"{stage}=... in LAION_ETL_KUBERNETES_MEMORY"
        )
    return None


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

"""Why a pod failed, in words: what Kubernetes says of it becomes the exception that alerts show."""

from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from laion_runner import failed_command

# Stages that begin anew when they are tried again: with the same memory they end the same way.
_FROM_THE_START = {"parse", "load", "plan", "publish"}
_DISRUPTED = {"Evicted", "Preempting", "NodeShutdown", "Terminated", "Shutdown", "NodeLost", "NodeAffinity"}
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


def failure(stage: str, pod: Any, told: str) -> AirflowException:
    """What the task raises; `told` is what is known where the pod itself says nothing."""
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
            f"the image {image} can't be pulled ({waiting.reason}: {waiting.message}); see "
            "LAION_ETL_KUBERNETES_IMAGE and LAION_ETL_KUBERNETES_IMAGE_PULL_SECRETS"
        )
    if waiting:
        return AirflowException(f"the pod did not begin ({waiting.reason}: {waiting.message})")
    if status.reason == "DeadlineExceeded":
        return AirflowException(f"laion-etl {stage} worked longer than its pod may: {status.message}")
    if terminated:
        return failed_command(stage, terminated.exit_code, (terminated.message or told).splitlines())
    if status.phase == "Pending":
        return AirflowException(f"no node took the pod: {_unschedulable(status) or told}")
    return AirflowException(f"the pod was stopped: {told}")


def _out_of_memory(stage: str, pod: Any) -> AirflowException:
    limits = pod.spec.containers[0].resources.limits or {}
    kind = AirflowFailException if stage in _FROM_THE_START else AirflowException
    return kind(
        f"the pod was OOM-killed at {limits.get('memory', 'the memory of its node')}; give it more by "
        f"{stage}=... in LAION_ETL_KUBERNETES_MEMORY"
    )


def _container(pod: Any) -> Any:
    """The status of the command's container; None before there is one."""
    return next(iter(pod.status.container_statuses or []), None)


def _disruption(status: Any) -> str:
    """The message of the condition by which Kubernetes says that it ended the pod itself."""
    conditions = [one for one in status.conditions or [] if one.type == "DisruptionTarget"]
    return next((f"{one.reason}: {one.message}" for one in conditions if one.status == "True"), "")


def _unschedulable(status: Any) -> str:
    conditions = [one for one in status.conditions or [] if one.type == "PodScheduled"]
    return next((str(one.message) for one in conditions if one.status == "False"), "")


def _past(reason: str | None) -> str:
    return {"Evicted": "evicted", "Preempting": "preempted"}.get(str(reason), "ended")

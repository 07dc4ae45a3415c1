"""A pod's status in every phase of its life, and the matching events."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from tests.kubernetes.answers import Json
from tests.kubernetes.store import timestamp

Change = Callable[[Json], None]

NODE = "node-1"
NO_ROOM = "0/3 nodes are available: 3 Insufficient memory."
LOW_ON_RESOURCE = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 812Mi."
)
OVER_ITS_DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 4Gi. "
_ADDRESS = "127.0.0.1"


def container_name(pod: Json) -> str:
    return str(pod["spec"]["containers"][0]["name"])


def is_over(pod: Json) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def pending() -> Json:
    """The status of a pod that has just been posted."""
    return {"phase": "Pending", "qosClass": "Burstable"}


def unschedulable() -> Change:
    return _status(conditions=[_condition("PodScheduled", "False", reason="Unschedulable", message=NO_ROOM)])


def scheduled() -> Change:
    """On its node, the image being pulled."""

    def change(pod: Json) -> None:
        pod["spec"]["nodeName"] = NODE
        pod["status"] |= {
            "conditions": [_condition("PodScheduled", "True")],
            "hostIP": _ADDRESS,
            "podIP": _ADDRESS,
            "startTime": timestamp(),
            "containerStatuses": [_container(pod, {"waiting": {"reason": "ContainerCreating"}})],
        }

    return change


def waiting(reason: str, message: str) -> Change:
    return _status(state={"waiting": {"reason": reason, "message": message}})


def running() -> Change:
    ready = [_condition(kind, "True") for kind in ("PodScheduled", "Ready", "ContainersReady")]
    return _status(state={"running": {"startedAt": timestamp()}}, phase="Running", conditions=ready)


def ended(code: int, reason: str, started: str, detail: str = "") -> Change:
    """The container has ended by itself or for want of memory; `detail` says more."""
    terminated = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": timestamp()}
    if detail:
        terminated["message"] = detail
    return _status(state={"terminated": terminated}, phase="Succeeded" if code == 0 else "Failed")


def evicted(code: int, started: str, message: str = LOW_ON_RESOURCE) -> Change:
    """Killed by the kubelet to free its node."""
    return _failed("Evicted", message, code, started, conditions=[_disrupted("TerminationByKubelet")])


def shut_down(code: int, started: str) -> Change:
    """Ended by the kubelet of a node that is shut down."""
    message = "Pod was terminated in response to imminent node shutdown."
    return _failed("Terminated", message, code, started, conditions=[_disrupted("TerminationByKubelet")])


def preempted() -> Change:
    """Marked by the scheduler, which then deletes it."""
    message = "default-scheduler: preempting to accommodate a higher priority pod"
    return _status(conditions=[_disrupted("PreemptionByScheduler", message=message)])


def unreachable() -> Change:
    """Deleted long ago, since its node is not reachable; nothing confirms its end."""

    def change(pod: Json) -> None:
        pod["status"]["conditions"] = [
            _disrupted("DeletionByTaintManager", message="node.kubernetes.io/unreachable")
        ]
        pod["metadata"] |= {"deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}

    return change


def past_deadline(code: int, started: str) -> Change:
    """Killed because it took longer than activeDeadlineSeconds."""
    return _failed("DeadlineExceeded", "Pod was active longer than the specified deadline", code, started)


def deletion(grace_s: int) -> Change:
    def change(pod: Json) -> None:
        pod["metadata"] |= {"deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": grace_s}

    return change


def event(pod: Json, kind: str, reason: str, message: str, of_container: bool = True) -> Json:
    """Something that happened to a pod, or to its container."""
    involved = {
        "kind": "Pod",
        "apiVersion": "v1",
        **{name: pod["metadata"][name] for name in ("name", "namespace", "uid")},
    }
    if of_container:
        involved["fieldPath"] = f"spec.containers{{{container_name(pod)}}}"
    return {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": f"{pod['metadata']['name'][:230]}.{uuid4().hex[:16]}"},
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": timestamp(),
        "lastTimestamp": timestamp(),
        "source": {"component": "kubelet", "host": NODE},
    }


def _failed(reason: str, message: str, code: int, started: str, **more: Any) -> Change:
    pod = {"phase": "Failed", "reason": reason, "message": message, **more}
    terminated = {"exitCode": code, "reason": "Error", "startedAt": started, "finishedAt": timestamp()}
    return _status(state={"terminated": terminated}, **pod)


def _status(state: Json | None = None, **values: Any) -> Change:
    def change(pod: Json) -> None:
        pod["status"] |= values
        if state is not None:
            pod["status"]["containerStatuses"] = [_container(pod, state)]

    return change


def _container(pod: Json, state: Json) -> Json:
    container = pod["spec"]["containers"][0]
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": "running" in state,
        "started": "running" in state,
        "restartCount": 0,
        "state": state,
        "lastState": {},
    }


def _disrupted(reason: str, **more: str) -> Json:
    return _condition("DisruptionTarget", "True", reason=reason, **more)


def _condition(kind: str, status: str, **more: str) -> Json:
    return {"type": kind, "status": status, "lastTransitionTime": timestamp(), **more}

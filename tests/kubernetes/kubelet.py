"""Scheduler and node in one: takes a new pod through its phases, and ends it when it is deleted."""

import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.kubernetes import phases
from tests.kubernetes.answers import ApiError, Json
from tests.kubernetes.container import Container
from tests.kubernetes.environment import (
    ConfigError,
    Image,
    Namespace,
    container_command,
    container_environment,
)
from tests.kubernetes.faults import Faults, PodFault, PodTrouble
from tests.kubernetes.phases import Change
from tests.kubernetes.store import Store, timestamp

_BACK_OFF_S = 0.5
_LOOK_S = 0.02
# Troubles in which the kubelet kills the container itself, and the reasons.
_KILLED = {
    PodTrouble.OOM_KILLED: "OOMKilled",
    PodTrouble.EVICTED: "Evicted",
    PodTrouble.OVER_ITS_DISK: "EvictedForItsDisk",
    PodTrouble.NODE_SHUT_DOWN: "NodeShutdown",
}
_EVICTIONS = {"Evicted": phases.LOW_ON_RESOURCE, "EvictedForItsDisk": phases.OVER_ITS_DISK}
_MESSAGE_LINES, _MESSAGE_BYTES = 80, 2048


class Kubelet:
    """A thread for every pod. `images` are the available ones."""

    def __init__(
        self,
        store: Store,
        faults: Faults,
        images: Mapping[str, Image],
        namespaces: Mapping[str, Namespace],
        folder: Path,
    ) -> None:
        self._store, self._faults, self._images = store, faults, images
        self._namespaces, self._folder = namespaces, folder
        self._containers: dict[str, Container] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, pod: Json) -> None:
        thread = threading.Thread(target=self._live, args=(pod,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def container(self, pod: Json) -> Container | None:
        """The container of a pod; None until it is started."""
        return self._containers.get(pod["metadata"]["uid"])

    def delete(self, namespace: str, name: str, grace_s: int | None) -> Json:
        """The pod goes when its process has ended, which is asked to, then made to. Raises ApiError 404."""
        with self._lock:
            pod = self._store.read("pods", namespace, name)
            if grace_s is None:
                grace_s = pod["spec"]["terminationGracePeriodSeconds"]
            container = self.container(pod)
            if container is None or phases.is_over(pod):
                return self._store.delete("pods", namespace, name)
            marked = self._store.update("pods", namespace, name, phases.deletion(grace_s))
        self._event(pod, "Normal", "Killing", "Stopping container " + phases.container_name(pod))
        container.stop(grace_s)
        return marked

    def stop(self) -> None:
        """Kills all that runs."""
        self._stopping.set()
        with self._lock:
            for container in self._containers.values():
                container.kill()
        for thread in self._threads:
            thread.join(240)

    def _live(self, pod: Json) -> None:
        fault = self._faults.of_pod(pod["metadata"].get("labels") or {})
        with suppress(ApiError):  # 404: it was deleted meanwhile
            if fault is not None and fault.trouble is PodTrouble.UNSCHEDULABLE:
                self._set(pod, phases.unschedulable())
                self._event(pod, "Warning", "FailedScheduling", phases.NO_ROOM, of_container=False)
                return
            pod = self._set(pod, phases.scheduled())
            self._event(pod, "Normal", "Scheduled", f"Assigned to {phases.NODE}", of_container=False)
            if fault is not None and fault.trouble is PodTrouble.SLOW_PULL:
                self._await(fault.until)
                fault = None
            image = self._images.get(pod["spec"]["containers"][0]["image"])
            if image is None or (fault is not None and fault.trouble is PodTrouble.IMAGE_PULL):
                self._fail_to_pull(pod)
                return
            self._run(pod, image, fault)

    def _await(self, event: threading.Event) -> None:
        while not event.wait(_LOOK_S) and not self._stopping.is_set():
            pass

    def _fail_to_pull(self, pod: Json) -> None:
        image = pod["spec"]["containers"][0]["image"]
        message = f'failed to pull and unpack image "{image}": {image}: not found'
        self._set(pod, phases.waiting("ErrImagePull", message))
        self._event(pod, "Warning", "Failed", f'Failed to pull image "{image}": {message}')
        if not self._stopping.wait(_BACK_OFF_S):
            back_off = f'Back-off pulling image "{image}": ErrImagePull: {message}'
            self._set(pod, phases.waiting("ImagePullBackOff", back_off))
            self._event(pod, "Normal", "BackOff", back_off)

    def _run(self, pod: Json, image: Image, fault: PodFault | None) -> None:
        try:
            container = self._started(pod, image)
        except ConfigError as error:
            self._set(pod, phases.waiting("CreateContainerConfigError", str(error)))
            self._event(pod, "Warning", "Failed", f"Error: {error}")
            return
        except OSError as error:
            self._set(pod, phases.ended(128, "StartError", timestamp(), detail=str(error)))
            self._event(pod, "Warning", "Failed", f"Error: failed to start container: {error}")
            return
        change = self._end(pod, container, fault)
        with self._lock:
            done = self._set(pod, change)
            if done["metadata"].get("deletionTimestamp"):
                self._store.delete("pods", done["metadata"]["namespace"], done["metadata"]["name"])

    def _started(self, pod: Json, image: Image) -> Container:
        """The container of a pod. Raises ConfigError, OSError; ApiError when the pod is deleted."""
        name = pod["metadata"]["name"]
        folder = self._folder / f"{name}-{pod['metadata']['uid']}"
        folder.mkdir(parents=True)
        namespace = self._namespaces[pod["metadata"]["namespace"]]
        environment = container_environment(pod, image, namespace, folder)
        command = container_command(pod, image, environment)
        with self._lock:
            self._store.read("pods", pod["metadata"]["namespace"], name)
            if self._stopping.is_set():
                raise ApiError(503, "ServiceUnavailable", "the cluster is being stopped")
            container = Container(command, environment, folder, image.start)
            self._containers[pod["metadata"]["uid"]] = container
            self._set(pod, phases.running())
        self._event(pod, "Normal", "Started", "Container started")
        return container

    def _end(self, pod: Json, container: Container, fault: PodFault | None) -> Change:
        """Waits for the end of the container; what it means for the pod."""
        started = pod["status"]["startTime"]
        reason = self._waited(pod, container, fault)
        code = container.wait()
        if reason in _EVICTIONS:
            message = _EVICTIONS[reason]
            self._event(pod, "Warning", "Evicted", message, of_container=False)
            return phases.evicted(code, started, message)
        if reason == "NodeShutdown":
            return phases.shut_down(code, started)
        if reason == "DeadlineExceeded":
            return phases.past_deadline(code, started)
        if code == 0:
            return phases.ended(code, "Completed", started)
        return phases.ended(code, reason or "Error", started, _last_words(pod, container))

    def _waited(self, pod: Json, container: Container, fault: PodFault | None) -> str | None:
        """Waits for the end; the reason when it was brought about from outside."""
        if fault is not None and _moment_came(container, fault):
            if fault.trouble in _KILLED:
                container.kill()
                return _KILLED[fault.trouble]
            self._strike(pod, fault.trouble)
        try:
            container.wait(pod["spec"].get("activeDeadlineSeconds"))
        except subprocess.TimeoutExpired:
            container.kill()
            return "DeadlineExceeded"
        return None

    def _strike(self, pod: Json, trouble: PodTrouble) -> None:
        """What others do to a running pod."""
        if trouble is PodTrouble.NODE_LOST:
            self._set(pod, phases.unreachable())
            return
        if trouble is PodTrouble.PREEMPTED:
            self._set(pod, phases.preempted())
        self.delete(pod["metadata"]["namespace"], pod["metadata"]["name"], None)

    def _set(self, pod: Json, change: Change) -> Json:
        return self._store.update("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], change)

    def _event(self, pod: Json, kind: str, reason: str, message: str, **where: Any) -> None:
        event = phases.event(pod, kind, reason, message, **where)
        self._store.create("events", pod["metadata"]["namespace"], event)


def _last_words(pod: Json, container: Container) -> str:
    """The end of the log as termination message, where the pod asks for it."""
    if pod["spec"]["containers"][0].get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return ""
    lines = b"".join(line.text + b"\n" for line in container.lines()[-_MESSAGE_LINES:])
    return lines[-_MESSAGE_BYTES:].decode(errors="replace")


def _moment_came(container: Container, fault: PodFault) -> bool:
    """Waits for the moment at which the pod is to be killed; False when it ended before."""
    if fault.begun is None:
        return container.says(fault.after)
    while container.is_running():
        if fault.begun():
            return True
        time.sleep(_LOOK_S)
    return False

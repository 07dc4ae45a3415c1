"""Faults ordered in advance: for a pod, by its labels, or for the n-th request of a kind."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from tests.kubernetes.answers import ApiError

Verb = Literal["create", "get", "list", "watch", "patch", "delete"]
Labels = Mapping[str, str]


class PodTrouble(Enum):
    """What becomes of a pod."""

    OOM_KILLED = "killed for lack of memory"
    EVICTED = "evicted from its node"
    OVER_ITS_DISK = "evicted for the disk that it used itself"
    PREEMPTED = "deleted by the scheduler to make room"
    DELETED = "deleted by another client of the cluster"
    NODE_SHUT_DOWN = "ended with its node"
    NODE_LOST = "on a node that no longer reports"
    IMAGE_PULL = "its image cannot be pulled"
    UNSCHEDULABLE = "no node has room"
    SLOW_PULL = "its image takes its time"


@dataclass(frozen=True, slots=True)
class PodFault:
    """The next `times` pods with these labels.

    One that is killed is so when its output has had `after`, or once `begun` says so, where that is given; a
    slow image is there when `until` is set.
    """

    trouble: PodTrouble
    labels: Labels = field(default_factory=dict)
    after: str = ""
    begun: Callable[[], bool] | None = None
    until: threading.Event = field(default_factory=threading.Event)
    times: int = 1


@dataclass(frozen=True, slots=True)
class Refused:
    """Answered with this status."""

    error: ApiError


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed without an end, after so many lines of a stream."""

    after_lines: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Done at once, but answered only when `until` is set."""

    until: threading.Event


Instead = Refused | Cut | Held


@dataclass(frozen=True, slots=True)
class RequestFault:
    """Of the requests of a kind, for pods with these labels, `skip` go well and then `times` do not."""

    verb: Verb
    resource: Literal["pods", "pods/log", "events"]
    instead: Instead
    labels: Labels = field(default_factory=dict)
    skip: int = 0
    times: int = 1


SERVER_ERROR = Refused(
    ApiError(500, "InternalError", "Internal error occurred: etcdserver: request timed out")
)
TOO_MANY_REQUESTS = Refused(
    ApiError(429, "TooManyRequests", "The server has received too many requests", retry_after_s=1)
)

QUOTA_USED_UP = Refused(
    ApiError(
        403,
        "Forbidden",
        'pods "pod" is forbidden: exceeded quota: laion, requested: pods=1,requests.cpu=4, '
        "used: pods=12,requests.cpu=596, limited: pods=300,requests.cpu=598",
    )
)
QUOTA_TOO_SMALL = Refused(
    ApiError(
        403,
        "Forbidden",
        'pods "pod" is forbidden: exceeded quota: laion, requested: requests.memory=9Gi, '
        "used: requests.memory=0, limited: requests.memory=8000Mi",
    )
)


class Faults:
    """Orders are used up as they come true; a test may insist that no order is `outstanding`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: list[tuple[PodFault, int]] = []
        self._requests: list[tuple[RequestFault, int]] = []
        self.struck: list[PodFault | RequestFault] = []

    def order(self, *faults: PodFault | RequestFault) -> None:
        with self._lock:
            for fault in faults:
                if isinstance(fault, PodFault):
                    self._pods.append((fault, 0))
                else:
                    self._requests.append((fault, 0))

    def outstanding(self) -> list[PodFault | RequestFault]:
        """Orders that did not come true, not even once."""
        with self._lock:
            ordered = [fault for fault, _ in (*self._pods, *self._requests)]
        return [fault for fault in ordered if fault not in self.struck]

    def of_pod(self, labels: Labels) -> PodFault | None:
        """What is to happen to a new pod."""
        with self._lock:
            for index, (fault, seen) in enumerate(self._pods):
                if seen < fault.times and _has(labels, fault.labels):
                    self._pods[index] = fault, seen + 1
                    self.struck.append(fault)
                    return fault
        return None

    def of_request(self, verb: str, resource: str, labels: Labels) -> Instead | None:
        """What is to happen to a request; every order that it fits counts it."""
        instead = None
        with self._lock:
            for index, (fault, seen) in enumerate(self._requests):
                if (verb, resource) != (fault.verb, fault.resource) or not _has(labels, fault.labels):
                    continue
                self._requests[index] = fault, seen + 1
                if instead is None and fault.skip <= seen < fault.skip + fault.times:
                    instead = fault.instead
                    self.struck.append(fault)
        return instead


def _has(labels: Labels, wanted: Labels) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())

"""All objects of the cluster and every change of them, by resource version: what etcd is to a real server."""

import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from tests.kubernetes.answers import ApiError, Json, not_found
from tests.kubernetes.schema import served

Resource = Literal["pods", "events"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an object, as a watch reports it."""

    revision: int
    resource: Resource
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    found: Json

    @property
    def namespace(self) -> str:
        return str(self.found["metadata"]["namespace"])


class Store:
    """Stored objects are never changed in place: an update stores a new one, so readers need no lock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._objects: dict[tuple[Resource, str, str], Json] = {}
        self._changes: list[Change] = []
        self._closed = False

    def create(self, resource: Resource, namespace: str, new: Json) -> Json:
        """With uid, creation time and resource version; raises ApiError 409 when the name is taken."""
        name = new["metadata"]["name"]
        with self._changed:
            if (resource, namespace, name) in self._objects:
                raise ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists')
            given = {"namespace": namespace, "uid": str(uuid4()), "creationTimestamp": timestamp()}
            return self._put(resource, "ADDED", {**new, "metadata": {**new["metadata"], **given}})

    def read(self, resource: Resource, namespace: str, name: str) -> Json:
        with self._changed:
            try:
                return self._objects[resource, namespace, name]
            except KeyError:
                raise not_found(resource, name) from None

    def update(self, resource: Resource, namespace: str, name: str, change: Callable[[Json], None]) -> Json:
        """Stores the object as `change` leaves it."""
        with self._changed:
            new = deepcopy(self.read(resource, namespace, name))
            change(new)
            return self._put(resource, "MODIFIED", new)

    def delete(self, resource: Resource, namespace: str, name: str) -> Json:
        with self._changed:
            found = deepcopy(self.read(resource, namespace, name))
            self._put(resource, "DELETED", found)
            del self._objects[resource, namespace, name]
            return found

    def found(self, resource: Resource, namespace: str) -> tuple[list[Json], int]:
        """The objects of a namespace, and the resource version they are of."""
        with self._changed:
            found = [
                o for (kind, where, _), o in self._objects.items() if (kind, where) == (resource, namespace)
            ]
            return found, len(self._changes)

    def changes_after(self, revision: int, end: float) -> list[Change]:
        """All that happened after a resource version; waits for something, until `end` (monotonic)."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._changes) > revision or self._closed, max(0.0, end - time.monotonic())
            )
            return self._changes[revision:]

    def close(self) -> None:
        """Wakes all who wait for changes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, resource: Resource, kind: Literal["ADDED", "MODIFIED", "DELETED"], new: Json) -> Json:
        revision = len(self._changes) + 1
        new["metadata"]["resourceVersion"] = str(revision)
        served(new)
        self._objects[resource, new["metadata"]["namespace"], new["metadata"]["name"]] = new
        self._changes.append(Change(revision, resource, kind, new))
        self._changed.notify_all()
        return new


def timestamp() -> str:
    """Now, as Kubernetes writes times: RFC 3339 in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

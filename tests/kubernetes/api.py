"""The operations of the API server, independent of the protocol."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.kubernetes import phases
from tests.kubernetes.answers import ApiError, Cause, Json, bad_request, invalid_pod, not_found
from tests.kubernetes.container import Container, LogLine
from tests.kubernetes.environment import Namespace
from tests.kubernetes.kubelet import Kubelet
from tests.kubernetes.rules import check_pod
from tests.kubernetes.schema import check_types
from tests.kubernetes.selectors import Matches, field_selector, label_selector
from tests.kubernetes.store import Change, Resource, Store

Query = Mapping[str, str]

_WATCH_S = 300.0
_DEFAULTS = {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30}
_KINDS = {"pods": "Pod", "events": "Event"}


class Api:
    """The operations on pods and events. All raise ApiError."""

    def __init__(self, store: Store, kubelet: Kubelet, namespaces: Mapping[str, Namespace]) -> None:
        self._store, self._kubelet, self._namespaces = store, kubelet, namespaces

    def create_pod(self, namespace: str, posted: Json) -> Json:
        """Stores and starts a valid pod."""
        if namespace not in self._namespaces:
            raise not_found("namespaces", namespace)
        check_types(posted, "V1Pod")
        if (posted.get("apiVersion"), posted.get("kind")) != ("v1", "Pod"):
            raise bad_request("the object provided is not a v1 Pod")
        metadata = posted.get("metadata") or {}
        if metadata.get("namespace") not in (None, namespace):
            raise bad_request("the namespace of the provided object does not match the namespace sent")
        if not posted.get("spec"):
            raise invalid_pod(metadata.get("name", ""), [Cause("spec", "FieldValueRequired", "Required")])
        pod = {
            **posted,
            "metadata": metadata,
            "spec": _with_defaults(posted["spec"]),
            "status": phases.pending(),
        }
        check_pod(pod)
        self._admit(namespace, pod)
        stored = self._store.create("pods", namespace, pod)
        self._kubelet.start(stored)
        return stored

    def patch_pod(self, namespace: str, name: str, patch: Json) -> Json:
        """A merge of labels and annotations; of a pod nothing else may be changed here."""
        metadata = patch.get("metadata") or {}
        if set(patch) - {"metadata"} or set(metadata) - {"labels", "annotations"}:
            message = "Forbidden: pod updates may not change fields other than labels and annotations"
            raise invalid_pod(name, [Cause("spec", "FieldValueForbidden", message)])

        def merge(pod: Json) -> None:
            for part, changes in metadata.items():
                merged = {**(pod["metadata"].get(part) or {}), **changes}
                pod["metadata"][part] = {key: value for key, value in merged.items() if value is not None}
            check_types(pod, "V1Pod")
            check_pod(pod)

        return self._store.update("pods", namespace, name, merge)

    def delete_pod(self, namespace: str, name: str, options: Json, query: Query) -> Json:
        """Grace as asked for in the body or the query, or as the pod has it."""
        check_types(options, "V1DeleteOptions")
        grace = options.get("gracePeriodSeconds")
        if grace is None and "gracePeriodSeconds" in query:
            grace = _number(query, "gracePeriodSeconds")
        return self._kubelet.delete(namespace, name, grace)

    def read(self, resource: Resource, namespace: str, name: str) -> Json:
        return self._store.read(resource, namespace, name)

    def selected(self, resource: Resource, namespace: str, query: Query) -> Json:
        """All that the selectors choose."""
        matches = _selection(query)
        found, revision = self._store.found(resource, namespace)
        return {
            "kind": f"{_KINDS[resource]}List",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(revision)},
            "items": [item for item in found if matches(item)],
        }

    def watch(self, resource: Resource, namespace: str, query: Query) -> Iterator[Json]:
        """What there is, unless a resource version is given, then every change, for `timeoutSeconds`."""
        matches = _selection(query)
        end = time.monotonic() + (_number(query, "timeoutSeconds") or _WATCH_S)
        revision = _number(query, "resourceVersion") or 0
        return self._changes(resource, namespace, matches, revision, end)

    def log(self, namespace: str, name: str, query: Query) -> Iterator[bytes]:
        """Lines with their ends, of one container."""
        pod = self._store.read("pods", namespace, name)
        wanted = query.get("container", phases.container_name(pod))
        if wanted != phases.container_name(pod):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        container = self._kubelet.container(pod)
        if container is None:
            raise bad_request(f'container "{wanted}" in pod "{name}" is waiting to start')
        stamped = is_true(query, "timestamps")
        return (
            (line.stamped if stamped else line.text) + b"\n"
            for line in _chosen(container, query, datetime.now(UTC))
        )

    def _changes(
        self, resource: Resource, namespace: str, matches: Matches, revision: int, end: float
    ) -> Iterator[Json]:
        if not revision:
            found, revision = self._store.found(resource, namespace)
            yield from ({"type": "ADDED", "object": item} for item in found if matches(item))
        while changes := self._store.changes_after(revision, end):
            revision = changes[-1].revision
            yield from (
                {"type": change.type, "object": change.found}
                for change in changes
                if _is_of(change, resource, namespace) and matches(change.found)
            )

    def _admit(self, namespace: str, pod: Json) -> None:
        account = pod["spec"].get("serviceAccountName") or "default"
        if account not in self._namespaces[namespace].service_accounts:
            name = pod["metadata"]["name"]
            raise ApiError(
                403,
                "Forbidden",
                f'pods "{name}" is forbidden: error looking up service account {namespace}/{account}: '
                f'serviceaccount "{account}" not found',
            )
        if len(pod["spec"]["containers"]) > 1 or pod["spec"].get("initContainers"):
            raise ApiError(501, "NotImplemented", "the fake cluster runs pods of one container only")


def _with_defaults(spec: Json) -> Json:
    given = {name: value for name, value in spec.items() if value is not None}
    return {**_DEFAULTS, **given}


def _selection(query: Query) -> Matches:
    by_label = label_selector(query.get("labelSelector", ""))
    by_field = field_selector(query.get("fieldSelector", ""))
    return lambda found: by_label(found) and by_field(found)


def _is_of(change: Change, resource: Resource, namespace: str) -> bool:
    return (change.resource, change.namespace) == (resource, namespace)


def _chosen(container: Container, query: Query, now: datetime) -> Iterator[LogLine]:
    lines: Any = container.follow() if is_true(query, "follow") else container.lines()
    if tail := _number(query, "tailLines"):
        lines = container.lines()[-tail:]
    since = _number(query, "sinceSeconds")
    earliest = now - timedelta(seconds=since) if since else datetime.min.replace(tzinfo=UTC)
    return (line for line in lines if line.when >= earliest)


def is_true(query: Query, name: str) -> bool:
    """Clients write True, true or 1."""
    return query.get(name, "").lower() in ("true", "t", "1")


def _number(query: Query, name: str) -> int | None:
    value = query.get(name)
    if not value:
        return None
    if not value.isdecimal():
        raise bad_request(f"{name}: {value!r} is not a number")
    return int(value)

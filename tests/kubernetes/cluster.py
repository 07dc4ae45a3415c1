"""A Kubernetes cluster of one process: its API server on loopback, pods as local processes.

It speaks what the official clients and KubernetesPodOperator speak about pods, their logs and events. It has
no roles, no quotas and no real nodes; images are names that stand for an entrypoint and an environment.
"""

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.kubernetes.answers import Json
from tests.kubernetes.api import Api
from tests.kubernetes.environment import Image, Namespace
from tests.kubernetes.faults import Faults
from tests.kubernetes.kubelet import Kubelet
from tests.kubernetes.server import ApiServer, Asked
from tests.kubernetes.store import Change, Store


@dataclass(slots=True)
class Cluster:
    """A test's view of the cluster: orders for faults, and what happened."""

    kubeconfig: Path
    namespaces: dict[str, Namespace]
    faults: Faults
    _store: Store = field(repr=False)
    _asked: list[Asked] = field(repr=False)
    _kubelet: Kubelet = field(repr=False)

    def signal(self, name: str, number: int) -> bool:
        """Sends a signal to all processes of a pod's container; False if it is not running."""
        pods = [pod for space in self.namespaces for pod in self._store.found("pods", space)[0]]
        found = [pod for pod in pods if pod["metadata"]["name"] == name]
        container = self._kubelet.container(found[0]) if found else None
        return container is not None and container.signal(number)

    @property
    def posted(self) -> list[Json]:
        """The bodies of all pods posted, refused ones too."""
        return [request.body for request in self.asked("create", "pods")]

    def asked(self, verb: str, resource: str) -> list[Asked]:
        """The requests of a kind so far."""
        return [r for r in list(self._asked) if (r.verb, r.resource) == (verb, resource)]

    def history(self, name: str) -> list[Change]:
        """Every state that a pod has been in."""
        return [
            change
            for change in self._store.changes_after(0, 0)
            if change.resource == "pods" and change.found["metadata"]["name"] == name
        ]


@contextmanager
def running_cluster(
    folder: Path, images: Mapping[str, Image], namespaces: Mapping[str, Namespace]
) -> Iterator[Cluster]:
    """Until the block ends, and all pods with it. `folder` takes a kubeconfig and the pods' folders."""
    store, faults, token = Store(), Faults(), secrets.token_urlsafe()
    kubelet = Kubelet(store, faults, images, namespaces, folder / "pods")
    with ApiServer(Api(store, kubelet, namespaces), faults, token) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        kubeconfig = folder / "kubeconfig.yaml"
        kubeconfig.write_text(_kubeconfig(server.server_address[1], token, next(iter(namespaces))))
        kubeconfig.chmod(0o600)
        try:
            yield Cluster(kubeconfig, dict(namespaces), faults, store, server.asked, kubelet)
        finally:
            kubelet.stop()
            store.close()
            server.shutdown()
            thread.join()


def _kubeconfig(port: int, token: str, namespace: str) -> str:
    context = {"cluster": "fake", "user": "tests", "namespace": namespace}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": context}],
        }
    )

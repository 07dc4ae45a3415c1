"""What a pod lacks of the Pod Security Standard "restricted", and of what we ask of all pods.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any

from tests.kubernetes.answers import Json

_HOST = ("hostNetwork", "hostPID", "hostIPC")
_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}
_OF_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def missing(spec: Json) -> list[str]:
    """The fields of a pod's specification that are not as they have to be."""
    return [*_of_pod(spec), *_of_containers(spec)]


def _of_pod(spec: Json) -> Iterator[str]:
    yield from (name for name in _HOST if spec.get(name))
    # These two are ours: no token of the API, and no variables that name the namespace's Services.
    for name in ("automountServiceAccountToken", "enableServiceLinks"):
        if spec.get(name) is not False:
            yield name
    for volume in spec.get("volumes") or ():
        yield from (f"volumes: {kind}" for kind in volume if kind not in {"name", *_VOLUMES})
    security = spec.get("securityContext") or {}
    if security.get("sysctls"):
        yield "sysctls"


def _of_containers(spec: Json) -> Iterator[str]:
    of_pod = spec.get("securityContext") or {}
    for container in (one for kind in _OF_CONTAINERS for one in spec.get(kind) or ()):
        own = container.get("securityContext") or {}
        both: dict[str, Any] = {**of_pod, **own}
        right = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "procMount": own.get("procMount", "Default") == "Default",
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile") == {"type": "RuntimeDefault"},
            "ports": not any(port.get("hostPort") for port in container.get("ports") or ()),
        }
        yield from (f"{container['name']}: {name}" for name, is_right in right.items() if not is_right)

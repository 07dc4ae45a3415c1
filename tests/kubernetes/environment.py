"""The command line and the environment of a pod's container, references to secrets and the like resolved."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kubernetes.answers import Json
from tests.kubernetes.container import Start, started

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.+)'\]")


class ConfigError(Exception):
    """The container cannot be created: reason CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Image:
    """What running an image means here: its entrypoint and the variables it sets.

    Nothing is mounted: `mounts` are variables that name other places instead, whatever the pod says. `start`
    starts a command of the container.
    """

    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    start: Start = started


@dataclass(frozen=True, slots=True)
class Namespace:
    """What was put into a namespace for its pods to refer to."""

    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    service_accounts: set[str] = field(default_factory=lambda: {"default"})


def container_environment(pod: Json, image: Image, namespace: Namespace, folder: Path) -> dict[str, str]:
    """All variables of the container, and no variable of this process. Raises ConfigError."""
    container = pod["spec"]["containers"][0]
    values = {"HOME": str(folder), "HOSTNAME": pod["metadata"]["name"], **image.environment}
    for source in container.get("envFrom") or ():
        values |= _all_of(source, namespace)
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        value = (
            expanded(variable.get("value") or "", values) if source is None else _one(source, pod, namespace)
        )
        if value is not None:
            values[variable["name"]] = value
    return values | image.mounts


def container_command(pod: Json, image: Image, environment: Mapping[str, str]) -> list[str]:
    """`command` replaces the image's entrypoint, `args` follow; `$(NAME)` in both is expanded."""
    container = pod["spec"]["containers"][0]
    command = container.get("command") or image.entrypoint
    return [expanded(word, environment) for word in (*command, *(container.get("args") or ()))]


def expanded(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` is replaced where NAME is known, `$$` is a dollar sign."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[1] is None else values.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)


def _all_of(source: Json, namespace: Namespace) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    [(kind, reference)] = [(k, v) for k, v in source.items() if k != "prefix" and v is not None]
    data = _data(kind, reference, namespace)
    return {f"{prefix}{name}": value for name, value in (data or {}).items()}


def _one(source: Json, pod: Json, namespace: Namespace) -> str | None:
    [(kind, reference)] = [(k, v) for k, v in source.items() if v is not None]
    if kind == "fieldRef":
        return _field(reference["fieldPath"], pod)
    data = _data(kind, reference, namespace)
    if data is None or (reference["key"] not in data and reference.get("optional")):
        return None
    try:
        return data[reference["key"]]
    except KeyError:
        raise ConfigError(f"couldn't find key {reference['key']} in {reference['name']}") from None


def _data(kind: str, reference: Json, namespace: Namespace) -> dict[str, str] | None:
    """The content of a secret or config map; None when it is missing and may be."""
    if kind.startswith("secret"):
        what, known = "secret", namespace.secrets
    elif kind.startswith("configMap"):
        what, known = "configmap", namespace.config_maps
    else:
        raise ConfigError(f"the fake cluster does not know {kind}")
    if reference["name"] in known:
        return known[reference["name"]]
    if reference.get("optional"):
        return None
    raise ConfigError(f'{what} "{reference["name"]}" not found')


def _field(path: str, pod: Json) -> str:
    keys = [*path.split(".")]
    if match := _SUBSCRIPT.fullmatch(path):
        keys = [*match[1].split("."), match[2]]
    value = pod
    for key in keys:
        value = value.get(key) or {}
    return str(value) if not isinstance(value, dict) else ""

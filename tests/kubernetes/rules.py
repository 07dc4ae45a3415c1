"""What the real API server demands of a pod beyond its types: names, labels, quantities, references.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and labels/, and
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from tests.kubernetes.answers import Cause, Json, invalid_pod

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # DNS-1123 label, at most 63 characters
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_QUANTITY = re.compile(r"([+-]?[0-9.]+)(|[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)")
_SUFFIX = {"": 1, "n": "1e-9", "u": "1e-6", "m": "1e-3", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12"}
_SUFFIX |= {"P": "1e15", "E": "1e18"} | {f"{unit}i": 1024**n for n, unit in enumerate("KMGTPE", 1)}
_MAX_ANNOTATIONS = 256 * 1024
_CHOICES = {
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "dnsPolicy": {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "terminationMessagePolicy": {"File", "FallbackToLogsOnError"},
}
_PLAIN_RESOURCES = {"cpu", "memory", "ephemeral-storage"}
_EFFECTS = {"", "NoSchedule", "PreferNoSchedule", "NoExecute"}


def check_pod(pod: Json) -> None:
    """Raises ApiError 422 that names every field with a bad value."""
    causes = [*_metadata(pod["metadata"]), *_spec(pod["spec"])]
    if causes:
        raise invalid_pod(pod["metadata"].get("name", ""), causes)


def _metadata(metadata: Json) -> Iterator[Cause]:
    name = metadata.get("name", "")
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield _invalid("metadata.name", name, "a lowercase RFC 1123 subdomain is required")
    for key, value in (metadata.get("labels") or {}).items():
        yield from _key(key, "metadata.labels")
        if value and not _QUALIFIED.fullmatch(value):
            yield _invalid("metadata.labels", value, "a valid label must be at most 63 of [-A-Za-z0-9_.]")
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        yield from _key(key, "metadata.annotations")
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        yield Cause(
            "metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes"
        )


def _key(key: str, field: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    good_prefix = not slash or (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix))
    if not good_prefix or not _QUALIFIED.fullmatch(name):
        yield _invalid(field, key, "a qualified name is required")


def _spec(spec: Json) -> Iterator[Cause]:
    if not spec["containers"]:
        yield _required("spec.containers")
    for name in ("restartPolicy", "dnsPolicy"):
        yield from _choice(spec, name, "spec")
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        yield _invalid(
            "spec.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"], "negative"
        )
    if spec.get("activeDeadlineSeconds") is not None and spec["activeDeadlineSeconds"] < 1:
        yield _invalid("spec.activeDeadlineSeconds", spec["activeDeadlineSeconds"], "must be at least 1")
    volumes = [volume["name"] for volume in spec.get("volumes") or ()]
    yield from _names(volumes, "spec.volumes")
    yield from _names([container["name"] for container in spec["containers"]], "spec.containers")
    for index, container in enumerate(spec["containers"]):
        yield from _container(container, set(volumes), f"spec.containers[{index}]")
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        yield from _toleration(toleration, f"spec.tolerations[{index}]")


def _names(names: list[str], field: str) -> Iterator[Cause]:
    for index, name in enumerate(names):
        if not _LABEL.fullmatch(name):
            yield _invalid(f"{field}[{index}].name", name, "a lowercase RFC 1123 label is required")
    for name, count in Counter(names).items():
        if count > 1:
            yield Cause(field, "FieldValueDuplicate", f'Duplicate value: "{name}"')


def _container(container: Json, volumes: set[str], path: str) -> Iterator[Cause]:
    if not container.get("image"):
        yield _required(f"{path}.image")
    for name in ("imagePullPolicy", "terminationMessagePolicy"):
        yield from _choice(container, name, path)
    for index, variable in enumerate(container.get("env") or ()):
        yield from _variable(variable, f"{path}.env[{index}]")
    for index, source in enumerate(container.get("envFrom") or ()):
        yield from _one_of(source, ("configMapRef", "secretRef"), f"{path}.envFrom[{index}]")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] not in volumes:
            field = f"{path}.volumeMounts[{index}].name"
            yield Cause(field, "FieldValueNotFound", f'Not found: "{mount["name"]}"')
    yield from _resources(container.get("resources") or {}, f"{path}.resources")


def _variable(variable: Json, path: str) -> Iterator[Cause]:
    name = variable["name"]
    if not name or "=" in name or not name.isprintable() or not name.isascii():
        yield _invalid(f"{path}.name", name, "an environment variable's name is required")
    source = variable.get("valueFrom")
    if source is None:
        return
    if variable.get("value"):
        yield _invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
    known = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
    yield from _one_of(source, known, f"{path}.valueFrom")


def _one_of(source: Json, names: Iterable[str], path: str) -> Iterator[Cause]:
    if sum(source.get(name) is not None for name in names) != 1:
        yield _invalid(path, "", f"must specify one of: {', '.join(names)}")


def _resources(resources: Json, path: str) -> Iterator[Cause]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    amounts: dict[tuple[str, str], Decimal] = {}
    for which, quantities in (("limits", limits), ("requests", requests)):
        for name, written in quantities.items():
            field, amount = f"{path}.{which}[{name}]", quantity(written)
            if name not in _PLAIN_RESOURCES and "/" not in name:
                yield _invalid(field, name, "must be a standard resource type or fully qualified")
            if amount is None or amount < 0:
                yield _invalid(field, written, "quantities must match the regular expression of quantities")
                continue
            amounts[which, name] = amount
            if "/" in name and amount != int(amount):
                yield _invalid(field, written, "must be an integer")
    for name, amount in ((name, amount) for (which, name), amount in amounts.items() if which == "requests"):
        limit = amounts.get(("limits", name))
        if limit is not None and amount > limit:
            yield _invalid(f"{path}.requests", requests[name], f"must be less than or equal to {name} limit")
        if "/" in name and limit != amount:
            yield _invalid(f"{path}.limits", limits.get(name), f"{name} can't be overcommitted")


def quantity(written: str) -> Decimal | None:
    """What `500m` or `8Gi` stand for; None for an invalid quantity."""
    match = _QUANTITY.fullmatch(written)
    if match is None:
        return None
    number, suffix = match.groups()
    try:
        if suffix in _SUFFIX:
            return Decimal(number) * Decimal(_SUFFIX[suffix])
        return Decimal(number + suffix)
    except InvalidOperation:
        return None


def _toleration(toleration: Json, path: str) -> Iterator[Cause]:
    operator = toleration.get("operator") or "Equal"
    if operator not in ("Exists", "Equal"):
        yield _unsupported(f"{path}.operator", operator)
    if operator == "Exists" and toleration.get("value"):
        yield _invalid(f"{path}.operator", toleration["value"], "value must be empty when operator is Exists")
    if operator == "Equal" and not toleration.get("key"):
        yield _invalid(f"{path}.operator", operator, "operator must be Exists when `key` is empty")
    effect = toleration.get("effect") or ""
    if effect not in _EFFECTS:
        yield _unsupported(f"{path}.effect", effect)


def _choice(holder: Json, name: str, path: str) -> Iterator[Cause]:
    value = holder.get(name)
    if value is not None and value not in _CHOICES[name]:
        yield _unsupported(f"{path}.{name}", value)


def _invalid(field: str, value: Any, message: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f'Invalid value: "{value}": {message}')


def _unsupported(field: str, value: Any) -> Cause:
    return Cause(field, "FieldValueNotSupported", f'Unsupported value: "{value}"')


def _required(field: str) -> Cause:
    return Cause(field, "FieldValueRequired", "Required value")

"""Posted objects against the official client's models, which are made from the OpenAPI schema."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from kubernetes import client

from tests.kubernetes.answers import Json, bad_request

_LIST = re.compile(r"list\[(.+)\]")
_MAP = re.compile(r"dict\[str, (.+)\]")
_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "datetime": (str,),
}
_api = client.ApiClient()


def check_types(posted: Any, model: str) -> None:
    """Raises ApiError 400, as strict field validation does, for unknown, mistyped and missing fields."""
    problems = list(_problems(posted, model, ""))
    if problems:
        raise bad_request(f"strict decoding error: {'; '.join(problems)}")
    try:
        _api.deserialize(SimpleNamespace(data=json.dumps(posted)), model)
    except ValueError as error:  # a required field is missing
        raise bad_request(f"{model}: {error}") from error


def _problems(value: Any, kind: str, path: str) -> Iterator[str]:
    if value is None or kind == "object":
        return
    if kind in _PLAIN:
        yield from _plain_problems(value, kind, path)
    elif match := _LIST.fullmatch(kind):
        if not isinstance(value, list):
            yield _mistyped(value, kind, path)
            return
        for index, item in enumerate(value):
            yield from _problems(item, match[1], f"{path}[{index}]")
    elif match := _MAP.fullmatch(kind):
        if not isinstance(value, dict):
            yield _mistyped(value, kind, path)
            return
        for key, item in value.items():
            yield from _problems(item, match[1], f"{path}[{key}]")
    else:
        yield from _model_problems(value, kind, path)


def _plain_problems(value: Any, kind: str, path: str) -> Iterator[str]:
    fits = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
    if not fits:
        yield _mistyped(value, kind, path)
    elif kind == "datetime":
        try:
            datetime.fromisoformat(value)
        except ValueError:
            yield f"{path}: {value!r} is not an RFC 3339 time"


def _model_problems(value: Any, kind: str, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _mistyped(value, kind, path)
        return
    model = getattr(client, kind)
    types = {model.attribute_map[name]: of for name, of in model.openapi_types.items()}
    for name, item in value.items():
        where = f"{path}.{name}".lstrip(".")
        if name not in types:
            yield f'unknown field "{where}"'
        else:
            yield from _problems(item, types[name], where)


def _mistyped(value: Any, kind: str, path: str) -> str:
    return f"json: cannot unmarshal {type(value).__name__} into field {path or 'object'} of type {kind}"


def served(found: Json) -> Json:
    """An object that the fake is to serve; raises ApiError when it breaks the schema itself."""
    check_types(found, {"Pod": "V1Pod", "Event": "CoreV1Event"}[found["kind"]])
    return found

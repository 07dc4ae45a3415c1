"""Label selectors and field selectors, as list and watch requests carry them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.kubernetes.answers import Json, bad_request

Matches = Callable[[Json], bool]
_LABEL_TERM = re.compile(
    r"(?P<absent>!)?(?P<key>[-A-Za-z0-9_./]+)(?:(?P<operator>==|=|!=)(?P<value>[-\w.]*))?"
)
_FIELD_TERM = re.compile(r"(?P<path>[A-Za-z.]+)(?P<operator>==|=|!=)(?P<value>.*)")


def label_selector(text: str) -> Matches:
    """`a=b,c!=d,e,!f`; raises ApiError 400 for any other syntax, including `in (...)`."""
    terms = [_parsed(_LABEL_TERM, term) for term in text.split(",")] if text else []

    def matches(found: Json) -> bool:
        labels = found["metadata"].get("labels") or {}
        return all(_label_matches(term, labels) for term in terms)

    return matches


def _label_matches(term: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    key, operator = term["key"], term["operator"]
    if operator is None:
        return (key in labels) != bool(term["absent"])
    return (labels.get(key) == term["value"]) != (operator == "!=")


def field_selector(text: str) -> Matches:
    """`involvedObject.name=x,type!=Normal`."""
    terms = [_parsed(_FIELD_TERM, term) for term in text.split(",")] if text else []

    def matches(found: Json) -> bool:
        return all(
            (_at(found, term["path"]) == term["value"]) != (term["operator"] == "!=") for term in terms
        )

    return matches


def _at(found: Json, path: str) -> str:
    value: Any = found
    for name in path.split("."):
        value = value.get(name, "") if isinstance(value, dict) else ""
    return str(value)


def _parsed(pattern: re.Pattern[str], term: str) -> dict[str, str]:
    match = pattern.fullmatch(term.strip())
    if match is None:
        raise bad_request(f"unable to parse requirement: {term!r}")
    return match.groupdict()

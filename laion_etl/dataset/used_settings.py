"""The settings that the units of a crawl were really made with, as their stats record them.

A run may be repeated with other settings for some of its partitions or batches, and who publishes may have
yet others. A setting with several values is shown with all of them: a list of plain values, or
`{"values": [...]}` where each is a list itself. Units that an earlier version made record none.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from laion_etl.settings.registry import setting_fields

DETAIL = "settings"  # in the details of stats
_VALUES = "values"

Used = Mapping[str, Mapping[str, list[Any]]]


def merged_used(parts: Iterable[Used]) -> dict[str, dict[str, list[Any]]]:
    """Return all values of each setting, each once, in one order however they are merged."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for part in parts:
        for group, settings in part.items():
            for name, values in settings.items():
                known = found.setdefault(group, {}).setdefault(name, {})
                known |= {json.dumps(value, sort_keys=True): value for value in values}
    return {
        group: {name: [known[text] for text in sorted(known)] for name, known in settings.items()}
        for group, settings in found.items()
    }


def used_of(details: Mapping[str, Any]) -> Used:
    """Return what the details of stats say; nothing if they are of an earlier version."""
    recorded = details.get(DETAIL, {})
    return {
        group: {name: [value] for name, value in settings.items()} for group, settings in recorded.items()
    }


def several_of(record: Mapping[str, Mapping[str, Any]]) -> Used:
    """Return the settings of which a manifest shows several values."""
    lists = {(field.group, field.name) for field in setting_fields() if isinstance(field.default, tuple)}
    found: dict[str, dict[str, list[Any]]] = {}
    for group, settings in record.items():
        for name, value in settings.items():
            if isinstance(value, dict) and _VALUES in value:
                found.setdefault(group, {})[name] = list(value[_VALUES])
            elif isinstance(value, list) and (group, name) not in lists:
                found.setdefault(group, {})[name] = value
    return found


def shown(values: list[Any]) -> Any:
    """Return the values of a setting as manifests show them."""
    if len(values) == 1:
        return values[0]
    return {_VALUES: values} if any(isinstance(value, list) for value in values) else values


def for_sentences(used: Used) -> dict[str, dict[str, Any]]:
    """Return one value for each setting, for texts that need one: false where it was not always true."""
    return {
        group: {
            name: all(values) if all(isinstance(value, bool) for value in values) else values[0]
            for name, values in settings.items()
        }
        for group, settings in used.items()
    }

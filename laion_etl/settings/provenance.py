"""The settings that a unit was made with, as its stats, manifests and reports show them."""

import json
import re
from pathlib import PurePath
from typing import Any

from laion_etl.core.hidden_secrets import hide_secrets
from laion_etl.settings.fields import Stage
from laion_etl.settings.registry import recorded, setting_fields
from laion_etl.settings.settings import Settings

_ACCESS = re.compile(r"://[^/@\s]*@")


def shown_settings(settings: Settings, *stages: Stage) -> dict[str, dict[str, Any]]:
    """Return the settings that change the output of these stages as JSON values.

    Paths are cut to file names, URLs have no credentials and no signatures.
    """
    return {
        group: {name: _without_folders(value) for name, value in values.items()}
        for group, values in recorded(settings, *stages).items()
    }


def unit_settings(settings: Settings, stage: Stage) -> dict[str, dict[str, Any]]:
    """Return all settings that change the output of a stage, for the stats of a unit that it has made."""
    found: dict[str, dict[str, Any]] = {}
    for field in setting_fields():
        if field.declaration.changes is stage and not field.secret:
            found.setdefault(field.group, {})[field.name] = _without_folders(field.value(settings))
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(found))
    return plain


def _without_folders(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_without_folders(entry) for entry in value)
    if not isinstance(value, str):
        return value
    if PurePath(value).is_absolute():
        return PurePath(value).name
    if "://" not in value:
        return value
    return hide_secrets(_ACCESS.sub("://", value))

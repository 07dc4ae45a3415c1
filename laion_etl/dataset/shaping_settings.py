"""The settings that shaped a dataset, as shown in its manifest and report.

What is published stays as it was made: a removal, a report, or the same scored shards published again show
the settings of the manifest, whatever those of today are.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from laion_etl.core.errors import SettingsError
from laion_etl.dataset.coverage import Coverage
from laion_etl.settings import Settings, Stage, recorded
from laion_etl.settings.registry import setting_fields

Record = Mapping[str, Mapping[str, Any]]

_STAGES = tuple(stage for stage in Stage if stage is not Stage.INDEX)  # the index is not published
_BEFORE_PUBLISH = tuple(stage for stage in _STAGES if stage is not Stage.PUBLISH)
_ACCESS = re.compile(r"://[^/@\s]*@")


def shaping_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the settings that shaped the data as plain JSON values; paths are cut to file names."""
    return {
        group: {name: _without_folders(value) for name, value in values.items()}
        for group, values in recorded(settings, *_STAGES).items()
    }


def applied_settings(settings: Settings, scored: Coverage) -> dict[str, dict[str, Any]]:
    """Return the settings that shaped a crawl; its thresholds are those that scoring applied.

    They differ from the settings where a model has thresholds of its own, and are a list where they changed
    from batch to batch.
    """
    found = shaping_settings(settings)
    applied = {"threshold_en": scored.thresholds_en, "threshold_other": scored.thresholds_other}
    for name, values in applied.items():
        if values:
            found["clip"][name] = values[0] if len(values) == 1 else list(values)
    return found


def as_published(settings: Settings, record: Record) -> Settings:
    """Return the settings with all that a manifest records, except the dataset's name.

    The contact of today stays, if there is one.
    """
    restored = _restored(settings, record, _STAGES)
    contact = settings.publish.contact or restored.publish.contact
    return replace(restored, publish=replace(restored.publish, name=settings.publish.name, contact=contact))


def as_scored(settings: Settings, record: Record) -> Settings:
    """Return the settings with what a manifest records of the stages before publish."""
    return _restored(settings, record, _BEFORE_PUBLISH)


def _restored(settings: Settings, record: Record, stages: tuple[Stage, ...]) -> Settings:
    """Return the settings with recorded ones; a setting that the record does not know keeps its value."""
    found: dict[str, dict[str, Any]] = {}
    for field in setting_fields():
        group = record.get(field.group, {})
        if field.declaration.changes not in stages or field.secret:
            continue
        if field.name in group:
            value = _tuples(group[field.name])
            if not isinstance(value, tuple) or isinstance(field.default, tuple):
                found.setdefault(field.group, {})[field.name] = value
        elif group and field.declaration.unnamed_default:
            found.setdefault(field.group, {})[field.name] = field.default
    try:
        groups = {name: replace(getattr(settings, name), **values) for name, values in found.items()}
    except SettingsError as error:
        raise SettingsError(
            f"cannot use the settings in the manifest: {error}; publish the crawl again first"
        ) from error
    return replace(settings, **groups)


def _tuples(value: Any) -> Any:
    """Return a value of JSON as settings have it."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _without_folders(value: Any) -> Any:
    """Return a value as the manifest shows it: paths as file names, URLs without credentials."""
    if isinstance(value, tuple):
        return tuple(_without_folders(entry) for entry in value)
    if not isinstance(value, str):
        return value
    return PurePath(value).name if PurePath(value).is_absolute() else _ACCESS.sub("://", value)

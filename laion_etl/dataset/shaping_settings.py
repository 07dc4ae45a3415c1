"""The settings that shaped a dataset, as shown in its manifest and report.

What is published stays as it was made: a removal, a report, or the same scored shards published again show
the settings of the manifest, whatever those of today are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from laion_etl.core.errors import SettingsError
from laion_etl.dataset.coverage import Coverage
from laion_etl.dataset.used_settings import Used, for_sentences, shown
from laion_etl.settings import Settings, Stage
from laion_etl.settings.provenance import shown_settings
from laion_etl.settings.registry import setting_fields

Record = Mapping[str, Mapping[str, Any]]

_STAGES = tuple(stage for stage in Stage if stage is not Stage.INDEX)  # the index is not published
_BEFORE_PUBLISH = tuple(stage for stage in _STAGES if stage is not Stage.PUBLISH)


def shaping_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the settings that shaped the data as plain JSON values; paths are cut to file names."""
    return shown_settings(settings, *_STAGES)


def applied_settings(settings: Settings, scored: Coverage, used: Used) -> dict[str, dict[str, Any]]:
    """Return the settings that shaped a crawl; those of the stages are those that its units were made with.

    Its thresholds are those that scoring applied. They differ from the settings where a model has thresholds
    of its own. A setting that has changed from unit to unit has a list of values.
    """
    found = shaping_settings(settings)
    for group, known in used.items():
        for name, values in known.items():
            found.setdefault(group, {})[name] = shown(values)
    for field in setting_fields():  # some are only named where they differ from the default
        named = found.get(field.group, {})
        if field.declaration.unnamed_default and _tuples(named.get(field.name)) == field.default:
            del named[field.name]
    applied = {"threshold_en": scored.thresholds_en, "threshold_other": scored.thresholds_other}
    for name, thresholds in applied.items():
        if thresholds:
            found["clip"][name] = shown(list(thresholds))
    return found


def as_made(settings: Settings, used: Used) -> Settings:
    """Return the settings with those that the units of a crawl were made with."""
    record, made = shaping_settings(settings), for_sentences(used)
    whole = {group: {**record.get(group, {}), **made.get(group, {})} for group in {**record, **made}}
    return _restored(settings, whole, _BEFORE_PUBLISH)


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
            if isinstance(value, dict):  # several lists
                continue
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

"""The settings that shaped a dataset, as shown in its manifest and report."""

import re
from pathlib import PurePath
from typing import Any

from laion_etl.settings import Settings, Stage, recorded

_STAGES = tuple(stage for stage in Stage if stage is not Stage.INDEX)  # the index is not published
_ACCESS = re.compile(r"://[^/@\s]*@")


def shaping_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the settings that shaped the data as plain JSON values; paths are cut to file names."""
    return {
        group: {name: _without_folders(value) for name, value in values.items()}
        for group, values in recorded(settings, *_STAGES).items()
    }


def _without_folders(value: Any) -> Any:
    """Return a value as the manifest shows it: paths as file names, URLs without credentials."""
    if isinstance(value, tuple):
        return tuple(_without_folders(entry) for entry in value)
    if not isinstance(value, str):
        return value
    return PurePath(value).name if PurePath(value).is_absolute() else _ACCESS.sub("://", value)

"""The settings that shaped a dataset, as its manifest and report show them."""

import re
from pathlib import PurePath
from typing import Any

from laion_etl.settings import Settings, Stage, recorded

_STAGES = tuple(stage for stage in Stage if stage is not Stage.INDEX)  # those whose work is published
_ACCESS = re.compile(r"://[^/@\s]*@")


def shaping_settings(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings that shaped the data, as plain JSON values; paths are cut to file names."""
    return {
        group: {name: _without_folders(value) for name, value in values.items()}
        for group, values in recorded(settings, *_STAGES).items()
    }


def _without_folders(value: Any) -> Any:
    """What the manifest says of a value: of a path the file's name, of a URL nothing before its host."""
    if isinstance(value, tuple):
        return tuple(_without_folders(entry) for entry in value)
    if not isinstance(value, str):
        return value
    return PurePath(value).name if PurePath(value).is_absolute() else _ACCESS.sub("://", value)

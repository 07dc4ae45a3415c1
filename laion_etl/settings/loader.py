"""Settings from the environment and the TOML file."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from laion_etl.errors import SettingsError
from laion_etl.settings.fields import PREFIX, Entries
from laion_etl.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class SettingField:
    """One setting as the documentation shows it."""

    group: str
    name: str
    variable: str
    type: type
    default: Any
    doc: str
    secret: bool


@cache
def setting_fields() -> tuple[SettingField, ...]:
    """All settings in the order of their groups."""
    return tuple(
        SettingField(
            group,
            field.name,
            _variable(group, field.name),
            types[field.name],
            field.default,
            field.metadata["doc"],
            field.metadata.get("secret", False),
        )
        for group, made in _groups().items()
        for types in [get_type_hints(made)]
        for field in fields(made)
    )


@cache
def _groups() -> dict[str, Any]:
    """The class of every group."""
    types = get_type_hints(Settings)
    return {group.name: types[group.name] for group in fields(Settings)}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment and the TOML file; raises SettingsError naming the bad entry."""
    environ = os.environ if environ is None else environ
    known = {field.variable: field for field in setting_fields()}
    values = _from_file(environ, known) | _from_environment(environ, known)
    groups: dict[str, dict[str, Any]] = {}
    for variable, value in values.items():
        field = known[variable]
        groups.setdefault(field.group, {})[field.name] = _coerce(field, value)
    parse = groups.setdefault("parse", {})
    groups["parse"] = _preset(parse.get("preset", "default")) | parse
    return Settings(**{name: made(**groups.get(name, {})) for name, made in _groups().items()})


# The original's rules: what it kept is kept. What is out for safety (private hosts, blocklists) stays out.
_PARSE_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "laion5b": {
        "refuse_trackers": False,
        "refuse_placeholder_words": False,
        "refuse_placeholder_file_names": False,
        "refuse_placeholder_hashes": False,
        "refuse_placeholder_dates": False,
        "max_text_repeats": 0,
    },
}


def _preset(name: str) -> dict[str, Any]:
    """What a preset of the parse group sets; anything set beside it wins."""
    if name not in _PARSE_PRESETS:
        raise SettingsError(f"{PREFIX}PARSE_PRESET={name!r} is none of {', '.join(_PARSE_PRESETS)}")
    return _PARSE_PRESETS[name]


def _variable(group: str, name: str) -> str:
    return f"{PREFIX}{name}".upper() if group == "core" else f"{PREFIX}{group}_{name}".upper()


def _from_environment(environ: Mapping[str, str], known: Mapping[str, SettingField]) -> dict[str, Any]:
    found = {k: v for k, v in environ.items() if k.startswith(PREFIX) and k != f"{PREFIX}CONFIG"}
    for variable in found:
        if variable not in known:
            raise SettingsError(f"{variable} is no setting{_suggestion(variable, known)}")
    return found


def _from_file(environ: Mapping[str, str], known: Mapping[str, SettingField]) -> dict[str, Any]:
    named = environ.get(f"{PREFIX}CONFIG")
    path = Path(named or "laion_etl.toml")
    if not path.is_file():
        if named:
            raise SettingsError(f"{PREFIX}CONFIG names {named}, which does not exist")
        return {}
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    values = {}
    for key, value in document.items():
        entries = value.items() if isinstance(value, dict) else [(None, value)]
        for name, entry in entries:
            variable = _variable(key, name) if name is not None else _variable("core", key)
            if variable not in known:
                place = f"[{key}] {name}" if name is not None else key
                raise SettingsError(f"{path}: {place} is no setting{_suggestion(variable, known)}")
            values[variable] = entry
    return values


def _suggestion(variable: str, known: Mapping[str, SettingField]) -> str:
    close = difflib.get_close_matches(variable, known, n=1)
    return f"; did you mean {close[0]}?" if close else "; see docs/configuration.md"


def _coerce(field: SettingField, value: Any) -> Any:
    kind: Any = field.type
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
        if kind in (int, float):
            return kind(str(value))
        if kind is str:
            return str(value)
        if kind == Entries:
            return _entries(value)
        item = kind.__args__[0]
        parts = value if isinstance(value, list) else [p for p in str(value).split(",") if p.strip()]
        return tuple(item(str(part).strip()) for part in parts)
    except (ValueError, KeyError) as error:
        expected = "table of texts" if kind == Entries else getattr(kind, "__name__", str(kind))
        raise SettingsError(f"{field.variable}={value!r} is not a valid {expected}") from error


def _entries(value: Any) -> Entries:
    """A table of the TOML file, or the same as text."""
    table = value if isinstance(value, dict) else tomllib.loads(str(value))
    if not all(isinstance(entry, str) for entry in table.values()):
        raise ValueError("every entry has to be a text")
    return tuple(table.items())


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

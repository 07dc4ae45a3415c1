"""Loads settings from the environment and the TOML file."""

import difflib
import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laion_etl.core.errors import SettingsError
from laion_etl.settings.fields import PREFIX, Entries, refusal, variable_of
from laion_etl.settings.parse import PRESETS
from laion_etl.settings.registry import SettingField, group_classes, setting_fields
from laion_etl.settings.settings import Settings

_log = logging.getLogger(__name__)
_PROGRAM = variable_of("airflow", "venv")
_CONFIG = f"{PREFIX}CONFIG"
_ROOT = 0
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_EXPECTED: dict[Any, str] = {
    bool: "it is neither true nor false; use true or false",
    int: "it is not a whole number; write digits only",
    float: "it is not a number; write one like 0.5",
    Entries: 'it is not a table of strings; write TOML like name = "text"',
}


class _EntryError(Exception):
    """An entry of a list in the file that the environment, by which pods get settings, cannot represent."""


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Loads settings from the environment and the TOML file, and checks all of them.

    Args:
        environ: Variables; without them those of this process.

    Raises:
        SettingsError: A setting is unknown or has a wrong value. It says which, and what to do.
    """
    environ = os.environ if environ is None else environ
    known = {field.variable: field for field in setting_fields()}
    values = _from_file(environ, known) | _from_environment(environ, known)
    groups: dict[str, dict[str, Any]] = {}
    for variable, value in values.items():
        field = known[variable]
        groups.setdefault(field.group, {})[field.name] = _parsed(field, value)
    parse = groups.setdefault("parse", {})
    groups["parse"] = PRESETS.get(parse.get("preset", "default"), {}) | parse
    made: dict[str, Any] = {name: of(**groups.get(name, {})) for name, of in group_classes().items()}
    return Settings(**made)


def _from_environment(environ: Mapping[str, str], known: Mapping[str, SettingField]) -> dict[str, Any]:
    found = {k: v for k, v in environ.items() if k.startswith(PREFIX) and k != _CONFIG}
    return _by_current_name({variable: (variable, value) for variable, value in found.items()}, known)


def _from_file(environ: Mapping[str, str], known: Mapping[str, SettingField]) -> dict[str, Any]:
    named = environ.get(_CONFIG)
    path = Path(named or "laion_etl.toml")
    if not path.is_file():
        if named:
            raise SettingsError(f"cannot use {_CONFIG}={named}: there is no such file; name one or unset it")
        return {}
    try:
        with path.open("rb") as file:
            if not named:
                _refuse_of_others(path, os.fstat(file.fileno()).st_uid)
            document = tomllib.loads(file.read().decode())
        str(document)  # a whole number may be too long to be shown
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"cannot read {path}: {error}; correct it, it must be valid TOML") from error
    found = {}
    for key, value in document.items():
        if isinstance(value, dict):
            for name, entry in value.items():
                found[variable_of(key, name)] = (f"[{key}] {name} in {path}", entry)
        else:
            found[variable_of("core", key)] = (f"{key} in {path}", value)
    values = _by_current_name(found, known)
    if not named:
        _refuse_code(path, values, known)
    return values


def _refuse_of_others(path: Path, owner: int) -> None:
    """Raises SettingsError for another user's file that only lies in the current folder, such as /tmp.

    It would decide to which servers a command connects, where it writes, and whom it notifies.
    """
    if owner not in (os.geteuid(), _ROOT):
        raise SettingsError(
            f"cannot use {path}: it is read only because it is in the current folder, and another user owns "
            f"it; set {_CONFIG}={path} if you trust what it says, or run the command in another folder"
        )


def _refuse_code(path: Path, values: Mapping[str, Any], known: Mapping[str, SettingField]) -> None:
    """Raises SettingsError if a file that only lies in the current folder names code to import or to run.

    Anyone who can write there, or an archive unpacked there, would decide what a command runs.
    """
    from laion_etl.core.import_factory import is_factory

    for variable, value in values.items():
        entries = value if isinstance(value, list) else str(value).split(",")
        of_program = [value] if variable == _PROGRAM and value else []
        may_name_code = known[variable].declaration.or_factory
        code = of_program or [one for one in map(str, entries) if may_name_code and is_factory(one.strip())]
        if code:
            raise SettingsError(
                f"cannot use {variable}={code[0]!r} of {path}: a file that is read only because it is in the "
                f"current folder cannot name code; set {_CONFIG}={path} if it is yours"
            )


def _by_current_name(
    found: Mapping[str, tuple[str, Any]], known: Mapping[str, SettingField]
) -> dict[str, Any]:
    """Returns values by variable; `found` also has the place of each. Current names win over former ones."""
    former = {field.declaration.former: name for name, field in known.items() if field.declaration.former}
    values = {}
    for variable, (place, value) in found.items():
        if variable in known:
            values[variable] = value
        elif variable in former:
            current = former[variable]
            _log.warning("%s is now called %s; the next version takes only that name", place, current)
            values.setdefault(current, found[current][1] if current in found else value)
        else:
            raise SettingsError(
                f"cannot use {place}: there is no such setting; {_suggestion(variable, known)}"
            )
    return values


def _suggestion(variable: str, known: Mapping[str, SettingField]) -> str:
    close = difflib.get_close_matches(variable, known, n=1)
    return f"did you mean {close[0]}?" if close else "see docs/configuration.md"


def _parsed(field: SettingField, value: Any) -> Any:
    """Converts a value of the environment or the file to the setting's type."""
    kind: Any = field.type
    of_entries = None if kind == Entries else next(iter(getattr(kind, "__args__", ())), None)
    try:
        if kind == Entries:
            return _entries(value)
        if of_entries is None:
            return _one(kind, value)
        return tuple(_one(of_entries, part) for part in _parts(value, secret=field.secret))
    except _EntryError as error:
        raise refusal(field.variable, value, field.declaration, str(error)) from error
    except (ValueError, KeyError, RecursionError) as error:
        raise refusal(field.variable, value, field.declaration, _EXPECTED[of_entries or kind]) from error


def _one(kind: Any, value: Any) -> Any:
    if kind is bool:
        return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
    return kind(str(value))


def _parts(value: Any, *, secret: bool) -> list[Any]:
    """Returns the entries of a list: from the file, or comma separated from the environment.

    An entry of a `secret` list is not shown in errors.
    """
    if isinstance(value, list):
        parts = [part.strip() if isinstance(part, str) else part for part in value]
        if "" in parts:
            raise _EntryError("an entry is empty; leave it out")
        if with_comma := [part for part in parts if "," in str(part)]:
            shown = "an entry" if secret else repr(with_comma[0])
            raise _EntryError(f"the comma in {shown} separates entries; use a name without one")
        return parts
    return [part.strip() for part in str(value).split(",") if part.strip()]


def _entries(value: Any) -> Entries:
    """Returns the entries of a table: from the TOML file, or TOML text from the environment."""
    table = value if isinstance(value, dict) else tomllib.loads(str(value))
    if not all(isinstance(entry, str) for entry in table.values()):
        raise ValueError("cannot use a table of other values: every entry must be a string")
    return tuple(table.items())

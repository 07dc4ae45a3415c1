"""The list of all settings, and the records derived from their declarations."""

import json
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from laion_etl.settings.fields import Declaration, Entries, Group, Stage, declarations, variable_of
from laion_etl.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class SettingField:
    """One setting: its group, name, type, default and declaration."""

    group: str
    name: str
    type: type
    default: Any
    declaration: Declaration

    @property
    def variable(self) -> str:
        return variable_of(self.group, self.name)

    @property
    def doc(self) -> str:
        return self.declaration.doc

    @property
    def secret(self) -> bool:
        return self.declaration.secret

    def value(self, settings: Settings) -> Any:
        """Returns its value in settings."""
        return getattr(getattr(settings, self.group), self.name)

    def is_named(self, value: Any) -> bool:
        """Whether a value belongs in fingerprints and records."""
        return not self.declaration.unnamed_default or bool(value != self.default)

    def text(self, value: Any) -> str:
        """Returns a value in the form of the environment variable; `load_settings` reads it back."""
        if self.type == Entries:
            return "\n".join(f"{_toml(name)} = {_toml(entry)}" for name, entry in value)
        if isinstance(value, bool):
            return str(value).lower()
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@cache
def setting_fields() -> tuple[SettingField, ...]:
    """Returns all settings in the order of their groups."""
    found = []
    for group, made in group_classes().items():
        types, declared = get_type_hints(made), declarations(made)
        defaults = made()
        for name, declaration in declared.items():
            found.append(SettingField(group, name, types[name], getattr(defaults, name), declaration))
    return tuple(found)


@cache
def group_classes() -> dict[str, type[Group]]:
    """Returns the class of each group."""
    types = get_type_hints(Settings)
    return {group.name: types[group.name] for group in fields(Settings)}


def shaping(settings: Settings | Group, stage: Stage) -> dict[str, dict[str, Any]]:
    """Returns the settings that change a stage's output, by group and name: part of its fingerprint.

    Names of files whose content counts are left out: the stage adds the content itself.
    """
    found: dict[str, dict[str, Any]] = {}
    for field in setting_fields():
        group = getattr(settings, field.group) if isinstance(settings, Settings) else settings
        changes = field.declaration.changes is stage and not field.declaration.by_content
        if changes and field.group == group.GROUP:
            value = getattr(group, field.name)
            if field.is_named(value):
                found.setdefault(field.group, {})[field.name] = value
    return found


def as_environment(settings: Settings) -> dict[str, str]:
    """Returns all settings as environment variables, for another process that needs the same."""
    return {field.variable: field.text(field.value(settings)) for field in setting_fields()}


def recorded(settings: Settings, *stages: Stage) -> dict[str, dict[str, Any]]:
    """Returns all settings that change the output of these stages, for a readable record; never a secret."""
    found: dict[str, dict[str, Any]] = {}
    for field in setting_fields():
        if field.declaration.changes in stages and not field.secret:
            value = field.value(settings)
            if field.is_named(value):
                found.setdefault(field.group, {})[field.name] = value
    return found


def _toml(text: str) -> str:
    """Returns a basic TOML string, which differs from JSON's in one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

"""Declares settings: each once, as a field of its group's dataclass.

The declaration has everything about the setting: its meaning, unit, choices, range, whether it is secret and
which stage's output it changes. Validation, docs/configuration.md, the fingerprints of the stages and the
`settings` of manifest.json are derived from it, so that they cannot drift apart.

Hand-written rather than pydantic-settings: importing that takes 0.23 s of CPU, importing this package 0.05 s,
and each `laion-etl --help`, each stage process and each parsing of the DAGs pays for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar

from laion_etl.core.errors import SettingsError

PREFIX = "LAION_ETL_"

Entries = tuple[tuple[str, str], ...]  # a TOML table of strings
Check = Callable[[Any], str]  # '' for a valid value, else what is wrong with it and what to do


class Stage(StrEnum):
    """The stage whose output a setting changes."""

    CRAWL = "crawl"  # which WAT files are read; their list is part of the fingerprints of parse
    PARSE = "parse"
    LOAD = "load"
    PLAN = "plan"
    DOWNLOAD = "download"
    SCORE = "score"
    PUBLISH = "publish"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Declaration:
    """All facts about a setting.

    `changes`: the stage whose output it changes, or None. `by_content`: the value names files whose content
    changes the output; the content is part of the fingerprint, the names are not. `unnamed_default`: the
    default changes nothing and is left out of fingerprints and records, which stay as they were before the
    setting existed. Choices and range apply to each entry of a list. `check` takes the whole value.
    """

    doc: str
    changes: Stage | None
    unit: str = ""
    choices: tuple[str, ...] = ()
    or_factory: bool = False  # module:factory is a choice too, or an entry: it names code
    minimum: float | None = None
    maximum: float | None = None
    check: Check | None = None
    secret: bool = False
    by_content: bool = False
    unnamed_default: bool = False
    former: str = ""  # its variable in the previous version, still accepted

    @property
    def range(self) -> str:
        """The range in words: `0 to 1`, `at least 1`; '' for no limits."""
        low, high = (None if end is None else f"{end:,}" for end in (self.minimum, self.maximum))
        if low and high:
            return f"{low} to {high}"
        return f"at least {low}" if low else f"at most {high}" if high else ""

    def problem(self, value: Any) -> str:
        """Returns what is wrong with a value and what to do; '' for a valid one."""
        for entry in value if isinstance(value, tuple) and (self.choices or self.range) else (value,):
            if problem := self._problem_of(entry):
                return problem
        return self.check(value) if self.check else ""

    def _problem_of(self, entry: Any) -> str:
        if isinstance(entry, float) and not math.isfinite(entry):
            return f"{entry} is not a finite number; use {self.range or 'a number'}"
        if self.choices and entry not in self.choices:
            return self._not_a_choice(entry)
        if self.minimum is not None and entry < self.minimum:
            return f"{entry:,} is too small; use {self.range}"
        if self.maximum is not None and entry > self.maximum:
            return f"{entry:,} is too large; use {self.range}"
        return ""

    def _not_a_choice(self, entry: str) -> str:
        from laion_etl.core.import_factory import is_factory

        if self.or_factory and is_factory(entry):
            return ""
        known = [choice or "nothing" for choice in self.choices]
        return f"{entry!r} is not a choice; use {', '.join(known)}{' or module:factory' * self.or_factory}"


def setting(default: Any, doc: str, *, changes: Stage | None, **declared: Any) -> Any:
    """Returns a field of a group with its default and declaration (see `Declaration`)."""
    return field(default=default, metadata={"declaration": Declaration(doc, changes, **declared)})


class Group:
    """Base of the dataclasses of settings. Raises SettingsError for invalid values."""

    __slots__ = ()
    GROUP: ClassVar[str]
    ASCENDING: ClassVar[
        tuple[tuple[str, str], ...]
    ] = ()  # pairs of settings: the first is at most the second

    def __post_init__(self) -> None:
        for name, declaration in declarations(type(self)).items():
            value = getattr(self, name)
            if problem := declaration.problem(value):
                raise refusal(variable_of(self.GROUP, name), value, declaration, problem)
        for low, high in self.ASCENDING:
            if getattr(self, low) > (limit := getattr(self, high)):
                above = f"it is above {variable_of(self.GROUP, high)}={limit:,}; change one of them"
                declaration = declarations(type(self))[low]
                raise refusal(variable_of(self.GROUP, low), getattr(self, low), declaration, above)


def declarations(group: type[Group]) -> dict[str, Declaration]:
    """Returns the settings of a group by name. Raises TypeError for a field without a declaration."""
    found = {one.name: one.metadata.get("declaration") for one in fields(group)}  # type: ignore[arg-type]
    if missing := [name for name, declaration in found.items() if declaration is None]:
        raise TypeError(
            f"cannot use {group.__name__}.{missing[0]}: it is not declared; declare it by setting()"
        )
    return {name: declaration for name, declaration in found.items() if declaration}


def variable_of(group: str, name: str) -> str:
    """Returns the environment variable of a setting."""
    return f"{PREFIX}{name}".upper() if group == "core" else f"{PREFIX}{group}_{name}".upper()


def refusal(variable: str, value: Any, declaration: Declaration, problem: str) -> SettingsError:
    """Returns the error for an invalid value; the value of a secret is not shown."""
    shown = "***" if declaration.secret else _shown(value)
    return SettingsError(f"cannot use {variable}={shown}: {problem}")


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return text if text.isprintable() and " " not in text else repr(text)

"""Loads extensions that are named in settings as `module:factory`."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from laion_etl.core.errors import SettingsError

Made = TypeVar("Made")
SettingsT = TypeVar("SettingsT")

_FACTORY = re.compile(r"[^\W\d]\w*(\.\w+)*:[^\W\d]\w*\Z")


def is_factory(name: str) -> bool:
    """Whether a setting's value has the form `module:factory`."""
    return bool(_FACTORY.match(name))


def load_factory(name: str, variable: str, choices: str) -> Callable[..., Any]:
    """Returns the function called `name`. Raises SettingsError, which names the setting, if there is none."""
    setting = f"cannot use {variable}={name!r}"
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise SettingsError(f"{setting}: not a known choice; use {choices} or module:factory")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f"{setting}: {module_name} cannot be imported ({error}); check its name and PYTHONPATH"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise SettingsError(f"{setting}: {module_name} has no function {attribute}; check its name")
    made: Callable[..., Any] = factory
    return made


def load_choice(
    name: str,
    variable: str,
    shipped: Mapping[str, Callable[[SettingsT], Made]],
    settings: SettingsT,
    signature: str,
    protocol: str,
) -> Made:
    """What a setting names, made from the settings: a shipped choice, or what `module:factory` returns.

    `signature`: the method that it must have, such as `detect(texts)`. `protocol`: what it is, with the page
    that describes it. Raises SettingsError for anything else.
    """
    factory = shipped.get(name) or load_factory(name, variable, ", ".join(shipped))
    made = factory(settings)
    if not callable(getattr(made, signature.partition("(")[0], None)):
        raise SettingsError(
            f"cannot use {variable}={name!r}: the factory returned an object without the method {signature}; "
            f"return a {protocol}"
        )
    return made


def load_callables(
    names: Sequence[str], settings: object, variable: str, protocol: str
) -> tuple[Callable[..., Any], ...]:
    """What the factories of a setting return when they are called with settings: objects that can be called.

    Raises SettingsError for one that cannot be loaded or called.
    """
    loaded = []
    for name in names:
        made = load_factory(name, variable, f"a {protocol}")(settings)
        if not callable(made):
            raise SettingsError(
                f"cannot use {variable}={name!r}: the factory returned an object that cannot be called; "
                f"return a {protocol} (docs/library.md)"
            )
        loaded.append(made)
    return tuple(loaded)

"""Registered domains by the public suffix list."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_RULE = re.compile(r"^[.*!]*\w\S*", re.MULTILINE)  # all else in the list is comments and empty lines
_PRIVATE_PART = "// ===BEGIN PRIVATE DOMAINS==="


@cache
def public_suffixes() -> tuple[frozenset[str], frozenset[str]]:
    """Returns the rules of the public suffix list that ships with tldextract (nothing is fetched), and all
    names that some longer rule ends with."""
    rules = frozenset(_RULE.findall(_list().partition(_PRIVATE_PART)[0]))
    longer = {
        rule.lstrip("!").split(".", first)[first] for rule in rules for first in range(1, rule.count(".") + 1)
    }
    return rules, frozenset(longer)


def _list() -> str:
    """Reads the list without importing tldextract: with requests, which fetches newer ones, and a tree of all
    rules that is 0.1 CPU s for every process."""
    package = find_spec("tldextract")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("cannot find the public suffix list: tldextract is missing; install it")
    return Path(package.submodule_search_locations[0], ".tld_set_snapshot").read_text(encoding="utf-8")


def registered_domain(host: str) -> str:
    """Returns `example.co.uk` for `img.example.co.uk`; the host itself if it has none (addresses, suffixes).

    The algorithm of publicsuffix.org: the longest rule wins, `*` stands for a label, `!` marks exceptions
    from it; a name whose last label is in no rule has no registered domain.
    """
    labels = host.split(".")
    suffix = _suffix_start(labels)
    return ".".join(labels[suffix - 1 :]) if suffix else host


def is_public_suffix(host: str) -> bool:
    """Whether anyone may have domains below a host: `com`, `co.uk`, and every name of one label."""
    return _suffix_start(host.split(".")) == 0 or not (set(host) & set(".:"))


def _suffix_start(labels: Sequence[str]) -> int | None:
    """Returns the label with which the public suffix of a host begins; None if no rule is for it."""
    rules, longer = public_suffixes()
    suffix = None
    name, starred = "", False
    for first in range(len(labels) - 1, -1, -1):
        name = f"{labels[first]}.{name}" if name else labels[first]
        if f"!{name}" in rules:
            suffix = first + 1
        elif starred or name in rules:
            suffix = first
        if name not in longer:
            break
        starred = f"*.{name}" in rules
    return suffix

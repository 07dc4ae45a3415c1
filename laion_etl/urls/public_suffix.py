"""Registered domains by the public suffix list.

The list is the one that ships with tldextract, which is not imported: that would bring an HTTP client, 6 MB
of memory in each process that parses.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import ada_url

from laion_etl.core.errors import InternalError

_PRIVATE_PART = "// ===BEGIN PRIVATE DOMAINS==="  # domains of companies below which others have names


@cache
def public_suffixes() -> tuple[frozenset[str], frozenset[str]]:
    """Returns the rules of the public suffix list, and all names that some longer rule ends with.

    Rules with letters beyond ASCII are there as hosts are written, too (`xn--p1ai`).
    """
    rules = _rules(_list().partition(_PRIVATE_PART)[0])
    longer = {
        rule.lstrip("!").split(".", first)[first] for rule in rules for first in range(1, rule.count(".") + 1)
    }
    return rules, frozenset(longer)


def _rules(part: str) -> frozenset[str]:
    lines = map(str.strip, part.splitlines())
    written = [line.split()[0] for line in lines if line and not line.startswith("//")]
    return frozenset(form for rule in written for form in (rule, _as_in_hosts(rule)))


def _list() -> str:
    package = find_spec("tldextract")
    folders = (package and package.submodule_search_locations) or ["."]
    try:
        return Path(folders[0], ".tld_set_snapshot").read_text(encoding="utf-8")
    except OSError as error:
        raise InternalError(
            f"cannot read the public suffix list of tldextract: {error.strerror}; install the version of "
            "requirements.txt"
        ) from error


def _as_in_hosts(rule: str) -> str:
    """Returns a rule with its letters as the URL standard writes a host."""
    if rule.isascii():
        return rule
    name = rule.lstrip("!*.")
    return rule.removesuffix(name) + ada_url.URL(f"http://{name}/").hostname


def registered_domain(host: str) -> str:
    """Returns `example.co.uk` for `img.example.co.uk`; the host itself if it has none (addresses, suffixes).

    The algorithm of publicsuffix.org: the longest rule wins, `*` stands for a label, `!` marks exceptions
    from it; a name whose last label is in no rule has no registered domain.
    """
    labels = host.split(".")
    suffix = _suffix_start(labels)
    return ".".join(labels[suffix - 1 :]) if suffix else host


def is_public_suffix(host: str) -> bool:
    """Whether others may have names below a host: `com`, `co.uk`, `github.io`, every name of one label.

    Also a name all of whose names are suffixes, as those of `kawasaki.jp` are.
    """
    rules, _ = public_suffixes()
    listed = _suffix_start(host.split(".")) == 0 or f"*.{host}" in rules
    return listed or _is_private_suffix(host) or not (set(host) & set(".:"))


def _is_private_suffix(host: str) -> bool:
    """Whether a company gives names below a host to others: `github.io`, `blogspot.com`."""
    rules = _private_suffixes()
    parent = host.partition(".")[2]
    if f"!{host}" in rules:
        return False
    return host in rules or f"*.{host}" in rules or f"*.{parent}" in rules


@cache
def _private_suffixes() -> frozenset[str]:
    return _rules(_list().partition(_PRIVATE_PART)[2])


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

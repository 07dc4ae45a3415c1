"""Checks of settings' values, beyond choices and ranges.

Each check returns '' for a valid value, else what is wrong with it and what to do.
"""

import re
from collections import Counter
from collections.abc import Callable

from laion_etl.settings.fields import Check, Entries

STAGES = (
    *("crawls", "discover", "estimate", "parse", "load", "plan", "download", "score", "publish"),
    "index",  # in DAGs of your own (docs/how-to/own-dags.md)
)
_CONNINFO = re.compile(r"\s*[a-z_]+\s*=\s*\S")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_HIGHEST_PORT = 65_535


def pattern(expression: str, example: str) -> Check:
    """Requires the whole value to match an expression."""
    compiled = re.compile(expression, re.ASCII)
    return lambda value: "" if compiled.fullmatch(value) else f"{value!r} has the wrong form; write {example}"


def each(check: Check) -> Check:
    """Requires every entry of a list to pass a check."""
    return lambda entries: next((problem for entry in entries if (problem := check(entry))), "")


def optional(check: Check) -> Check:
    """Allows an empty value; others must pass a check."""
    return lambda value: check(value) if value else ""


def not_empty(value: object) -> str:
    """Requires a value."""
    return "" if value else "it is empty; set at least one value, or unset it for the default"


def rgb(value: tuple[float, ...]) -> str:
    """One number for each of red, green and blue, or none."""
    return "" if len(value) in (0, 3) else "it needs a number for each of red, green and blue"


def factory(value: str) -> str:
    """`module:factory`."""
    from laion_etl.core.import_factory import is_factory

    return "" if is_factory(value) else f"{value!r} is not module:factory; write it like my_package.part:make"


def place(*schemes: str) -> Check:
    """Requires a path, or a URL with one of these schemes."""

    def check(value: str) -> str:
        scheme, found, rest = value.partition("://")
        if not found or (scheme.lower() in schemes and rest):
            return ""
        known = ", ".join(f"{name}://..." for name in schemes)
        return f"{scheme}:// cannot be used here; write a path or {known}"

    return check


def url(*schemes: str) -> Check:
    """Requires a URL with one of these schemes."""

    def check(value: str) -> str:
        scheme, _, rest = value.partition("://")
        known = " or ".join(f"{name}://..." for name in schemes)
        return "" if scheme.lower() in schemes and rest else f"it is not a URL of this kind; write {known}"

    return check


def postgres_url(value: str) -> str:
    """Requires a postgresql:// URL, or libpq's `host=... dbname=...`, the form of an Airflow connection."""
    if _CONNINFO.match(value):
        return ""
    return url("postgresql", "postgres")(value)


def host_and_port(value: str) -> str:
    """Requires `host:port`; an IPv6 address in brackets."""
    host, _, port = value.rpartition(":")
    if host and _is_port(port):
        return ""
    return f"{value!r} is not host:port; write it like localhost:8125"


def mail_server(value: str) -> str:
    """Requires `host` or `host:port`."""
    return "" if value and ":" not in value else host_and_port(value)


def network(value: str) -> str:
    """Requires a network in CIDR notation."""
    from ipaddress import ip_network

    try:
        ip_network(value)
    except ValueError as error:
        return f"{error}; write a network like 127.0.0.0/8"
    return ""


def nameserver(value: str) -> str:
    """Requires an address, with or without a port, or `system`."""
    from ipaddress import ip_address

    if value == "system":
        return ""
    address, _, port = value.rpartition(":")
    for literal in (value, address if _is_port(port) else ""):
        try:
            ip_address(literal.removeprefix("[").removesuffix("]"))
        except ValueError:
            continue
        return ""
    return f"{value!r} is not address, address:port or system; write it like 127.0.0.1:53"


def override(value: str) -> str:
    """Requires `host-pattern=address:port`."""
    pattern_, _, endpoint = value.partition("=")
    if pattern_ and not host_and_port(endpoint):
        return ""
    return f"{value!r} is not host-pattern=address:port; write it like *.example=127.0.0.1:8080"


def by_stage(value_form: str, example: str, *, others: bool) -> Callable[[tuple[str, ...]], str]:
    """Requires entries `stage=value`, at most one per stage; with `others` also allows `other=value`."""
    compiled = re.compile(value_form, re.ASCII)
    names = (*STAGES, "other") if others else STAGES

    def check(entries: tuple[str, ...]) -> str:
        seen = set()
        for entry in entries:
            name, _, value = entry.partition("=")
            if not compiled.fullmatch(value):
                return f"{entry!r} is not like {example}; write stage=value"
            if name not in names:
                return f"{name!r} in {entry!r} is not a stage; use {', '.join(names)}"
            if name in seen:
                return f"it names {name} twice; remove one of the entries"
            seen.add(name)
        return ""

    return check


def names_by_stage(*, most_per_stage: int) -> Callable[[tuple[str, ...]], str]:
    """Requires names of Kubernetes objects: `NAME` for every stage, `STAGE=NAME` for one.

    `other=NAME` is for the stages without an entry of their own. At most `most_per_stage` names each; 0: any
    number.
    """
    name_form = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
    stages = (*STAGES, "other", "")

    def check(entries: tuple[str, ...]) -> str:
        seen: Counter[str] = Counter()
        for entry in entries:
            stage, _, name = entry.rpartition("=")
            if not name_form.fullmatch(name):
                return (
                    f"{entry!r} is not like laion-worker or download=laion-download; write NAME or STAGE=NAME"
                )
            if stage not in stages:
                return f"{stage!r} in {entry!r} is not a stage; use {', '.join(filter(None, stages))}"
            seen[stage] += 1
            if most_per_stage and seen[stage] > most_per_stage:
                return f"it names {stage or 'all stages'} twice; remove one of the entries"
        return ""

    return check


def table_names(expression: str, taken: frozenset[str]) -> Callable[[Entries], str]:
    """Requires the names of a table to match an expression and not to be reserved."""
    compiled = re.compile(expression)

    def check(entries: Entries) -> str:
        for name, _ in entries:
            if not compiled.fullmatch(name):
                return f"{name!r} cannot be a name here; use lower-case letters, digits and dashes"
            if name in taken:
                return f"the name {name!r} is reserved; use a name other than {', '.join(sorted(taken))}"
        return ""

    return check


def _is_port(text: str) -> bool:
    return bool(_PORT.match(text)) and 1 <= int(text) <= _HIGHEST_PORT


def header_value(value: str) -> str:
    """Requires a value that can be sent in an HTTP header."""
    if value and value == value.strip() and value.isascii() and value.isprintable():
        return ""
    return "it cannot be sent as an HTTP header; use printable ASCII characters"

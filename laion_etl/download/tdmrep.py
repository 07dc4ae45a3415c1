"""Reads /.well-known/tdmrep.json, in which owners reserve the rights to text and data mining.

The W3C TDM Reservation Protocol (final report of May 2024). Its location patterns are those of robots.txt
(path_patterns.py); the first that matches decides.

A file is a list of rules; by the report whatever else it has is an error that reserves nothing. As in
robots.txt, what is not well-formed is read as a reservation where its author must have meant one: `true` for
1, a whole URL, no leading slash, several locations or none in a rule, rules within an object
(`{"policies": [...]}`), a comma too many, Latin-1. Of a file that is not JSON, or was cut off, every rule
that is whole counts. Only a rule that stands where it belongs, with 0, can permit.
"""

import json
import re
from collections.abc import Iterable, Iterator

from laion_etl.core.plain_json import parse_json
from laion_etl.download.content_opt_out import is_reservation
from laion_etl.download.path_patterns import (
    PathPattern,
    as_paths,
    comparable_path,
    has_many_parts,
    parse_path_pattern,
)

_RULE = re.compile(r"\{[^{}]*\}")  # takes linear time: no match goes past the next brace
_NOT_RESERVED = frozenset({"0", "false"})
_LAST_COMMA = re.compile(r",\s*\}\Z")

TdmLine = tuple[bytes, bool]  # location as written, and whether it is reserved
TdmRules = tuple[tuple[PathPattern, bool], ...]  # location and whether it is reserved, in order


def parse_tdmrep(body: bytes) -> TdmRules:
    """Returns the rules of a file; () if it has none that can be read."""
    return compiled(tdm_lines(body))


def tdm_lines(body: bytes) -> tuple[TdmLine, ...]:
    """Returns the locations of a file; () if it has none that can be read."""
    text = body.decode(json.detect_encoding(body), "replace")
    try:
        document = parse_json(text)
    except ValueError:
        return tuple(line for rule in _rules_within(text) for line in _reservations(rule))
    return tuple(_lines(document))


def _lines(document: object) -> Iterator[TdmLine]:
    """Yields the locations of a document, in order, wherever its rules are."""
    values = [(document, 0)]
    while values:
        value, depth = values.pop()
        if isinstance(value, list):
            values += [(one, depth + 1) for one in reversed(value)]
        elif isinstance(value, dict):
            if depth == 1 and isinstance(document, list):
                yield from _permissions(value)
            yield from _reservations(value)
            values += [(one, depth + 1) for one in reversed(value.values()) if isinstance(one, dict | list)]


def _permissions(rule: dict[str, object]) -> Iterator[TdmLine]:
    location = rule.get("location")
    if isinstance(location, str) and _is_zero(_reservation(rule)):
        yield _encoded(location), False


def _reservations(rule: dict[str, object]) -> Iterator[TdmLine]:
    if not _is_one(_reservation(rule)):
        return
    given = rule.get("location")
    locations = [one for one in (given if isinstance(given, list) else [given]) if isinstance(one, str)]
    for location in locations or ["/"]:
        # A location without a character is the beginning of every path.
        yield from ((path, True) for path in as_paths(_encoded(location)) or [b"/"])


def _reservation(rule: dict[str, object]) -> object:
    return next((value for key, value in rule.items() if _name(key) == "tdm-reservation"), None)


def _name(key: str) -> str:
    return key.strip().lower().replace("_", "-")


def _encoded(location: str) -> bytes:
    return location.encode(errors="replace")


def _rules_within(text: str) -> list[dict[str, object]]:
    """Returns the objects without objects in them that a text has, in order."""
    found: list[dict[str, object]] = []
    for rule in _RULE.finditer(text):
        try:
            found.append(json.loads(_LAST_COMMA.sub("}", rule[0]), strict=False))
        except (ValueError, RecursionError):
            continue  # the others still count
    return found


def _is_one(value: object) -> bool:
    return value == 1 or (isinstance(value, str) and is_reservation(value))


def _is_zero(value: object) -> bool:
    return value == 0 or (isinstance(value, str) and value.strip().lower() in _NOT_RESERVED)


def compiled(lines: Iterable[TdmLine]) -> TdmRules:
    """Returns the rules of locations."""
    return tuple(
        (parse_path_pattern(location), reserved)
        for location, reserved in lines
        if reserved or not has_many_parts(location)  # what is cut off matches too much to permit anything
    )


def is_reserved(rules: TdmRules, path: str) -> bool:
    """Whether the first rule that matches path and query of a URL reserves it."""
    octets = comparable_path(path)
    return next((reserved for pattern, reserved in rules if pattern.matches(octets)), False)

"""Reads /.well-known/tdmrep.json, in which owners reserve the rights to text and data mining.

The W3C TDM Reservation Protocol (final report of May 2024). Its location patterns are those of robots.txt
(path_patterns.py); the first that matches decides. As in robots.txt, what is not well-formed is read as a
reservation where its author must have meant one: `true` for 1, a whole URL, no leading slash, no list, a
comma too many, Latin-1. Of a file that is not JSON, or was cut off, every rule that is whole counts.
"""

import json
import re
from collections.abc import Iterable

from laion_etl.download.content_opt_out import is_reservation
from laion_etl.download.path_patterns import (
    PathPattern,
    as_path,
    comparable_path,
    has_many_parts,
    parse_path_pattern,
)

_RULE = re.compile(r"\{[^{}]*\}")  # takes linear time: no match goes past the next brace
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
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = _rules_within(text)
    rules = document if isinstance(document, list) else [document]
    lines = tuple(
        _line(rule["location"].encode(errors="replace"), reserved=_is_one(rule.get("tdm-reservation")))
        for rule in rules
        if isinstance(rule, dict) and isinstance(rule.get("location"), str)
    )
    return lines if rules is document else tuple(line for line in lines if line[1])


def _rules_within(text: str) -> list[object]:
    """Returns the objects without objects in them that a text has, in order."""
    found: list[object] = []
    for rule in _RULE.finditer(text):
        try:
            found.append(json.loads(_LAST_COMMA.sub("}", rule[0]), strict=False))
        except (ValueError, RecursionError):
            continue  # the others still count
    return found


def _is_one(value: object) -> bool:
    return value == 1 or (isinstance(value, str) and is_reservation(value))


def _line(location: bytes, *, reserved: bool) -> TdmLine:
    return (as_path(location) if reserved else location), reserved


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

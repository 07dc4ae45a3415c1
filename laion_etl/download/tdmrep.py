"""Reads /.well-known/tdmrep.json, in which owners reserve the rights to text and data mining.

The W3C TDM Reservation Protocol (final report of May 2024). Its location patterns are those of robots.txt
(path_patterns.py); the first that matches decides. As in robots.txt, what is not well-formed is read as a
reservation where its author must have meant one: `true` for 1, a whole URL, no leading slash, no list.
"""

import json
from collections.abc import Iterable

from laion_etl.download.path_patterns import PathPattern, as_path, comparable_path, parse_path_pattern

_MAX_RULES = 1_000

TdmLine = tuple[bytes, bool]  # location as written, and whether it is reserved
TdmRules = tuple[tuple[PathPattern, bool], ...]  # location and whether it is reserved, in order


def parse_tdmrep(body: bytes) -> TdmRules:
    """Returns the rules of a file; () if it is invalid."""
    return compiled(tdm_lines(body))


def tdm_lines(body: bytes) -> tuple[TdmLine, ...]:
    """Returns the locations of a file; () if it is invalid."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    rules = document if isinstance(document, list) else [document]
    lines = tuple(
        _line(rule["location"].encode(errors="replace"), reserved=_is_one(rule.get("tdm-reservation")))
        for rule in rules[:_MAX_RULES]
        if isinstance(rule, dict) and isinstance(rule.get("location"), str)
    )
    return lines if rules is document else tuple(line for line in lines if line[1])


def _is_one(value: object) -> bool:
    return value in (1, True) or str(value).strip().lower() in ("1", "true")


def _line(location: bytes, *, reserved: bool) -> TdmLine:
    return (as_path(location) if reserved else location), reserved


def compiled(lines: Iterable[TdmLine]) -> TdmRules:
    """Returns the rules of locations."""
    return tuple((parse_path_pattern(location), reserved) for location, reserved in lines)


def is_reserved(rules: TdmRules, path: str) -> bool:
    """Whether the first rule that matches path and query of a URL reserves it."""
    octets = comparable_path(path)
    return next((reserved for pattern, reserved in rules if pattern.matches(octets)), False)

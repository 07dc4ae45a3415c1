"""Reads /.well-known/tdmrep.json, in which owners reserve the rights to text and data mining.

The W3C TDM Reservation Protocol (final report of May 2024). Its location patterns are those of robots.txt
(RFC 9309): `*` and `$` only, matched without regular expressions.
"""

import json

_MAX_RULES = 1_000


def parse_tdmrep(body: bytes) -> tuple[tuple[str, bool], ...]:
    """Returns location patterns and whether they are reserved, in order; () if the file is invalid."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(document, list):
        return ()
    return tuple(
        (rule["location"], str(rule.get("tdm-reservation")) == "1")
        for rule in document[:_MAX_RULES]
        if isinstance(rule, dict) and isinstance(rule.get("location"), str)
    )


def is_reserved(rules: tuple[tuple[str, bool], ...], path: str) -> bool:
    """Whether the first rule that matches the path reserves it."""
    return next((reserved for pattern, reserved in rules if matches(pattern, path)), False)


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern of RFC 9309 matches: a prefix, with `*` for anything and a final `$` for the end."""
    to_end = pattern.endswith("$")
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if not others:
        return not to_end or path == first
    place = len(first)
    for part in others[:-1]:
        found = path.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    last = others[-1]
    return path.endswith(last) and len(path) - len(last) >= place if to_end else path.find(last, place) >= 0

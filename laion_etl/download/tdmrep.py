"""Reads /.well-known/tdmrep.json, in which owners reserve the rights to text and data mining.

The W3C TDM Reservation Protocol (final report of May 2024). Its location patterns are those of robots.txt
(path_patterns.py); the first that matches decides.

A file is a list of rules; by the report whatever else it has is an error that reserves nothing. As in
robots.txt, what is not well-formed is read as a reservation where its author must have meant one: `true` for
1, a whole URL, no leading slash, several locations or none in a rule, rules within an object
(`{"policies": [...]}`), a key that occurs twice, a comma too many, Latin-1. Of a file that is not JSON, or
was cut off, every rule that is whole counts. Only a rule that stands where it belongs, with 0, can permit.
"""

import re
from collections.abc import Iterable, Iterator
from html import unescape

from laion_etl.core.plain_json import parse_json
from laion_etl.download.content_opt_out import REFUSED, TRAINING, forbids_training, is_reservation
from laion_etl.download.loose_paths import as_paths
from laion_etl.download.path_patterns import (
    PathPattern,
    comparable_path,
    has_many_parts,
    parse_path_pattern,
)
from laion_etl.download.robots_lines import decoded, encoded

_BRACE = re.compile("[{}]")
_MAX_DEPTH = 50  # of objects that are not JSON; what is deeper is read as a part of the last one
_MAX_USAGE_DEPTH = 5  # of lists and objects in a usage preference
_LAST_COMMA = re.compile(r",\s*\}\Z")
_NOT_RESERVED = frozenset({"0", "false"})
_OTHER_LETTERS = re.compile("[^a-z]+")
_QUOTES = "[\"'`\u201c\u201d\u201e\u2018\u2019\\\\]"
_ONE = "(?:1|true|yes|on|all|reserved)"
# The same in what is not JSON, such as Python, JavaScript or YAML; every part is bounded.
_LOOSE_RESERVATION = re.compile(
    rf"\btdm[\W_]{{0,2}}(?:reservations?|reserved){_QUOTES}{{0,3}}\s{{0,9}}[:=;]\s{{0,9}}{_QUOTES}{{0,3}}[+?]?0{{0,3}}{_ONE}(?!\w)",
    re.IGNORECASE,
)
_LOOSE_ONE = re.compile(rf"[:=]\s{{0,9}}{_QUOTES}{{0,3}}[+?]?0{{0,3}}{_ONE}(?!\w)", re.IGNORECASE)
_LOOSE_LOCATION = re.compile(
    rf"\blocation{_QUOTES}{{0,3}}\s{{0,9}}[:=][ \t]{{0,9}}{_QUOTES}{{0,3}}"
    r"([^\s\"'`,\\\u201c\u201d\u2018\u2019{}]{1,2000})",
    re.IGNORECASE,
)
_LOOSE_USAGE = re.compile(
    rf"\b(?:content[\W_]{{0,2}}(?:usage|signals?)|tdm[\W_]{{0,2}}reservation){_QUOTES}{{0,3}}\s{{0,9}}[:=]\s{{0,9}}{_QUOTES}{{0,3}}",
    re.IGNORECASE,
)
_USAGE_BEFORE, _MAX_KEY = re.compile(rf"{_LOOSE_USAGE.pattern}[\[\s]{{0,9}}\Z", re.IGNORECASE), 60
# A preference that is a key of its own: `"train-ai": "n"`.
_PREFERENCE = re.compile(
    rf"(?<![\w-]){TRAINING}{_QUOTES}{{0,3}}\s{{0,9}}:\s{{0,9}}{_QUOTES}{{0,3}}{REFUSED}", re.IGNORECASE
)
_BETWEEN_TEXTS = re.compile(rf"(?<!=){_QUOTES}|[\[\]{{}}\r\n]")  # `ai-train="no"` is one
_AROUND_TEXTS, _KEY_END = re.compile(rf"{_QUOTES}|[{{}}]"), re.compile(r"\s{0,9}[:=]\s{0,9}")
_ODD_OCTETS = re.compile("[\udc80-\udcff]")  # which are not UTF-8
_LOOSE_KEY = "tdm-reservation"
_NO_TRAINING = '"train-ai=n"'
_USAGE_KEYS = ("contentusage", "contentsignal", "contentsignals", "usage")
_RESERVATION_KEYS = ("tdmreservation", "tdmreservations", "tdmreserved", "reservation")

TdmLine = tuple[bytes, bool]  # location as written, and whether it is reserved
TdmRules = tuple[tuple[PathPattern, bool], ...]  # location and whether it is reserved, in order


def parse_tdmrep(body: bytes) -> TdmRules:
    """Returns the rules of a file; () if it has none that can be read."""
    return compiled(tdm_lines(body))


def tdm_lines(body: bytes) -> tuple[TdmLine, ...]:
    """Returns the locations of a file; () if it has none that can be read."""
    text = unescape(shown) if "&quot;" in (shown := _text(body)) else shown
    try:
        document = _parsed(text)
        if isinstance(document, str):  # JSON within JSON
            document = _parsed(document)
    except ValueError:
        return tuple(line for rule in _rules_within(text) for line in _reservations(rule))
    return tuple(_lines(document))


def _parsed(text: str, *, strict: bool = True) -> object:
    return parse_json(text, on_pairs=_merged, strict=strict)


def _merged(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Returns an object in which a key that occurs several times has all its values."""
    found: dict[str, object] = dict(pairs)
    if len(found) == len(pairs):
        return found
    values: dict[str, list[object]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    return {key: same[0] if len(same) == 1 else _flat(same) for key, same in values.items()}


def _flat(values: list[object]) -> list[object]:
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def _text(body: bytes) -> str:
    text = decoded(body).replace("\0", "").removeprefix("\ufeff")
    return text if _ODD_OCTETS.search(text) is None else body.decode("windows-1252", "replace")


def _lines(document: object) -> Iterator[TdmLine]:
    """Yields the locations of a document, in order, wherever its rules are."""
    values = [(document, 0, False)]
    while values:
        value, depth, is_usage = values.pop()
        if isinstance(value, list):
            values += [(one, depth + 1, is_usage) for one in reversed(value)]
        elif isinstance(value, dict):
            if depth == 1 and isinstance(document, list):
                yield from _permissions(value)
            if not is_usage or _is_reserved(value):
                yield from _reservations(value)
            within = [(key, one) for key, one in value.items() if isinstance(one, dict | list)]
            values += [(one, depth + 1, _letters(key) in _USAGE_KEYS) for key, one in reversed(within)]


def _permissions(rule: dict[str, object]) -> Iterator[TdmLine]:
    location = _value(rule, "location")
    if isinstance(location, str) and not _reserves(rule) and _is_zero(_value(rule, "tdmreservation")):
        yield encoded(location), False


def _reservations(rule: dict[str, object]) -> Iterator[TdmLine]:
    if not _reserves(rule):
        return
    given = _value(rule, "location")
    locations = [one for one in (given if isinstance(given, list) else [given]) if isinstance(one, str)]
    for location in locations or ["/"]:
        # A location without a character is the beginning of every path.
        yield from ((path, True) for path in as_paths(location) or [b"/"])


def _reserves(rule: dict[str, object]) -> bool:
    """Whether a rule reserves, or has a usage preference as in headers: `"content-usage": "train-ai=n"`."""
    if _is_reserved(rule):
        return True
    plain = ((key, value) for key, value in rule.items() if not isinstance(value, dict | list))
    if any(_PREFERENCE.match(f"{key.strip()}:{value}") for key, value in plain):
        return True
    usages = [value for name in _USAGE_KEYS for value in _values(rule, name)]
    return any(forbids_training(usage) for usage in _texts(usages))


def _is_reserved(rule: dict[str, object]) -> bool:
    return any(_is_one(value) for name in _RESERVATION_KEYS for value in _values(rule, name))


def _value(rule: dict[str, object], name: str) -> object:
    """Returns the value of the key with these letters, the first of several."""
    return next(iter(_values(rule, name)), None)


def _values(rule: dict[str, object], name: str) -> list[object]:
    return [value for key, value in rule.items() if _letters(key) == name]


def _letters(key: str) -> str:
    return _OTHER_LETTERS.sub("", key.lower())


def _texts(values: list[object]) -> Iterator[str]:
    """Yields the texts within values; those of an object as a dictionary: `train-ai=n`.

    What is nested deeper is left to the rules in it: else each text would be read once for every level.
    """
    left = [(value, 0) for value in values]
    while left:
        value, depth = left.pop()
        if depth > _MAX_USAGE_DEPTH:
            continue
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            left += [(one, depth + 1) for one in value]
        elif isinstance(value, dict):
            left += [(one, depth + 1) for one in value.values() if isinstance(one, dict | list)]
            yield ", ".join(f"{key}={one}" for key, one in value.items() if not isinstance(one, dict | list))


def _rules_within(text: str) -> list[dict[str, object]]:
    """Returns the objects that a text has, in order of their ends, and what stands outside of them."""
    found = (_rule(text) for text in _objects(text))
    return [rule for rule in found if rule is not None]


def _rule(text: str) -> dict[str, object] | None:
    try:
        document = _parsed(_LAST_COMMA.sub("}", text), strict=False)
    except ValueError:
        document = _loose_rule(text)
    return document if isinstance(document, dict) else None


def _objects(text: str) -> Iterator[str]:
    """Yields the text of each object without those in it, which are replaced by their meaning as a value.

    Takes linear time: every character is a part of one object.
    """
    open_objects: list[list[str]] = [[]]
    place = deeper = 0
    for brace in _BRACE.finditer(text):
        open_objects[-1].append(text[place : brace.start()])
        place = brace.end()
        if brace[0] == "{" and len(open_objects) <= _MAX_DEPTH:
            open_objects.append(["{"])
        elif brace[0] == "{":
            deeper += 1
        elif deeper:
            deeper -= 1
        elif len(open_objects) > 1:
            written = "".join((*open_objects.pop(), "}"))
            if _KEY_END.search(written) is None:
                open_objects[-1].append('""')
                continue
            is_usage = _USAGE_BEFORE.search(open_objects[-1][-1][-_MAX_KEY:]) is not None
            open_objects[-1].append(_as_value(written))
            if not is_usage or _LOOSE_RESERVATION.search(written):
                yield written
    open_objects[-1].append(text[place:])
    yield from ("".join(parts) for parts in reversed(open_objects))


def _as_value(text: str) -> str:
    """Returns what an object means as the value of a reservation or a usage preference."""
    if forbids_training(_KEY_END.sub("=", _AROUND_TEXTS.sub("", text))):
        return _NO_TRAINING
    return "1" if _LOOSE_ONE.search(text) else '""'


def _loose_rule(text: str) -> dict[str, object] | None:
    """Returns what a rule that is not JSON reserves; it permits nothing."""
    if not (_LOOSE_RESERVATION.search(text) or _PREFERENCE.search(text) or _forbids_training(text)):
        return None
    location = [found.strip() for found in _LOOSE_LOCATION.findall(text)]
    return {"location": location, _LOOSE_KEY: 1}


def _forbids_training(text: str) -> bool:
    """Whether a text behind the first key of a usage preference forbids training."""
    key = _LOOSE_USAGE.search(text)
    return key is not None and any(map(forbids_training, _BETWEEN_TEXTS.split(text[key.end() :])))


def _is_one(value: object) -> bool:
    if isinstance(value, list):
        return any(_is_one(one) for one in value if not isinstance(one, list))
    if isinstance(value, dict):
        return any(_is_one(one) for one in value.values() if not isinstance(one, list | dict))
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

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
from functools import lru_cache

from laion_etl.core.html_entities import unescaped
from laion_etl.download.content_opt_out import (
    REFUSED,
    forbids_training,
    is_reservation,
    opted_out_by_header,
)
from laion_etl.download.loose_json import PREFERENCE, parsed, rules_within
from laion_etl.download.loose_paths import as_paths
from laion_etl.download.path_patterns import (
    PathPattern,
    comparable_path,
    has_many_parts,
    parse_path_pattern,
)
from laion_etl.download.robots_lines import decoded, encoded

_NOT_RESERVED = frozenset({"0", "false"})
_OTHER_LETTERS = re.compile("[^a-z]+")
_MAX_USAGE_DEPTH = 5  # of lists and objects in a usage preference
_USUAL_KEY = 64  # characters
_MAX_PAIRED = 20  # categories, and as many values, of one rule
_CATEGORY_KEYS = frozenset(
    {"category", "usage", "purpose", "preference", "key", "name", "use", "signal", "type"}
)
_VALUE_KEYS = frozenset(
    {"value", "preference", "allowed", "allow", "permission", "permitted", "state", "status"}
)
_DIRECTIVE_KEYS = frozenset(
    {"robots", "xrobotstag", "robotstag", "directive", "directives", "robotsdirectives"}
)
_ODD_OCTETS = re.compile("[\udc80-\udcff]")  # which are not UTF-8
_USAGE_KEYS = ("contentusage", "contentsignal", "contentsignals", "usage")
_RESERVATION_KEYS = ("tdmreservation", "tdmreservations", "tdmreserved", "reservation", "reserved", "tdm")
# A permission that is refused: `"allow-ai-training": false`. Of `"tdm": false` one cannot know what it means.
_PERMISSION = re.compile(
    r"(?!tdm\Z)(?:allow(?:ed)?)?(?:tdm|(?:text(?:and)?)?datamining|(?:gen)?ai(?:train(?:ing)?)?|train(?:ing)?(?:gen)?(?:ai)?)"
    r"(?:allowed|permitted)?"
)
_REFUSAL = re.compile(REFUSED, re.IGNORECASE)
# Regular expressions for the whole site. In robots.txt `/.*` is more often meant for files like `.git`.
_WHOLE_SITE = frozenset({".*", "/.*", "^.*$", "/.*$", "^/.*", "/.*/", "/.*/*"})

TdmLine = tuple[bytes, bool]  # location as written, and whether it is reserved
TdmRules = tuple[tuple[PathPattern, bool], ...]  # location and whether it is reserved, in order


def parse_tdmrep(body: bytes) -> TdmRules:
    """Returns the rules of a file; () if it has none that can be read."""
    return compiled(tdm_lines(body))


def tdm_lines(body: bytes) -> tuple[TdmLine, ...]:
    """Returns the locations of a file; () if it has none that can be read."""
    text = unescaped(shown) if "&quot;" in (shown := _text(body)) else shown
    try:
        document = parsed(text)
        if isinstance(document, str):  # JSON within JSON
            document = parsed(document)
    except ValueError:
        return tuple(line for rule in rules_within(text) for line in _reservations(rule))
    return tuple(_lines(document))


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
        paths = [] if location.strip() in _WHOLE_SITE else as_paths(location)
        yield from ((path, True) for path in paths or [b"/"])


def _reserves(rule: dict[str, object]) -> bool:
    """Whether a rule reserves, or has a usage preference as in headers: `"content-usage": "train-ai=n"`."""
    if _is_reserved(rule):
        return True
    plain = {key: value for key, value in rule.items() if not isinstance(value, dict | list | None)}
    if any(PREFERENCE.match(f"{key.strip()}:{value}") for key, value in plain.items()) or _says_no(rule):
        return True
    usages = [value for name in _USAGE_KEYS for value in _values(rule, name)]
    return any(forbids_training(usage) for usage in (*_texts(usages), _as_dictionary(plain)))


def _says_no(rule: dict[str, object]) -> bool:
    """Whether a rule has directives as in X-Robots-Tag, or one of them as a key: `"noai": true`."""
    for key, value in rule.items():
        if isinstance(value, dict):
            within = {f"{key}{name}": one for name, one in value.items() if not isinstance(one, dict | list)}
        else:
            within = {key: value}
        if any(_PERMISSION.fullmatch(_letters(name)) and _is_refusal(one) for name, one in within.items()):
            return True
    texts = [value for name in _DIRECTIVE_KEYS for value in _values(rule, name)]
    given = [key for key, value in rule.items() if _is_one(value)]
    return opted_out_by_header([*_texts(texts), *given])


def _is_refusal(value: object) -> bool:
    return not isinstance(value, list | None) and _REFUSAL.match(str(value).strip()) is not None


def _as_dictionary(rule: dict[str, object]) -> str:
    """Returns preferences whose category and value are keys of their own as a dictionary: `train-ai=n`."""
    categories = [value for key, value in rule.items() if _letters(key) in _CATEGORY_KEYS][:_MAX_PAIRED]
    values = [value for key, value in rule.items() if _letters(key) in _VALUE_KEYS][:_MAX_PAIRED]
    return ", ".join(f"{category}={value}" for category in categories for value in values)


def _is_reserved(rule: dict[str, object]) -> bool:
    return any(_is_one(value) for name in _RESERVATION_KEYS for value in _values(rule, name))


def _value(rule: dict[str, object], name: str) -> object:
    """Returns the value of the key with these letters, the first of several."""
    return next(iter(_values(rule, name)), None)


def _values(rule: dict[str, object], name: str) -> list[object]:
    return [value for key, value in rule.items() if _letters(key) == name]


def _letters(key: str) -> str:
    return _known_letters(key) if len(key) <= _USUAL_KEY else _OTHER_LETTERS.sub("", key.lower())


@lru_cache(maxsize=1_024)
def _known_letters(key: str) -> str:
    """Returns the letters of a short key, which is asked for some 25 times in each rule."""
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
            plain = {key: one for key, one in value.items() if not isinstance(one, dict | list)}
            yield ", ".join(f"{key}={one}" for key, one in plain.items())
            yield _as_dictionary(plain)


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
    if not rules:  # as most hosts have it
        return False
    octets = comparable_path(path)
    return next((reserved for pattern, reserved in rules if pattern.matches(octets)), False)

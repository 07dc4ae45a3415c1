"""Reads JSON as people write it: with keys that occur twice, and rules of tdmrep.json in what is not JSON.

Python, JavaScript and YAML have the same rules in other signs, and a file may be cut off. Every rule that is
whole counts; it can reserve, not permit.
"""

import re
from collections.abc import Iterator

from laion_etl.core.plain_json import parse_json
from laion_etl.download.content_opt_out import REFUSED, TRAINING, forbids_training

_BRACE = re.compile("[{}]")
_MAX_DEPTH = 50  # of objects that are not JSON; what is deeper is read as a part of the last one
_LAST_COMMA = re.compile(r",\s*\}\Z")
_QUOTES = "[\"'`\u201c\u201d\u201e\u2018\u2019\\\\]"
_ONE = "(?:1|true|yes|on|all|reserved)"
# The same in what is not JSON, such as Python, JavaScript or YAML; every part is bounded.
_LOOSE_RESERVATION = re.compile(
    rf"\btdm[\W_]{{0,2}}(?:reservations?|reserved){_QUOTES}{{0,3}}\s{{0,9}}[:=;>\s]\s{{0,9}}{_QUOTES}{{0,3}}[+?]?0{{0,3}}{_ONE}(?!\w)",
    re.IGNORECASE,
)
_LOOSE_ONE = re.compile(rf"[:=]\s{{0,9}}{_QUOTES}{{0,3}}[+?]?0{{0,3}}{_ONE}(?!\w)", re.IGNORECASE)
_LOOSE_LOCATION = re.compile(
    rf"\blocation{_QUOTES}{{0,3}}\s{{0,9}}[:=>][ \t]{{0,9}}{_QUOTES}{{0,3}}"
    r"([^\s\"'`,\\\u201c\u201d\u2018\u2019{}<]{1,2000})",
    re.IGNORECASE,
)
_LOOSE_USAGE = re.compile(
    rf"\b(?:content[\W_]{{0,2}}(?:usage|signals?)|tdm[\W_]{{0,2}}reservation){_QUOTES}{{0,3}}\s{{0,9}}[:=]\s{{0,9}}{_QUOTES}{{0,3}}",
    re.IGNORECASE,
)
_USAGE_BEFORE, _MAX_KEY = re.compile(rf"{_LOOSE_USAGE.pattern}[\[\s]{{0,9}}\Z", re.IGNORECASE), 60
# A preference that is a key of its own: `"train-ai": "n"`.
PREFERENCE = re.compile(
    rf"(?<![\w-])(?:{TRAINING}|(?:gen)?ai){_QUOTES}{{0,3}}\s{{0,9}}:\s{{0,9}}{_QUOTES}{{0,3}}{REFUSED}",
    re.IGNORECASE,
)
# A preference in two keys, `{"category": "train-ai", "value": "n"}`, or as one that says no: `"noai": true`.
_LOOSE_PAIR = re.compile(
    rf"\b(?:category|purpose|usage|preference|name|key){_QUOTES}{{0,3}}\s{{0,9}}[:=]\s{{0,9}}{_QUOTES}{{0,3}}{TRAINING}"
    rf"{_QUOTES}{{0,3}}\s{{0,9}}[,;]?\s{{0,9}}{_QUOTES}{{0,3}}(?:value|preference|allow(?:ed)?|permission)"
    rf"{_QUOTES}{{0,3}}\s{{0,9}}[:=]\s{{0,9}}{_QUOTES}{{0,3}}{REFUSED}",
    re.IGNORECASE,
)
_LOOSE_NO = re.compile(
    rf"(?<![\w-])no[_-]?(?:image[_-]?)?ai{_QUOTES}{{0,3}}\s{{0,9}}[:=]\s{{0,9}}{_QUOTES}{{0,3}}{_ONE}(?!\w)",
    re.IGNORECASE,
)
_BETWEEN_TEXTS = re.compile(rf"(?<!=){_QUOTES}|[\[\]{{}}\r\n]")  # `ai-train="no"` is one
_AROUND_TEXTS, _KEY_END = re.compile(rf"{_QUOTES}|[{{}}]"), re.compile(r"\s{0,9}[:=]\s{0,9}")
_LOOSE_KEY = "tdm-reservation"
_NO_TRAINING = '"train-ai=n"'


def parsed(text: str, *, strict: bool = True) -> object:
    """Returns the document of a text; a key that occurs twice has both values. Raises ValueError."""
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


def rules_within(text: str) -> list[dict[str, object]]:
    """Returns the objects that a text has, in order of their ends, and what stands outside of them."""
    found = (_rule(text) for text in _objects(text))
    return [rule for rule in found if rule is not None]


def _rule(text: str) -> dict[str, object] | None:
    try:
        document = parsed(_LAST_COMMA.sub("}", text), strict=False)
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
    wishes = (_LOOSE_RESERVATION, PREFERENCE, _LOOSE_PAIR, _LOOSE_NO)
    if not (any(wish.search(text) for wish in wishes) or _forbids_training(text)):
        return None
    location = [found.strip() for found in _LOOSE_LOCATION.findall(text)]
    return {"location": location, _LOOSE_KEY: 1}


def _forbids_training(text: str) -> bool:
    """Whether a text behind the first key of a usage preference forbids training."""
    key = _LOOSE_USAGE.search(text)
    return key is not None and any(map(forbids_training, _BETWEEN_TEXTS.split(text[key.end() :])))

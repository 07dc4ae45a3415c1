"""The lines of a removal list as requests, and their record `removing/<id>/lines.json` in the store.

A divided removal goes on without its list: by the record its ranges find what each line matches, and its end
knows which lines have matched nothing. Like requests it has hashes only. It stays when the removal is
finished, so that a repeated end says the same.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from laion_etl.blocklists.removal_requests import Request
from laion_etl.blocklists.rule_hashes import RULES, WIDTHS, hash_of
from laion_etl.core.errors import InputError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.io.storage import Store
from laion_etl.removal.line_rules import LineCollector, LineRules
from laion_etl.urls import normalize

FORMAT = 1


@dataclass(frozen=True, slots=True)
class RequestedLine:
    """A line of a list: its text, '' if only the record is known, and its request.

    `hashes`: those of the request, each behind the number of its kind; None for a sample or an image that is
    not known. As a Request a line takes 1.3 kB, so there is one only while it is asked for.
    """

    number: int
    text: str
    hashes: bytes | None
    url_rule: int = 0

    @classmethod
    def of(cls, number: int, text: str, request: Request | None) -> Self:
        """Return a line with a request of one line."""
        if request is None:
            return cls(number, text, None)
        return cls(number, text, _packed(request.rules), request.url_rule)

    @property
    def name(self) -> str:
        return f"line {self.number} ({self.text[:100]})" if self.text else f"line {self.number}"

    @property
    def request(self) -> Request | None:
        """The request of the line alone, made anew."""
        rules = self.rules
        if rules is None:
            return None
        return replace(Request({kind: rules.get(kind, ()) for kind in RULES}), url_rule=self.url_rule)

    @property
    def rules(self) -> dict[str, tuple[str, ...]] | None:
        """The hashes in hexadecimal digits by kind, without kinds that have none."""
        if self.hashes is None:
            return None
        found: dict[str, tuple[str, ...]] = {}
        place = 0
        while place < len(self.hashes):
            kind = RULES[self.hashes[place]]
            end = place + 1 + WIDTHS[kind]
            found[kind] = (*found.get(kind, ()), self.hashes[place + 1 : end].hex())
            place = end
        return found


def write_lines(request_id: str, lines: Sequence[RequestedLine], store: Store) -> None:
    """Record the lines of a removal; without lines an earlier record is deleted."""
    if not lines:
        store.delete(lines_name(request_id))
        return
    rules = {one.url_rule for one in lines if one.hashes is not None}
    document = {
        "format": FORMAT,
        "url_rule": max(rules, default=normalize.RULE_VERSION),
        "lines": [{"line": one.number, "rules": one.rules} for one in lines],
    }
    store.write(lines_name(request_id), json.dumps(document).encode() + b"\n")


def read_lines_of(request_id: str, store: Store) -> tuple[RequestedLine, ...]:
    """Return the lines of a divided removal; none if it was prepared without a list.

    Raises InputError if the record is damaged.
    """
    name = lines_name(request_id)
    if not store.exists(name):
        return ()

    def packed(found: dict[str, Any]) -> object:
        if "rules" not in found:  # the document, or the rules of a line
            return found
        rules = found["rules"]
        return int(found["line"]), None if rules is None else _packed(rules)

    with _naming_damage(store.uri(name)):
        document = parse_json(store.read(name), packed)
        rule = _url_rule(document, store.uri(name))
        lines = ((int(number), hashes) for number, hashes in document["lines"])
        return tuple(
            RequestedLine(number, "", hashes, 0 if hashes is None else rule) for number, hashes in lines
        )


def read_line_rules(request_id: str, store: Store) -> LineRules:
    """Return the rules of these lines, without ever having objects for all of them. Raises InputError."""
    name, collected = lines_name(request_id), LineCollector()
    if not store.exists(name):
        return collected.rules()

    def collect(found: dict[str, Any]) -> dict[str, Any] | None:
        if "rules" not in found:  # the document, or the rules of a line
            return found
        if found["rules"] is not None:
            collected.add(found["rules"])
        return None

    with _naming_damage(store.uri(name)):
        document = parse_json(store.read(name), collect)
        rule = _url_rule(document, store.uri(name))
        if any(one is not None for one in document["lines"]):
            raise ValueError("a line has no rules")
        return collected.rules(rule)


@contextmanager
def _naming_damage(uri: str) -> Iterator[None]:
    try:
        yield
    except NOT_AS_EXPECTED as error:
        raise InputError(
            f"cannot read {uri}: it does not have the lines of a removal ({error}); prepare the removal again"
        ) from error


def _url_rule(document: dict[str, Any], uri: str) -> int:
    check_format(uri, document.get("format"), FORMAT)
    return check_format(uri, document.get("url_rule"), normalize.RULE_VERSION, "URL rule")


def lines_name(request_id: str) -> str:
    """Return the name of the record."""
    return f"removing/{request_id}/lines.json"


def _packed(rules: Mapping[str, Iterable[str]]) -> bytes:
    """Return the hashes of a line as bytes. Raises ValueError for what is not a hash."""
    kinds = ((number, kind, rules.get(kind, ())) for number, kind in enumerate(RULES))
    return b"".join(bytes([number]) + hash_of(one, kind) for number, kind, named in kinds for one in named)

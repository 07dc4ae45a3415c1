"""Parses robots.txt and applies its rules (RFC 9309, section 2.2).

Our own parser, because those that are published differ from the RFC where it matters to owners: they end a
group at lines that they do not know, or choke on a byte order mark. Where a file is not well-formed, a
`Disallow` is read as its author must have meant it (robots_lines.py: misspelt, no colon, quotes, blanks;
loose_paths.py: no leading slash, a whole URL, two paths); an `Allow` has to be right, and
so has the name of its group (robots_names.py).

Rules without wildcards are found in a table by the beginning of the path, so a file of 25,000 lines costs a
link some microseconds. Those with wildcards are tried one by one.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from laion_etl.download.content_opt_out import forbids_training, is_reservation, opted_out_by_header
from laion_etl.download.loose_paths import as_paths
from laion_etl.download.path_patterns import (
    PathPattern,
    begins_as_path,
    comparable_path,
    has_many_parts,
    parse_path_pattern,
)
from laion_etl.download.robots_lines import LineKind, encoded, lines_of
from laion_etl.download.robots_names import NamesOfGroup, comparable_name

_PERMISSION = re.compile(r"(?:^|\s)allow\s{0,9}:", re.IGNORECASE)  # in the same line
# Terms of RSL (rslstandard.org, 1.0 of 2025): any URL, other than that of a licence that everybody has.
_URL = re.compile(r"(?:https?:[/\\]{0,9}|//)(?=[^/\\\s.]{1,63}\.)", re.IGNORECASE)
_COMMON_LICENSE = re.compile(
    r"(?:[a-z0-9-]{1,63}\.){0,3}(?:creativecommons|opensource|spdx|gnu)\.org(?:[/?#>\"')\s,;]|\Z)",
    re.IGNORECASE,
)
_SHOWN_RETURN = "^M"  # how editors show a carriage return, copied from there

RobotsLine = tuple[bool, bytes]  # whether it allows, and its pattern as written

_NO_TRAINING: RobotsLine = (False, b"")  # also if another line allows to fetch it

_Strength = tuple[int, bool]  # octets of the pattern, whether it allows: the greatest decides
_NO_RULE: _Strength = (-1, True)


class RobotsRules:
    """The rules of one file for one user agent: pairs of whether they allow, and their pattern."""

    def __init__(self, rules: Iterable[tuple[bool, PathPattern]]) -> None:
        self._prefixes: dict[bytes, _Strength] = {}
        self._whole: dict[bytes, _Strength] = {}
        wildcards: dict[PathPattern, _Strength] = {}
        for allows, pattern in rules:
            strength = (pattern.octets, allows)
            first, *others = pattern.parts
            if others not in ([], [b""]):
                wildcards[pattern] = max(strength, wildcards.get(pattern, _NO_RULE))
                continue
            found = self._whole if pattern.to_end and not others else self._prefixes
            found[first] = max(strength, found.get(first, _NO_RULE))
        self._lengths = sorted({len(prefix) for prefix in self._prefixes})
        ordered = sorted(wildcards.items(), key=lambda item: item[1], reverse=True)
        self._wildcards = [(strength, pattern.longest_part, pattern) for pattern, strength in ordered]

    @classmethod
    def from_lines(cls, lines: Iterable[RobotsLine]) -> "RobotsRules":
        """Returns the rules of lines that concern the user agent."""
        return cls(
            (allows, parse_path_pattern(value))
            for allows, value in lines
            if not (allows and has_many_parts(value))  # what is cut off matches too much to allow anything
        )

    @property
    def tried_parts(self) -> int:
        """How many parts of patterns `allows` may have to look for, one by one."""
        return sum(len(pattern.parts) for _, _, pattern in self._wildcards)

    def allows(self, path: str) -> bool:
        """Whether path and query of a URL may be fetched: the longest rule that matches decides.

        Of an Allow and a Disallow of the same length the Allow decides. robots.txt itself is always allowed.
        """
        if not (self._prefixes or self._whole or self._wildcards):  # as most hosts have it
            return True
        octets = comparable_path(path)
        if octets == b"/robots.txt":
            return True
        best = self._whole.get(octets, _NO_RULE)
        for length in self._lengths:
            if length > len(octets):
                break
            best = max(best, self._prefixes.get(octets[:length], _NO_RULE))
        for strength, part, pattern in self._wildcards:
            if strength <= best:
                break
            if part in octets and pattern.matches(octets):
                best = strength
                break
        return best[1]


def parse_robots_txt(body: bytes, agent: str) -> RobotsRules:
    """Returns the rules for a product token: those of all groups that name it, else those of `*`."""
    return RobotsRules.from_lines(lines_for(body, agent))


def lines_for(body: bytes, agent: str) -> list[RobotsLine]:
    """Returns the lines that are the rules for a product token; corrected, see above.

    Where they say that nothing may be used for training, they are one that forbids everything.
    """
    found = _LinesByGroup(comparable_name(agent))
    group = NamesOfGroup()
    in_rules = has_groups = False
    for kind, value in lines_of(body):
        if kind is LineKind.USER_AGENT:
            if in_rules:
                group, in_rules = NamesOfGroup(), False
            group.add(value, found.agent)
            has_groups = True
            found.named = found.named or (found.agent != "" and found.agent in group.sure)
            continue
        if kind is LineKind.LICENSE:  # it belongs to no group
            found.for_all += _license(value)
            continue
        is_usage = kind in _USAGES
        in_rules = in_rules or not is_usage
        rules = _RULES[kind](value)
        if is_usage:
            found.add_usage(rules, group)
        found.add(rules, group)
        if not is_usage and not has_groups:
            found.ungrouped += _forbidding(rules)
    if not has_groups:  # what is in front of a group is ignored by RFC 9309, but a whole file was meant
        found.general += found.ungrouped
    return found.decided()


@dataclass(slots=True)
class _LinesByGroup:
    """The lines of a file by whom they concern. `trained`: paths that must not be used for training."""

    agent: str
    named: bool = False  # a group is ours for sure
    own: list[RobotsLine] = field(default_factory=list)
    general: list[RobotsLine] = field(default_factory=list)
    for_all: list[RobotsLine] = field(default_factory=list)  # whatever other groups say
    mixed: list[RobotsLine] = field(default_factory=list)  # for everyone, and for names that may be ours
    ungrouped: list[RobotsLine] = field(default_factory=list)
    trained: list[bytes] = field(default_factory=list)

    def _may_be_ours(self, group: NamesOfGroup) -> bool:
        return self.agent != "" and self.agent in group.perhaps

    def add_usage(self, rules: list[RobotsLine], group: NamesOfGroup) -> None:
        """Takes note of what must not be used; in front of the first group for everyone."""
        if not group.perhaps:
            self.for_all += rules
        if not group.perhaps or self._may_be_ours(group) or "*" in group.perhaps:
            self.trained += [path for _, path in rules]

    def add(self, rules: list[RobotsLine], group: NamesOfGroup) -> None:
        """Takes note of the rules of a group."""
        if self._may_be_ours(group):
            if self.agent in group.sure:
                self.own += rules
            elif group.for_everyone:
                self.general += rules
                self.mixed += _forbidding(rules)
            else:
                self.for_all += _forbidding(rules)
        elif "*" in group.perhaps:
            self.general += rules if "*" in group.sure else _forbidding(rules)
        elif group.unnamed:
            self.general += _forbidding(rules)

    def decided(self) -> list[RobotsLine]:
        """Returns the lines that are the rules."""
        found = self.for_all + (self.mixed + self.own if self.named else self.general)
        if _NO_TRAINING in found:
            return [(False, b"/")]
        # Nor does a permission for everyone outdo what is forbidden to a name that may be ours.
        kept = self.trained if self.named else self.trained + [path for _, path in self.for_all]
        if not kept:
            return found
        reserved = _Reserved(map(parse_path_pattern, kept))
        return [line for line in found if not line[0] or not reserved.outdone_by(line[1])]


def _forbidding(rules: Iterable[RobotsLine]) -> list[RobotsLine]:
    return [line for line in rules if not line[0]]


class _Reserved:
    """Paths that no other line may permit. Looked up by their beginnings: a file may have thousands."""

    def __init__(self, patterns: Iterable[PathPattern]) -> None:
        self._plain: dict[bytes, int] = {}  # the fewest octets by path
        self._least = self._least_wild = sys.maxsize
        for one in patterns:
            self._least = min(self._least, one.octets)
            if len(one.parts) > 1:
                self._least_wild = min(self._least_wild, one.octets)
            else:
                self._plain[one.parts[0]] = min(one.octets, self._plain.get(one.parts[0], sys.maxsize))
        self._lengths = sorted({len(path) for path in self._plain})

    def outdone_by(self, allowed: bytes) -> bool:
        """Whether a path that may be fetched could be the more specific one, for some path of the host."""
        allow = parse_path_pattern(allowed)
        if len(allow.parts) > 1:
            return self._least <= allow.octets
        path = allow.parts[0]
        return self._least_wild <= allow.octets or any(
            self._plain.get(path[:length], sys.maxsize) <= allow.octets
            for length in takewhile(lambda length: length <= len(path), self._lengths)
        )


def _allow(value: str) -> list[RobotsLine]:
    pattern = encoded(value)
    return [(True, pattern)] if begins_as_path(pattern) else []


def _disallow(value: str) -> list[RobotsLine]:
    without_permission = _PERMISSION.split(value, 1)[0]
    return [(False, path) for path in as_paths(without_permission.removesuffix(_SHOWN_RETURN))]


def _usage(value: str) -> list[RobotsLine]:
    """Returns what `Content-Signal` or `Content-Usage` forbids: training, here or below a path."""
    if not forbids_training(value):
        return []
    path, *rest = value.split(None, 1)
    return _disallow(path) if rest and begins_as_path(encoded(path)) else [_NO_TRAINING]


def _reservation(value: str) -> list[RobotsLine]:
    return [_NO_TRAINING] if is_reservation(value) else []


def _preference(value: str) -> list[RobotsLine]:
    """Returns what a line forbids whose name is a usage preference: `AI-Training: no`, `NoAI: true`."""
    name, _, given = value.partition("=")
    if begins_as_path(encoded(given)):
        return _disallow(given) if opted_out_by_header([name]) else []
    refuses = opted_out_by_header([name]) and (not given or is_reservation(given))
    return [_NO_TRAINING] if refuses or forbids_training(value) else []


def _directives(value: str) -> list[RobotsLine]:
    return [_NO_TRAINING] if opted_out_by_header([value]) else []


def _license(value: str) -> list[RobotsLine]:
    """Returns what terms for AI that are elsewhere mean: as they are not read, nothing may be used."""
    hosts = (found.end() for found in _URL.finditer(value))
    return [_NO_TRAINING] if any(_COMMON_LICENSE.match(value, host) is None for host in hosts) else []


_RULES = {
    LineKind.DISALLOW: _disallow,
    LineKind.ALLOW: _allow,
    LineKind.USAGE: _usage,
    LineKind.NO_TRAINING: _disallow,
    LineKind.RESERVATION: _reservation,
    LineKind.DIRECTIVES: _directives,
    LineKind.PREFERENCE: _preference,
}
_USAGES = frozenset(LineKind) - {LineKind.USER_AGENT, LineKind.DISALLOW, LineKind.ALLOW, LineKind.LICENSE}

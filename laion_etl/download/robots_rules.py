"""Parses robots.txt and applies its rules (RFC 9309, section 2.2).

Our own parser, because those that are published differ from the RFC where it matters to owners: they end a
group at lines that they do not know, or choke on a byte order mark. Where a file is not well-formed, a
`Disallow` is read as its author must have meant it (`Dissallow`, no colon, no leading slash, a whole URL,
quotes, two paths, non-breaking spaces); an `Allow` has to be right.

Rules without wildcards are found in a table by the beginning of the path, so a file of 25,000 lines costs a
link some microseconds. Those with wildcards are tried one by one.
"""

import re
from collections.abc import Iterable, Iterator

from laion_etl.download.path_patterns import (
    PathPattern,
    as_paths,
    begins_as_path,
    comparable_path,
    has_many_parts,
    parse_path_pattern,
)

_LINE = re.compile(rb"(user[ _-]?agent|[a-z-]+)\s*[:=\s]\s*(.*)\Z", re.IGNORECASE)
_LINE_END = re.compile(rb"[\r\n]+")
_USER_AGENT = frozenset({b"user-agent", b"useragent", b"user agent", b"user_agent"})
_DISALLOW = frozenset({b"disallow", b"dissallow", b"dissalow", b"disalow", b"diasllow", b"disallaw"})
_ALLOW = b"allow"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_NOT_SHOWN = re.compile(rb"\0|\xef\xbb\xbf|\xe2\x80\x8b")  # NUL, byte order mark, zero-width space
_NON_BREAKING_SPACE = b"\xc2\xa0"
_BETWEEN_NAMES = re.compile(r"[,;\s]+")
_MAX_NAMES = 100  # on one line

_TOKEN = re.compile(r"[A-Za-z0-9_.\-]+")
_COMPATIBLE = re.compile(r"\bcompatible;\s*(?!MSIE)([A-Za-z0-9_.\-]+)", re.IGNORECASE)
_PRODUCT = re.compile(r"(?<![A-Za-z0-9_.\-])([A-Za-z0-9_.\-]{1,100})/[0-9]")
_BROWSERS = frozenset(
    {
        "mozilla",
        "applewebkit",
        "chrome",
        "safari",
        "gecko",
        "firefox",
        "version",
        "mobile",
        "edg",
        "edge",
        "opr",
    }
    | {"opera", "trident", "presto", "chromium", "crios", "fxios"}
)

RobotsLine = tuple[bool, bytes]  # whether it allows, and its pattern as written

_Strength = tuple[int, bool]  # octets of the pattern, whether it allows: the greatest decides
_NO_RULE: _Strength = (-1, True)


def product_token(user_agent: str) -> str:
    """Returns the name by which robots.txt addresses a user agent (RFC 9309, 2.2.1); '' if it has none.

    That is the name before the first version: `MyBot` of `MyBot/1.0 (+url)`. A user agent that begins like a
    browser's is named by its comment, `MyBot` of `Mozilla/5.0 (compatible; MyBot/1.0; +url)`, or else by its
    first product that is not part of a browser, `MyBot` of `Mozilla/5.0 (MyBot/1.0; +url)`.
    """
    first = _TOKEN.match(user_agent.strip())
    name = first[0] if first else ""
    if name.lower() != "mozilla":
        return name
    if found := _COMPATIBLE.search(user_agent):
        return found[1]
    return next((one for one in _PRODUCT.findall(user_agent) if one.lower() not in _BROWSERS), name)


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
    """Returns the lines that are the rules for a product token; corrected, see above."""
    agent = agent.lower()
    own: list[RobotsLine] = []
    general: list[RobotsLine] = []
    names: set[str] = set()
    named = in_rules = False
    for key, value in _lines(body):
        if key in _USER_AGENT:
            if in_rules:
                names, in_rules = set(), False
            names |= _group_names(value)
            named = named or (agent != "" and agent in names)
        elif key == _ALLOW or key in _DISALLOW:
            in_rules = True
            rules = _allow(value) if key == _ALLOW else _disallow(value)
            if agent and agent in names:
                own += rules
            if "*" in names:
                general += rules
    return own if named else general


def _lines(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Returns names in lower case and values of all lines, without comments."""
    if body.startswith(_UTF_16_MARKS):
        body = body.decode("utf-16", "replace").encode()
    shown = _NOT_SHOWN.sub(b"", body).replace(_NON_BREAKING_SPACE, b" ")
    for line in _LINE_END.split(shown):
        found = _LINE.match(line.partition(b"#")[0].strip())
        if found:
            yield found[1].lower(), found[2].strip()


def _group_names(value: bytes) -> set[str]:
    """Returns the product tokens of a user-agent line, in lower case; some list several."""
    text = value.decode("ascii", "replace").replace('"', "").replace("'", "")
    names = [text] if "(" in text else _BETWEEN_NAMES.split(text, _MAX_NAMES)[:_MAX_NAMES]
    return {"*" if name == "*" else product_token(name).lower() for name in names}


def _allow(value: bytes) -> list[RobotsLine]:
    return [(True, value)] if begins_as_path(value) else []


def _disallow(value: bytes) -> list[RobotsLine]:
    return [(False, path) for path in as_paths(value.strip(b"\"'"))]

"""Targets for the wishes of owners: well-formed files mean what the standards say, and no way of keeping them
changes that."""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress

from laion_etl.download.host_facts import (
    FactKind,
    HostFact,
    HostRules,
    read_failure,
    read_rules,
    read_unreachable,
    rules_fact,
)
from laion_etl.download.robots_rules import RobotsRules, lines_for, parse_robots_txt
from laion_etl.download.tdmrep import compiled, is_reserved, parse_tdmrep, tdm_lines

_AGENT = "laion-etl"
_AGENTS = ("*", _AGENT, "other-bot", "laion-etl-2")
_PATH, _PATTERN = "/ab?", "/ab?*$"  # a path with dots is normalised
_MAX_RULES = 20
_MAX_CHARS = 30  # of a pattern: those with very many wildcards are cut off


def robots(data: bytes) -> None:
    """A path, a newline, robots.txt: an answer, which workers that share the file have, too."""
    given, _, text = data.partition(b"\n")
    path = "/" + given.decode("latin-1").lstrip("/")
    lines = lines_for(text, _AGENT)
    allowed = RobotsRules.from_lines(lines).allows(path)
    assert parse_robots_txt(text, _AGENT).allows(path) == allowed
    if (fact := rules_fact(HostRules(lines))) is not None:
        assert RobotsRules.from_lines(read_rules(fact).robots).allows(path) == allowed
    assert parse_robots_txt(b"", _AGENT).allows(path)
    if not (b"\0" in text or text.startswith((b"\xff\xfe", b"\xfe\xff"))):  # which may be UTF-16
        forbidden = parse_robots_txt(text + b"\nUser-agent: *\nUser-agent: " + _FORBIDDEN, _AGENT)
        assert not forbidden.allows("/a" * 99)


_FORBIDDEN = _AGENT.encode() + b"\nDisallow: " + b"/a" * 99 + b"\n"  # no usual pattern is more specific


def tdmrep(data: bytes) -> None:
    """A path, a newline, tdmrep.json: an answer, which workers that share the file have, too."""
    given, _, text = data.partition(b"\n")
    path = "/" + given.decode("latin-1").lstrip("/")
    reserved = is_reserved(parse_tdmrep(text), path)
    lines = tdm_lines(text)
    if (fact := rules_fact(HostRules((), lines))) is not None:
        assert is_reserved(compiled(read_rules(fact).tdm), path) == reserved


def groups(data: bytes) -> None:
    """A path and well-formed lines of robots.txt: the verdict of RFC 9309, section 2.2, taken literally."""
    given, *lines = data.split(b"\n")[: _MAX_RULES + 1]
    path = "/" + _letters(given, _PATH)
    written, rules, general, is_named = ["User-agent: *"], [], [], False
    agents, in_rules = {"*"}, False
    for line in lines:
        kind, rest = line[:1], line[1:]
        if kind >= b"\x80" or kind == b"u":
            agent = _AGENTS[len(rest) % len(_AGENTS)]
            agents, in_rules = ({agent} if in_rules else agents | {agent}), False
            is_named = is_named or agent == _AGENT
            written.append(f"User-agent: {agent}")
            continue
        allows, pattern = kind < b"a", "/" + _letters(rest, _PATTERN)
        in_rules = True
        written.append(f"{'Allow' if allows else 'Disallow'}: {pattern}")
        for agent, found in ((_AGENT, rules), ("*", general)):
            if agent in agents:
                found.append((pattern, allows))
    verdict = _longest(rules if is_named else general, path)
    assert parse_robots_txt("\n".join(written).encode(), _AGENT).allows(path) == verdict


def locations(data: bytes) -> None:
    """A path and well-formed rules of tdmrep.json: the first location that matches decides."""
    given, *lines = data.split(b"\n")[: _MAX_RULES + 1]
    path = "/" + _letters(given, _PATH)
    rules = [("/" + _letters(line[1:], _PATTERN), int(line[:1] < b"a")) for line in lines]
    document = [{"location": location, "tdm-reservation": one} for location, one in rules]
    verdict = next((one for location, one in rules if _matches(location, path)), 0)
    assert is_reserved(parse_tdmrep(json.dumps(document).encode()), path) == bool(verdict)


def _letters(data: bytes, alphabet: str) -> str:
    return "".join(alphabet[byte % len(alphabet)] for byte in data[:_MAX_CHARS])


def _longest(rules: Iterable[tuple[str, bool]], path: str) -> bool:
    found = [(len(_once(pattern)), allows) for pattern, allows in rules if _matches(pattern, path)]
    return max(found, default=(0, True))[1]


def _once(pattern: str) -> str:
    return re.sub(r"\*+", "*", pattern)


def _matches(pattern: str, path: str) -> bool:
    written = re.escape(_once(pattern).removesuffix("$")).replace(r"\*", ".*")
    return re.match(written + (r"\Z" if pattern.endswith("$") else ""), path, re.DOTALL) is not None


def facts(data: bytes) -> None:
    """What the database says of a host: ValueError, or what can be written and used."""
    for kind, read in _READERS.items():
        with suppress(ValueError):
            read(HostFact(kind, data))


def _use(fact: HostFact) -> None:
    rules = read_rules(fact)
    RobotsRules.from_lines(rules.robots).allows("/a")
    is_reserved(compiled(rules.tdm), "/a")
    if (again := rules_fact(rules)) is not None:
        assert read_rules(again) == rules


_READERS: dict[FactKind, Callable[[HostFact], object]] = {
    FactKind.RULES: _use,
    FactKind.UNREACHABLE: read_unreachable,
    FactKind.DEAD: read_failure,
}

WISHES: tuple[Callable[[bytes], None], ...] = (robots, tdmrep, groups, locations, facts)

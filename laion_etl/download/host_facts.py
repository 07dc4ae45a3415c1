"""What is known of an origin, in the form in which workers share it (shared_hosts.py).

Facts come from a database that other workers write to, and they handle hostile input. So every byte is
checked as untrusted input, and a fact that cannot be decoded is ignored: the file is fetched instead.

Rules are kept as the lines that concern our user agent, not as the file: 500 kB of other crawlers' groups are
some hundred bytes for us. What does not fit into MAX_CONTENT_BYTES is not shared.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from laion_etl.core.funnel import DownloadStatus
from laion_etl.core.plain_json import parse_json
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import Origin
from laion_etl.download.robots_rules import RobotsLine
from laion_etl.download.tdmrep import TdmLine

MAX_CONTENT_BYTES = 4_096  # as table host_fact checks
_MAX_PLAIN_BYTES = 64_000  # before compression: anything larger would not fit, and takes long to compress
_MESSAGE = re.compile(r"[ -~]{0,120}")
_LINES_FOLLOW = b"\n"  # behind a message
_STATUS_AND_MESSAGE = re.compile(rb"([a-z_]{1,40}) ([ -~]{0,120})")

# Failures that every worker would see. DNS failures are those of our own resolver, and each worker applies
# the rules for addresses itself.
SHARED_FAILURES = frozenset(
    {
        DownloadStatus.DNS_FAILED,
        DownloadStatus.CONNECT_FAILED,
        DownloadStatus.CONNECT_TIMEOUT,
        DownloadStatus.TLS_FAILED,
    }
)


class FactKind(IntEnum):
    """What a fact says; the numbers are those of table host_fact."""

    RULES = 1
    UNREACHABLE = 2  # robots.txt cannot be read: nothing may be fetched for now
    DEAD = 3


@dataclass(frozen=True, slots=True)
class HostFact:
    """One fact about an origin; `content` depends on the kind and may be anything until it is decoded."""

    kind: FactKind
    content: bytes


class HostKnowledge(Protocol):
    """The shared knowledge of hosts (`shared_hosts.SharedHosts`). `workers`: how many are at work."""

    workers: int

    def read(self, origins: Iterable[Origin]) -> Mapping[Origin, HostFact]:
        """Return what is known of origins."""

    def write(self, facts: Mapping[Origin, HostFact]) -> None:
        """Share what was found out."""


@dataclass(frozen=True, slots=True)
class HostRules:
    """The lines of robots.txt and tdmrep.json that concern us; none: everything is allowed."""

    robots: Sequence[RobotsLine] = ()
    tdm: Sequence[TdmLine] = ()


def rules_fact(rules: HostRules) -> HostFact | None:
    """Return rules as a fact; None if they are too large to be shared."""
    content = _packed(rules, MAX_CONTENT_BYTES)
    return None if content is None else HostFact(FactKind.RULES, content)


def _packed(rules: HostRules, max_bytes: int) -> bytes | None:
    if sum(len(value) for _, value in rules.robots) + sum(len(at) for at, _ in rules.tdm) > _MAX_PLAIN_BYTES:
        return None
    plain = {
        "robots": [("+" if allows else "-") + value.decode("latin-1") for allows, value in rules.robots],
        "tdm": [("+" if reserved else "-") + at.decode("latin-1") for at, reserved in rules.tdm],
    }
    content = zlib.compress(json.dumps(plain, separators=(",", ":")).encode())
    return content if len(content) <= max_bytes else None


def read_rules(fact: HostFact) -> HostRules:
    """Return the rules of a fact. Raises ValueError for what `rules_fact` cannot have written."""
    return _unpacked(fact.content)


def _unpacked(content: bytes) -> HostRules:
    inflate = zlib.decompressobj()
    try:
        # Bounded: an octet takes up to six characters, a line four more.
        text = inflate.decompress(content, 8 * _MAX_PLAIN_BYTES)
        plain = parse_json(text) if inflate.eof else None
    except zlib.error as error:
        raise ValueError(f"rules cannot be read: {error}") from error
    if not isinstance(plain, dict) or set(plain) != {"robots", "tdm"}:
        raise ValueError("rules are incomplete")
    robots, tdm = (_signed(plain[name]) for name in ("robots", "tdm"))
    if any(not value.startswith((b"/", b"*")) for _, value in robots):
        raise ValueError("a rule of robots.txt does not begin with / or *")
    return HostRules(robots, tuple((at, reserved) for reserved, at in tdm))


def _signed(lines: object) -> tuple[tuple[bool, bytes], ...]:
    """Return lines that begin with + or -, as whether it is + and the rest."""
    found = []
    for line in lines if isinstance(lines, list) else (None,):
        if not isinstance(line, str) or line[:1] not in ("+", "-"):
            raise ValueError("rules are not a list of lines that begin with a sign")
        found.append((line[0] == "+", line[1:].encode("latin-1")))  # UnicodeEncodeError is a ValueError
    return tuple(found)


def unreachable_fact(message: str, lines: Sequence[RobotsLine] = ()) -> HostFact | None:
    """Return the fact that robots.txt cannot be read, or only these lines; None if they are too large."""
    if not _MESSAGE.fullmatch(message):
        return None
    text = message.encode()
    if not lines:
        return HostFact(FactKind.UNREACHABLE, text)
    packed = _packed(HostRules(lines), MAX_CONTENT_BYTES - len(text) - 1)
    return None if packed is None else HostFact(FactKind.UNREACHABLE, text + _LINES_FOLLOW + packed)


def read_unreachable(fact: HostFact) -> tuple[str, HostRules]:
    """Return why robots.txt cannot be read, and the rules in what could be read of it. Raises ValueError."""
    message, follow, packed = fact.content.partition(_LINES_FOLLOW)
    text = message.decode("ascii")
    if not _MESSAGE.fullmatch(text):
        raise ValueError("a message has other characters than printable ASCII")
    return text, _unpacked(packed) if follow else HostRules()


def failure_fact(failure: LinkFailed) -> HostFact | None:
    """Return the failure of an origin as a fact; None if it says nothing about the origin itself."""
    if failure.status not in SHARED_FAILURES or not _MESSAGE.fullmatch(failure.message):
        return None
    return HostFact(FactKind.DEAD, f"{failure.status.value} {failure.message}".encode())


def read_failure(fact: HostFact) -> LinkFailed:
    """Return how an origin fails. Raises ValueError."""
    found = _STATUS_AND_MESSAGE.fullmatch(fact.content)
    if found is None:
        raise ValueError("it is not a status and a message")
    status = DownloadStatus(found[1].decode())
    if status not in SHARED_FAILURES:
        raise ValueError(f"{status.value} is not a failure of an origin")
    return LinkFailed(status, found[2].decode())

"""What the owner of a site says once for all of it: robots.txt (RFC 9309) and /.well-known/tdmrep.json.

Both are fetched once per origin and batch, before its first link. protego reads robots.txt: it is maintained,
knows wildcards, and matches them without regular expressions, so a hostile file costs no more than its size.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from protego import Protego

from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import Origin, RequestUrl, parse_request_url
from laion_etl.funnel import DownloadStatus

MAX_RULES_BYTES = 512_000  # RFC 9309, section 2.5: at least 500 KiB have to be read
_LARGE_BYTES = 20_000  # parsed in a thread from here on
_MAX_TDM_RULES = 1_000

Get = Callable[[RequestUrl], Awaitable[tuple[int, bytes]]]  # status and at most MAX_RULES_BYTES

# How a host fails whatever is asked for: the outcome of its links too.
_OF_THE_HOST = frozenset(
    {
        DownloadStatus.DNS_FAILED,
        DownloadStatus.RESOLVER_FAILED,
        DownloadStatus.ADDRESS_REFUSED,
        DownloadStatus.CONNECT_FAILED,
        DownloadStatus.CONNECT_TIMEOUT,
        DownloadStatus.TLS_FAILED,
    }
)


@dataclass(slots=True)
class _Rules:
    """Of one origin; `robots` None allows everything."""

    known: trio.Event = field(default_factory=trio.Event)
    complete: bool = False
    robots: Protego | None = None
    unreachable: bool = False  # robots.txt could not be read: everything is disallowed (section 2.3.1.4)
    tdm: tuple[tuple[str, bool], ...] = ()  # location pattern, reserved


class OriginRules:
    """The rules of all origins of a batch; `agent` is the product token robots.txt may name."""

    def __init__(self, agent: str, get: Get, *, robots_txt: bool, tdmrep: bool) -> None:
        self.requests = 0
        self._agent = agent
        self._get = get
        self._robots_txt = robots_txt
        self._tdmrep = tdmrep
        self._origins: dict[Origin, _Rules] = {}

    async def check(self, target: RequestUrl) -> None:
        """Raises LinkFailed when the owner does not want this path fetched or mined."""
        if not (self._robots_txt or self._tdmrep):
            return
        rules = await self._rules(target)
        if rules.unreachable:
            raise LinkFailed(DownloadStatus.OPTED_OUT_ROBOTS_TXT, "robots.txt unreachable")
        if rules.robots is not None and not rules.robots.can_fetch(target.url, self._agent):
            raise LinkFailed(DownloadStatus.OPTED_OUT_ROBOTS_TXT)
        if reserved(rules.tdm, target.path):
            raise LinkFailed(DownloadStatus.OPTED_OUT_TDM, "tdmrep.json")

    async def _rules(self, target: RequestUrl) -> _Rules:
        origin = target.origin
        while (rules := self._origins.get(origin)) is None or not rules.complete:
            if rules is not None:
                await rules.known.wait()
                if not rules.complete:
                    # Whoever asked was cut short: somebody else does it.
                    self._origins.pop(origin, None)
                continue
            rules = self._origins[origin] = _Rules()
            try:
                await self._fetch(target, rules)
                rules.complete = True
            finally:
                if not rules.complete:
                    self._origins.pop(origin, None)
                rules.known.set()
        return rules

    async def _fetch(self, target: RequestUrl, rules: _Rules) -> None:
        if self._robots_txt:
            rules.robots, rules.unreachable = await self._robots(parse_request_url("/robots.txt", target.url))
        if self._tdmrep and not rules.unreachable:
            rules.tdm = await self._tdm(parse_request_url("/.well-known/tdmrep.json", target.url))

    async def _robots(self, target: RequestUrl) -> tuple[Protego | None, bool]:
        """The rules, and whether the server failed to say."""
        answer = await self._answer(target)
        if isinstance(answer, LinkFailed):
            # A loop of redirects counts as "unavailable" (section 2.3.1.2), silence as "unreachable".
            return None, answer.status is not DownloadStatus.TOO_MANY_REDIRECTS
        status, body = answer
        if status >= 500 or status == 429:
            return None, True
        if status != 200 or not body.strip():
            return None, False
        text = body.decode(errors="replace")
        if len(body) < _LARGE_BYTES:
            return Protego.parse(text), False
        return await trio.to_thread.run_sync(Protego.parse, text), False

    async def _tdm(self, target: RequestUrl) -> tuple[tuple[str, bool], ...]:
        answer = await self._answer(target)
        if isinstance(answer, LinkFailed):
            return ()
        status, body = answer
        return parse_tdmrep(body) if status == 200 else ()

    async def _answer(self, target: RequestUrl) -> tuple[int, bytes] | LinkFailed:
        """Status and body of a file of rules; failures of the whole host are raised."""
        self.requests += 1
        try:
            return await self._get(target)
        except LinkFailed as failure:
            if failure.status in _OF_THE_HOST:
                raise
            return failure


def parse_tdmrep(body: bytes) -> tuple[tuple[str, bool], ...]:
    """Location patterns and whether they are reserved, in order; what is no such file says nothing."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(document, list):
        return ()
    return tuple(
        (rule["location"], str(rule.get("tdm-reservation")) == "1")
        for rule in document[:_MAX_TDM_RULES]
        if isinstance(rule, dict) and isinstance(rule.get("location"), str)
    )


def reserved(rules: tuple[tuple[str, bool], ...], path: str) -> bool:
    """Whether the first rule that matches the path reserves it; patterns are those of robots.txt."""
    return next((is_reserved for pattern, is_reserved in rules if matches(pattern, path)), False)


def matches(pattern: str, path: str) -> bool:
    """`*` stands for anything, `$` at the end for the end; else a pattern is a beginning (RFC 9309)."""
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

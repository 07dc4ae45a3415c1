"""Site-wide rules of owners: robots.txt (RFC 9309) and /.well-known/tdmrep.json (tdmrep.py).

Both are fetched once per origin and batch, before its first link. protego parses robots.txt: it is
maintained, supports wildcards, and matches them without regular expressions, so a hostile file costs no more
than its size.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from protego import Protego

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import Origin, RequestUrl, parse_request_url
from laion_etl.download.tdmrep import is_reserved, parse_tdmrep

MAX_POLICY_FILE_BYTES = 512_000  # RFC 9309, section 2.5: at least 500 KiB must be parsed
_LARGE_BYTES = 20_000  # larger files are parsed in a thread

Get = Callable[[RequestUrl], Awaitable[tuple[int, bytes]]]  # status and at most MAX_POLICY_FILE_BYTES

# Failures that are the same for every path of the host, so they are the outcome of its links too.
_HOST_FAILURES = frozenset(
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
class _OriginPolicy:
    """The rules of one origin; everything is allowed if `robots` is None."""

    known: trio.Event = field(default_factory=trio.Event)
    complete: bool = False
    robots: Protego | None = None
    unreachable: bool = False  # robots.txt could not be read: everything is disallowed (section 2.3.1.4)
    tdm: tuple[tuple[str, bool], ...] = ()  # location pattern, reserved


class RobotsPolicy:
    """The rules of all origins of a batch; `agent` is the product token that robots.txt may name."""

    def __init__(self, agent: str, get: Get, *, robots_txt: bool, tdmrep: bool) -> None:
        self.requests = 0
        self._agent = agent
        self._get = get
        self._robots_txt = robots_txt
        self._tdmrep = tdmrep
        self._origins: dict[Origin, _OriginPolicy] = {}

    async def check(self, target: RequestUrl) -> None:
        """Raises LinkFailed if the owner disallows fetching or mining this path."""
        if not (self._robots_txt or self._tdmrep):
            return
        policy = await self._policy(target)
        if policy.unreachable:
            raise LinkFailed(DownloadStatus.OPTED_OUT_ROBOTS_TXT, "robots.txt unreachable")
        if policy.robots is not None and not policy.robots.can_fetch(target.url, self._agent):
            raise LinkFailed(DownloadStatus.OPTED_OUT_ROBOTS_TXT)
        if is_reserved(policy.tdm, target.path):
            raise LinkFailed(DownloadStatus.OPTED_OUT_TDM, "tdmrep.json")

    async def _policy(self, target: RequestUrl) -> _OriginPolicy:
        origin = target.origin
        while (policy := self._origins.get(origin)) is None or not policy.complete:
            if policy is not None:
                await policy.known.wait()
                if not policy.complete:
                    # The task that fetched them was cancelled: fetch them here.
                    self._origins.pop(origin, None)
                continue
            policy = self._origins[origin] = _OriginPolicy()
            try:
                await self._fetch(target, policy)
                policy.complete = True
            finally:
                if not policy.complete:
                    self._origins.pop(origin, None)
                policy.known.set()
        return policy

    async def _fetch(self, target: RequestUrl, policy: _OriginPolicy) -> None:
        if self._robots_txt:
            policy.robots, policy.unreachable = await self._robots(
                parse_request_url("/robots.txt", target.url)
            )
        if self._tdmrep and not policy.unreachable:
            policy.tdm = await self._tdm(parse_request_url("/.well-known/tdmrep.json", target.url))

    async def _robots(self, target: RequestUrl) -> tuple[Protego | None, bool]:
        """Returns the rules, and whether robots.txt was unreachable."""
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
        """Returns status and body of a policy file. Raises LinkFailed if the whole host fails."""
        self.requests += 1
        try:
            return await self._get(target)
        except LinkFailed as failure:
            if failure.status in _HOST_FAILURES:
                raise
            return failure

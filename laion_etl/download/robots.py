"""Site-wide rules of owners: robots.txt (robots_rules.py) and /.well-known/tdmrep.json (tdmrep.py).

Both are fetched once per origin and batch, before its first link, unless another worker has shared them
(host_facts.py). What their answers mean is RFC 9309, section 2.3.1: rules are obeyed, a file that is
"unavailable" (4xx) forbids nothing, and a host whose robots.txt is "unreachable" (5xx, silence; also 429, 408
and other 4xx by which a server puts a request off) is left alone. Its owner did not ask for that, so
robots.txt is requested again first, and links lost this way have their own reason. So is a host whose
robots.txt is cut off; what came of it and forbids a path is the owner's wish.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar, TypeVarTuple

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.host_facts import (
    FactKind,
    HostFact,
    HostRules,
    read_rules,
    read_unreachable,
    rules_fact,
    unreachable_fact,
)
from laion_etl.download.http_head import is_passing, is_success
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.policy_file import MAX_POLICY_FILE_BYTES, PolicyFile, inflated
from laion_etl.download.request_url import Origin, RequestUrl
from laion_etl.download.robots_rules import RobotsLine, RobotsRules, lines_for
from laion_etl.download.tdmrep import TdmLine, TdmRules, compiled, is_reserved, tdm_lines
from laion_etl.settings import DownloadSettings

_LARGE_BYTES = 20_000  # larger files are parsed in a thread
_MANY_PARTS = 1_500  # of patterns, which take about a millisecond; more are compiled and tried in a thread
_FIRST_WAIT_S = 1.0  # before robots.txt is asked for again; doubles, and is spread by half

_Given = TypeVarTuple("_Given")
_Result = TypeVar("_Result")


class OtherHostFailed(LinkFailed):
    """A policy file is elsewhere by a redirect, and the other origin failed: no fault of the link's host."""


class RobotsUnreachable(LinkFailed):
    """robots.txt cannot be read now; asking again may help, after `retry_after_s` if that is known.

    `lines`: those that concern us in the part that could be read.
    """

    lines: Sequence[RobotsLine] = ()


Get = Callable[[RequestUrl], Awaitable[PolicyFile]]

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
    """The rules of one origin."""

    known: trio.Event = field(default_factory=trio.Event)
    complete: bool = False
    robots: RobotsRules | None = None  # None: everything is allowed
    unreachable: str = ""  # why robots.txt could not be read: everything is disallowed (section 2.3.1.4)
    tdm: TdmRules = ()
    slow: bool = False  # `refusal` may take milliseconds, so it belongs into a thread

    def compile(self, rules: HostRules) -> None:
        """Takes over the lines of the files."""
        self.robots = RobotsRules.from_lines(rules.robots)
        self.tdm = compiled(rules.tdm)
        self.slow = self.robots.tried_parts + sum(len(at.parts) for at, _ in self.tdm) > _MANY_PARTS

    def refusal(self, path: str) -> LinkFailed | None:
        """Returns why a path may not be fetched or mined; None if it may be."""
        if self.robots is not None and not self.robots.allows(path):
            return LinkFailed(DownloadStatus.OPTED_OUT_ROBOTS_TXT)
        if self.unreachable:
            return LinkFailed(DownloadStatus.ROBOTS_UNREACHABLE, self.unreachable)
        if is_reserved(self.tdm, path):
            return LinkFailed(DownloadStatus.OPTED_OUT_TDM, "tdmrep.json")
        return None


class RobotsPolicy:
    """The rules of all origins of a batch; `agent` is the product token that robots.txt may name."""

    def __init__(self, agent: str, get: Get, settings: DownloadSettings) -> None:
        self.requests = 0
        self.learned: dict[Origin, HostFact] | None = None  # what was fetched here, if that is shared
        self._known: dict[Origin, HostFact] = {}
        self._agent = agent
        self._get = get
        self._settings = settings
        self._origins: dict[Origin, _OriginPolicy] = {}

    def know(self, facts: Mapping[Origin, HostFact]) -> None:
        """Takes over what other workers have fetched; what is fetched from now on is kept in `learned`."""
        self._known = dict(facts)
        self.learned = {}

    async def check(self, target: RequestUrl) -> None:
        """Raises LinkFailed if the owner disallows fetching or mining this path, or may do so."""
        if not (self._settings.robots_txt or self._settings.tdmrep):
            return
        policy = await self._policy(target)
        refusal = await _run(policy.refusal, target.path, in_thread=policy.slow)
        if refusal is not None:
            raise refusal

    def known_refusal(self, target: RequestUrl) -> LinkFailed | None:
        """Returns why a URL is not requested, if that is known without a request and quickly found out."""
        policy = self._origins.get(target.origin)
        if policy is None or not policy.complete or policy.slow:
            return None
        return policy.refusal(target.path)

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
                if not await self._is_known(origin, policy):
                    await self._fetch(target, policy)
                policy.complete = True
            finally:
                if not policy.complete:
                    self._origins.pop(origin, None)
                policy.known.set()
        return policy

    async def _is_known(self, origin: Origin, policy: _OriginPolicy) -> bool:
        """Fills in the rules that another worker has shared; those that cannot be decoded are fetched."""
        fact = self._known.pop(origin, None)
        if fact is None:
            return False
        try:
            match fact.kind:
                case FactKind.RULES:
                    rules = read_rules(fact)
                    await _run(policy.compile, rules, in_thread=_is_long(rules))
                case FactKind.UNREACHABLE:
                    policy.unreachable, rules = read_unreachable(fact)
                    await _run(policy.compile, rules, in_thread=_is_long(rules))
                case _:
                    return False
        except ValueError:
            return False
        return True

    async def _fetch(self, target: RequestUrl, policy: _OriginPolicy) -> None:
        robots: Sequence[RobotsLine] = ()
        tdm: Sequence[TdmLine] = ()
        if self._settings.robots_txt:
            try:
                robots = await self._robots(target.at("/robots.txt"))
            except RobotsUnreachable as failure:
                policy.unreachable = failure.message
                rules = HostRules(failure.lines, ())
                await _run(policy.compile, rules, in_thread=_is_long(rules))
                self._learn(target.origin, unreachable_fact(failure.message, failure.lines))
                return
        if self._settings.tdmrep:
            tdm = await self._tdm(target.at("/.well-known/tdmrep.json"))
        await self._apply(HostRules(robots, tdm), target.origin, policy)

    async def _apply(self, rules: HostRules, origin: Origin, policy: _OriginPolicy) -> None:
        """Compiles the rules, in a thread if there are many."""

        def work() -> HostFact | None:
            policy.compile(rules)
            return rules_fact(rules) if self.learned is not None else None

        self._learn(origin, await _run(work, in_thread=_is_long(rules)))

    def _learn(self, origin: Origin, fact: HostFact | None) -> None:
        if self.learned is not None and fact is not None:
            self.learned[origin] = fact

    async def _robots(self, target: RequestUrl) -> Sequence[RobotsLine]:
        """Returns the lines that concern us, after some tries if necessary. Raises RobotsUnreachable."""
        wait_s = _FIRST_WAIT_S
        for _ in range(self._settings.retries):
            try:
                return await self._robots_once(target)
            except RobotsUnreachable as failure:
                asked_s = failure.retry_after_s
                if asked_s is not None and asked_s > self._settings.longest_wait_s:
                    raise
            # Many downloaders may wait for the same host: they do not come back all at once.
            await trio.sleep((asked_s or 0) + wait_s * random.uniform(0.5, 1.5))  # noqa: S311
            wait_s *= 2
        return await self._robots_once(target)

    async def _robots_once(self, target: RequestUrl) -> Sequence[RobotsLine]:
        try:
            answer = await self._answer(target)
        except LinkFailed as failure:
            if failure.status is DownloadStatus.TOO_MANY_REDIRECTS:
                return ()  # "unavailable" (section 2.3.1.2)
            if _is_own(failure):
                raise
            raise _unreachable(failure) from failure
        if is_passing(answer.status) or answer.status >= 500:
            raise RobotsUnreachable(
                DownloadStatus.ROBOTS_UNREACHABLE, str(answer.status), answer.retry_after_s
            )
        body = answer.body
        if not is_success(answer.status) or not (body.strip() or answer.cut_off):
            return ()
        if len(body) >= MAX_POLICY_FILE_BYTES:
            body = body[: body.rfind(b"\n") + 1]  # half a line may say something else
        lines = await _run(lines_for, body, self._agent, in_thread=len(body) >= _LARGE_BYTES)
        if answer.cut_off:  # rules may be missing
            cut_off = RobotsUnreachable(DownloadStatus.ROBOTS_UNREACHABLE, "cut off")
            cut_off.lines = lines
            raise cut_off
        return lines

    async def _tdm(self, target: RequestUrl) -> Sequence[TdmLine]:
        try:
            answer = await self._answer(target)
        except LinkFailed as failure:
            if _is_own(failure):
                raise
            return ()
        if not is_success(answer.status):
            return ()
        return await _run(tdm_lines, answer.body, in_thread=len(answer.body) >= _LARGE_BYTES)

    async def _answer(self, target: RequestUrl) -> PolicyFile:
        self.requests += 1
        return inflated(await self._get(target))


def _is_own(failure: LinkFailed) -> bool:
    """Whether the whole host of the link fails, not only its policy file."""
    return failure.status in _HOST_FAILURES and not isinstance(failure, OtherHostFailed)


def _unreachable(failure: LinkFailed) -> RobotsUnreachable:
    cause = f"{failure.status.value} {failure.message}".rstrip()
    where = "redirect: " if isinstance(failure, OtherHostFailed) else ""
    return RobotsUnreachable(DownloadStatus.ROBOTS_UNREACHABLE, where + cause)


def _is_long(rules: HostRules) -> bool:
    """Whether it takes milliseconds to compile rules."""
    patterns = chain((at for _, at in rules.robots), (at for at, _ in rules.tdm))
    return sum(1 + at.count(b"*") for at in patterns) > _MANY_PARTS


async def _run(work: Callable[[*_Given], _Result], *given: *_Given, in_thread: bool) -> _Result:
    return await trio.to_thread.run_sync(work, *given) if in_thread else work(*given)

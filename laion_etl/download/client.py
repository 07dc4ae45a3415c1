"""The HTTP client: one GET per link over trio, with every hop checked and every resource bounded.

Redirects are followed here, hop by hop: each one is parsed, resolved, checked against the address policy
and robots.txt, and waits for a request slot like a first request. No cookies, authentication or referrer.
"""

from collections.abc import Mapping
from contextlib import suppress

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.content_encoding import ContentDecoder, content_decoder, next_part
from laion_etl.download.deadlines import BROKEN, RequestDeadline, retry_after_s
from laion_etl.download.header_opt_outs import refuse_opted_out
from laion_etl.download.host_facts import FactKind, HostFact, failure_fact, read_failure
from laion_etl.download.http_head import Head, is_part, is_passing, is_success, is_whole, location_of
from laion_etl.download.image_header import (
    CONTAINER_HEAD_BYTES,
    ImageRules,
    other_format,
    refused_by_beginning,
)
from laion_etl.download.link_failed import IN_A_CIRCLE, LinkFailed
from laion_etl.download.memory_budget import BufferedBody, MemoryBudget
from laion_etl.download.nameservers import StubSource, parse_servers, system_servers
from laion_etl.download.policy_file import MAX_POLICY_FILE_BYTES, PolicyFile
from laion_etl.download.politeness import HostLimiter, RequestSlot
from laion_etl.download.pool import Pool, PooledConnection
from laion_etl.download.request_url import Origin, RequestUrl, parse_request_url
from laion_etl.download.resolver import Resolver, Source, SystemSource
from laion_etl.download.robots import OtherHostFailed, RobotsPolicy
from laion_etl.download.robots_names import product_token
from laion_etl.download.ssrf import AddressPolicy
from laion_etl.download.timings import BatchTimings
from laion_etl.settings import DownloadSettings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_POLICY_REDIRECTS = _REDIRECTS | {300}  # which browsers do not follow for an image
_NOT_HERE = frozenset({408, 421})  # on a kept connection: ask on a new one (RFC 9110, 15.5.9 and 15.5.20)
_DRAINED_BYTES, _DRAINED_S = 262_144, 1.0  # of an unwanted response, so that its connection can be reused
_BODIES_BUDGET_BYTES = 256_000_000  # shared by all bodies held in memory at once
_SNIFFED_BYTES = 65_536  # of a body, at most, for its format and size


class Client:
    """Fetches the links of one batch, within one trio run."""

    def __init__(self, settings: DownloadSettings, timings: BatchTimings | None = None) -> None:
        self._settings = settings
        self.timings = timings or BatchTimings()
        self.resolver = Resolver(
            _sources(settings),
            AddressPolicy(settings.allow_networks),
            settings.resolve_timeout_s,
            settings.connect_to,
        )
        self.hosts = HostLimiter(settings, lambda host: self.resolver.override(host) is not None)
        self.pool = Pool(settings, self.resolver, self.timings)
        self.policy = RobotsPolicy(product_token(settings.user_agent), self._fetch_policy_file, settings)
        self._image_rules = ImageRules.from_settings(settings)
        self._budget = MemoryBudget(_BODIES_BUDGET_BYTES)

    def know(self, facts: Mapping[Origin, HostFact]) -> None:
        """Takes over what other workers know of hosts; call it before the first request."""
        failures = {}
        for origin, fact in facts.items():
            if fact.kind is FactKind.DEAD:
                with suppress(ValueError):  # ignore facts that cannot be decoded
                    failures[origin] = read_failure(fact)
        self.hosts.know(failures)
        self.policy.know({origin: fact for origin, fact in facts.items() if fact.kind is not FactKind.DEAD})

    def learned(self) -> dict[Origin, HostFact]:
        """Returns what was found out about hosts, without what other workers knew."""
        failed = {origin: failure_fact(failure) for origin, failure in self.hosts.learned().items()}
        dead = {origin: fact for origin, fact in failed.items() if fact is not None}
        return dead | (self.policy.learned or {})

    async def fetch(self, target: RequestUrl, slot: RequestSlot | None = None) -> BufferedBody:
        """Returns the body behind a link, at most `max_bytes`. It looks like an image but is not decoded.

        `slot` is the request slot for the first host, if the caller already holds one. The caller must
        release the body. Raises LinkFailed with the status and a short message.
        """
        spent_s = 0.0
        requested: set[tuple[Origin, str]] = set()
        for _ in range(self._settings.max_redirects + 1):
            requested.add((target.origin, target.path))
            if slot is None:
                self.pool.check_port(target)
                if (refusal := self.policy.known_refusal(target)) is not None:
                    raise refusal
                slot = await self.hosts.enter(self.hosts.origin_state(target))
            with slot:
                state = slot.state
                try:
                    await self.policy.check(target)
                    deadline = RequestDeadline(self._settings, self._settings.timeout_s - spent_s)
                    found = await self._hop(target, deadline)
                except LinkFailed as failure:
                    state.failed(failure, self._settings.longest_wait_s)
                    raise
                spent_s = deadline.spent_s
                state.succeeded()
            if isinstance(found, BufferedBody):
                self.timings.total.append(spent_s)
                return found
            target, slot = found, None
        raise LinkFailed(
            DownloadStatus.TOO_MANY_REDIRECTS,
            IN_A_CIRCLE if (target.origin, target.path) in requested else "",
        )

    async def _hop(self, target: RequestUrl, deadline: RequestDeadline) -> BufferedBody | RequestUrl:
        """Makes one request. Returns the body, or the URL of a redirect."""
        connection, head = await self._send(target, deadline)
        try:
            with deadline.enforce():
                location = location_of(head) if head.status in _REDIRECTS else ""
                if not location and head.status != 200 and not is_whole(head):
                    # an error page speaks for itself, not for the image
                    raise LinkFailed(DownloadStatus.HTTP_ERROR, str(head.status), _wait_s(head))
                if self._settings.opt_out:
                    refuse_opted_out(head)
                if location:
                    return parse_request_url(location, target.url)
                return await self._body(connection, head, deadline)
        finally:
            await self._finish(target, connection, deadline)

    async def _finish(
        self, target: RequestUrl, connection: PooledConnection, deadline: RequestDeadline
    ) -> None:
        """Gives the connection back. A short body that is not wanted is read first, so it can be reused."""
        try:
            if not connection.reusable and not deadline.expired:
                with trio.move_on_after(_DRAINED_S), suppress(LinkFailed, *BROKEN):
                    await connection.drain(_DRAINED_BYTES)
        finally:
            await self.pool.give_back(target.origin, connection)

    async def _send(self, target: RequestUrl, deadline: RequestDeadline) -> tuple[PooledConnection, Head]:
        """Sends the request. Returns the connection and the head of its response.

        An idle connection is replaced if the server has closed it, or does not answer this request there.
        """
        message = _message(target, self._settings.user_agent)
        while True:
            connection = await self.pool.take(target, deadline)
            started, stale = trio.current_time(), connection.used
            try:
                with deadline.enforce():
                    head = await connection.request(message, deadline)
            except LinkFailed as failure:
                await connection.stream.close()
                if not stale or failure.status is not DownloadStatus.BAD_RESPONSE:
                    raise
            except BaseException:
                await connection.stream.close()
                raise
            else:
                if stale and head.status in _NOT_HERE:
                    await connection.stream.close()
                    continue
                self.timings.first_byte.append(deadline.answered_at - started)
                self.hosts.prove(self.hosts.origin_state(target))
                return connection, head

    async def _body(
        self, connection: PooledConnection, head: Head, deadline: RequestDeadline
    ) -> BufferedBody:
        settings = self._settings
        length, codings = connection.framing.length, _codings(connection, head)
        if length is not None and length > settings.max_bytes:
            raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
        if length is not None and not codings and length < settings.min_bytes:
            raise LinkFailed(DownloadStatus.TOO_FEW_BYTES)
        decode = content_decoder(codings, settings.max_bytes)
        body = BufferedBody(self._budget)
        try:
            await self._read(connection, decode, body, deadline)
            if settings.opt_out and connection.trailers is not None:
                refuse_opted_out(connection.trailers)
        except BaseException:
            body.release()
            body.clear()  # which an error, and the cycle that it is in, would keep for a while
            raise
        return body

    async def _read(
        self,
        connection: PooledConnection,
        decode: ContentDecoder,
        body: BufferedBody,
        deadline: RequestDeadline,
    ) -> None:
        sniffed: int | None = 0  # bytes that the last look at the beginning covered; None once it is accepted
        part = b"first"
        while part:
            part = await next_part(connection, decode)
            for data in decode(part) if part else decode.finish():
                body.add(data)
                if body.size > self._settings.max_bytes:
                    raise LinkFailed(DownloadStatus.TOO_MANY_BYTES)
                if sniffed is not None and body.size >= 2 * sniffed:
                    sniffed = self._sniff(body)
            if body.needs_budget:
                with deadline.paused():
                    await body.acquire()
        self.timings.bytes += body.size
        if body.size < self._settings.min_bytes:
            raise LinkFailed(DownloadStatus.TOO_FEW_BYTES)

    def _sniff(self, body: BufferedBody) -> int | None:
        """Raises LinkFailed for what is not a wanted image. Returns the bytes seen, or None once accepted."""
        found = refused_by_beginning(body.beginning(_SNIFFED_BYTES), self._image_rules)
        if isinstance(found, DownloadStatus):
            raise LinkFailed(found, other_format(body.beginning(CONTAINER_HEAD_BYTES)))
        return body.size if found and body.size < _SNIFFED_BYTES else None

    async def _fetch_policy_file(self, target: RequestUrl) -> PolicyFile:
        """Returns robots.txt or tdmrep.json, following redirects."""
        origin = target.origin
        for _ in range(self._settings.max_redirects + 1):
            try:
                found = await self._policy_file_hop(target)
            except LinkFailed as failure:
                if target.origin == origin:
                    raise
                raise OtherHostFailed(failure.status, failure.message) from failure
            if isinstance(found, PolicyFile):
                return found
            target = found
        raise LinkFailed(DownloadStatus.TOO_MANY_REDIRECTS)

    async def _policy_file_hop(self, target: RequestUrl) -> PolicyFile | RequestUrl:
        deadline = RequestDeadline(self._settings, self._settings.timeout_s)
        connection, head = await self._send(target, deadline)
        text, cut_off = bytearray(), True
        try:
            with deadline.enforce():
                if location := location_of(head) if head.status in _POLICY_REDIRECTS else "":
                    return parse_request_url(location, target.url)
                cut_off = await self._read_text(connection, head, text)
        except LinkFailed:
            if not text:
                raise
        finally:
            await self._finish(target, connection, deadline)
        return PolicyFile(head.status, bytes(text), _wait_s(head), cut_off)

    async def _read_text(self, connection: PooledConnection, head: Head, text: bytearray) -> bool:
        """Reads up to MAX_POLICY_FILE_BYTES of a body. Returns whether it ended before its end."""
        if not is_success(head.status):
            return False
        part = b"first"
        decode = content_decoder(_codings(connection, head), MAX_POLICY_FILE_BYTES)
        while part and len(text) < MAX_POLICY_FILE_BYTES:
            part = await next_part(connection, decode, len(text))
            for data in decode(part) if part else decode.finish():
                text += data[: MAX_POLICY_FILE_BYTES - len(text)]
                if len(text) >= MAX_POLICY_FILE_BYTES:
                    return False
        return is_part(head) or decode.unfinished


def _wait_s(head: Head) -> float | None:
    """Returns the seconds after which a server that puts us off wants to be asked again, if it says so."""
    return retry_after_s(head.all("retry-after")) if is_passing(head.status) else None


def _codings(connection: PooledConnection, head: Head) -> list[str]:
    """Returns what was applied to the body, in order."""
    return head.listed("content-encoding") + list(connection.framing.codings)


def _message(target: RequestUrl, user_agent: str) -> bytes:
    """Builds a GET request (RFC 9112, section 3). A parsed URL is ASCII without spaces: nothing to escape."""
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {user_agent}",
        "Accept: image/jpeg, image/png, image/webp, image/*;q=0.5",
        "Accept-Encoding: identity",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii", "replace")


def _sources(settings: DownloadSettings) -> list[Source]:
    """Returns the sources of addresses in the order they are tried: the configured one first."""
    system = SystemSource()
    if servers := parse_servers(settings.nameservers):
        return [StubSource(servers), system]
    found = system_servers()
    return [system, StubSource(found)] if found else [system]

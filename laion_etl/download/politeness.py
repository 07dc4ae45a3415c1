"""Per-host and per-domain politeness: concurrency, request rate, back-off, dead hosts.

An origin (scheme, host, port) that has not answered yet gets one request at a time, so that a thousand links
of a dead host cost one timeout: the failure of the first is the outcome of the rest.

Where workers share a database (shared_hosts.py), each takes its share of the requests that a host may get
from all of them together.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.request_url import Origin, RequestUrl
from laion_etl.download.server_errors import ServerErrors
from laion_etl.settings import DownloadSettings
from laion_etl.urls.public_suffix import registered_domain

_STRIKES = 3  # consecutive timeouts after which an origin is given up
_MAX_FAILED = 0.5  # share of a batch's origins: beyond it the worker's own network is broken
_RESOLVER_TRIES = 3
_RESOLVER_WAIT_S = 4.0  # longer than the resolver caches its own failures

_ABOUT_THE_NAME = frozenset({DownloadStatus.DNS_FAILED, DownloadStatus.ADDRESS_REFUSED})
_ABOUT_THE_ORIGIN = frozenset(
    {DownloadStatus.CONNECT_FAILED, DownloadStatus.CONNECT_TIMEOUT, DownloadStatus.TLS_FAILED}
)


@dataclass(slots=True)
class _RateLimit:
    """Limits of a host or a registered domain: requests at once, and seconds between their starts."""

    max_active: int
    interval_s: float
    active: int = 0
    next_at: float = -math.inf

    @property
    def full(self) -> bool:
        return self.active >= self.max_active

    def begin(self, now: float) -> None:
        self.active += 1
        self.next_at = max(now, self.next_at) + self.interval_s


@dataclass(slots=True)
class HostState:
    """State of one host name or address of the batch."""

    name: str
    limit: _RateLimit
    domain: _RateLimit
    waiting: int = 0  # redirects waiting for a slot
    freed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    failure: LinkFailed | None = None
    resolver_failures: int = 0

    @property
    def full(self) -> bool:
        return self.limit.full or self.domain.full

    @property
    def next_at(self) -> float:
        """When the next request may start (trio time)."""
        return max(self.limit.next_at, self.domain.next_at)

    def pause(self, seconds: float) -> None:
        """Starts no request to the host for a while."""
        self.limit.next_at = max(self.limit.next_at, trio.current_time() + seconds)


@dataclass(slots=True)
class OriginState:
    """State of one origin of the batch: what is known about the server behind it."""

    origin: Origin
    host: HostState
    proven: bool = False  # has answered in HTTP
    delivers: bool = False  # a link of it has led to what looks like an image
    active: int = 0
    strikes: int = 0
    server_errors: ServerErrors = field(default_factory=ServerErrors)
    _failure: LinkFailed | None = None

    @property
    def failure(self) -> LinkFailed | None:
        """Why the origin has been given up, if it has."""
        return self._failure or self.host.failure

    @property
    def full(self) -> bool:
        return self.host.full or (self.active > 0 and not self.proven)

    def succeeded(self) -> None:
        self.strikes = self.server_errors.count = 0

    def failed(self, failure: LinkFailed, max_wait_s: float) -> None:
        """Records how a request failed; later links of the origin may fail with it or have to wait."""
        status = failure.status
        if status in _ABOUT_THE_NAME:
            self.host.failure = failure
        elif status is DownloadStatus.RESOLVER_FAILED:
            self.host.resolver_failures += 1
            self.host.pause(_RESOLVER_WAIT_S)
            if self.host.resolver_failures >= _RESOLVER_TRIES:
                self.host.failure = failure
        elif status in _ABOUT_THE_ORIGIN or status is DownloadStatus.TIMEOUT:
            self.strikes += 1
            if self.strikes >= (_STRIKES if self.proven or status is DownloadStatus.TIMEOUT else 1):
                self._failure = failure
        else:
            self.strikes = 0
        now = trio.current_time()
        answer = int(failure.message) if status is DownloadStatus.HTTP_ERROR else 0
        self.server_errors.add(answer, now)
        wait_s = failure.retry_after_s or 0.0
        if self.server_errors.are_lasting(answer, now) or wait_s > max_wait_s:
            self._failure = failure
        elif wait_s := max(wait_s, self.server_errors.pause_s(answer, now, max_wait_s)):
            self.host.pause(wait_s)


class RequestSlot:
    """The right to make one request to an origin, until the `with` block ends."""

    def __init__(self, hosts: "HostLimiter", state: OriginState) -> None:
        self._hosts = hosts
        self.state = state

    def __enter__(self) -> "RequestSlot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hosts.leave(self.state)


class HostLimiter:
    """Limits of all hosts of one batch. `on_free` is called whenever an origin can take another request."""

    def __init__(self, settings: DownloadSettings, is_test_endpoint: Callable[[str], bool]) -> None:
        self._settings = settings
        self._is_test_endpoint = is_test_endpoint  # hosts that `connect_to` maps elsewhere: no rate limit
        self._hosts: dict[str, HostState] = {}
        self._domains: dict[str, _RateLimit] = {}
        self._states: dict[Origin, OriginState] = {}
        self._known_failures: Mapping[Origin, LinkFailed] = {}
        self._workers = 1
        self._began: float | None = None
        self.on_free: Callable[[OriginState], None] = lambda _: None

    def __len__(self) -> int:
        return len(self._hosts)

    def origin_state(self, target: RequestUrl) -> OriginState:
        origin = target.origin
        found = self._states.get(origin)
        if found is None:
            known = self._known_failures.get(origin)
            found = self._states[origin] = OriginState(
                origin, self._host(target.host.removesuffix(".")), _failure=known
            )
        return found

    def know(self, failures: Mapping[Origin, LinkFailed]) -> None:
        """Takes over failures of origins that other workers have tried; call it before the first request."""
        self._known_failures = failures

    def learned(self) -> dict[Origin, LinkFailed]:
        """Returns the failures of origins that this worker has tried itself and that have never answered.

        Returns none if most origins failed: then the network of this worker is broken.
        """
        tried = {
            origin: state for origin, state in self._states.items() if origin not in self._known_failures
        }
        failed = {
            origin: state.failure
            for origin, state in tried.items()
            if state.failure is not None and not state.proven
        }
        return failed if len(failed) <= _MAX_FAILED * len(tried) else {}

    def begin(self, workers: int, now: float) -> None:
        """Sets this worker's share before the first request: others may start with the same hosts now."""
        self.divide(workers)
        self._began = now

    def divide(self, workers: int) -> None:
        """Sets this worker's share of what a host may get from all workers."""
        if workers == self._workers:
            return
        self._workers = workers
        for host in self._hosts.values():
            if not self._is_test_endpoint(host.name):
                host.limit.interval_s = self._host_interval_s
                host.domain.interval_s = self._domain_interval_s

    @property
    def _host_interval_s(self) -> float:
        settings = self._settings
        return _interval(settings.requests_per_host_s, settings.fleet_requests_per_host_s, self._workers)

    @property
    def _max_delay_s(self) -> float:
        """Longest wait before the first request to a host; 0 if a worker may use its own limit in full."""
        own_s = _interval(self._settings.requests_per_host_s, 0.0, 1)
        return self._host_interval_s if self._host_interval_s > own_s else 0.0

    @property
    def _domain_interval_s(self) -> float:
        settings = self._settings
        return _interval(settings.requests_per_domain_s, settings.fleet_requests_per_domain_s, self._workers)

    def _host(self, name: str) -> HostState:
        host = self._hosts.get(name)
        if host is None:
            is_test = self._is_test_endpoint(name)
            interval_s = 0.0 if is_test else self._host_interval_s
            limit = _RateLimit(self._settings.connections_per_host, interval_s)
            if self._began is not None and not is_test:
                limit.next_at = self._began + random.uniform(0, self._max_delay_s)  # noqa: S311
            host = self._hosts[name] = HostState(name, limit, self._domain(name, is_test=is_test))
        return host

    def _domain(self, host: str, *, is_test: bool) -> _RateLimit:
        name = registered_domain(host)
        domain = self._domains.get(name)
        if domain is None:
            max_active = self._settings.connections if is_test else self._settings.connections_per_domain
            interval_s = 0.0 if is_test else self._domain_interval_s
            domain = self._domains[name] = _RateLimit(max_active or 1_000_000, interval_s)
        return domain

    def try_enter(self, state: OriginState, now: float) -> RequestSlot | None:
        """Returns a slot if one is available right now, else None."""
        if state.full or state.host.next_at > now or state.host.waiting:
            return None
        return self._enter(state, now)

    async def enter(self, state: OriginState) -> RequestSlot:
        """Waits for a slot. Raises LinkFailed if the origin has been given up."""
        host = state.host
        host.waiting += 1
        try:
            while True:
                if state.failure is not None:
                    raise state.failure.again()
                now = trio.current_time()
                if not state.full and host.next_at <= now:
                    return self._enter(state, now)
                if state.full:
                    # If the domain is what is full, another host may free it: wake up now and then.
                    with trio.move_on_after(0.2):
                        await host.freed.park()
                else:
                    await trio.sleep_until(host.next_at)
        finally:
            host.waiting -= 1

    def _enter(self, state: OriginState, now: float) -> RequestSlot:
        state.active += 1
        state.host.limit.begin(now)
        state.host.domain.begin(now)
        return RequestSlot(self, state)

    def prove(self, state: OriginState) -> None:
        """Records that the origin has answered: it may get several requests at once from now on."""
        if not state.proven:
            state.proven = True
            self.on_free(state)

    def leave(self, state: OriginState) -> None:
        state.active -= 1
        state.host.limit.active -= 1
        state.host.domain.active -= 1
        state.host.freed.unpark()
        self.on_free(state)


def _interval(own_per_second: float, fleet_per_second: float, workers: int) -> float:
    """Returns the seconds between requests of this worker, by its own limit and by its share."""
    own_s = 1 / own_per_second if own_per_second else 0.0
    share_s = workers / fleet_per_second if fleet_per_second else 0.0
    return max(own_s, share_s)

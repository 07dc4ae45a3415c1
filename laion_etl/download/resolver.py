"""Resolves host names to checked addresses, with one lookup per host whatever the number of its links.

The first source is asked, and the next one if that fails: nameservers over UDP and TCP
(`nameservers.py`) and the system's getaddrinfo in threads. "No such name" is an answer; a failure of all
sources says nothing about the host, and is never mistaken for a dead host. The number of parallel lookups
adapts to the resolver: one more after each fast answer, half when it fails.
"""

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Protocol

import trio

from laion_etl.core.funnel import DownloadStatus
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.ssrf import AddressPolicy

_START_LOOKUPS, _MIN_LOOKUPS, _MAX_LOOKUPS = 32, 4, 256
_FAST_S = 1.0
_BACK_OFF_S = 1.0  # the limit is halved at most this often
_SYSTEM_TTL_S = 300.0  # getaddrinfo does not return a TTL
_MIN_TTL_S, _MAX_TTL_S = 60.0, 3_600.0
_NO_NAME_TTL_S = 900.0
_TROUBLE_TTL_S = 3.0  # then another link of the host triggers a new lookup

Endpoint = tuple[str, int]  # address literal, port


class NoSuchName(Exception):  # noqa: N818 - an answer
    """The name does not exist, or has no address."""


class ResolverTrouble(Exception):  # noqa: N818 - an outcome of one try
    """The source gave no answer: it was silent, refused, or failed."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The answer of a source, and for how many seconds it is valid."""

    literals: tuple[str, ...]
    ttl_s: float


class Source(Protocol):
    """Looks up host names. Raises NoSuchName or ResolverTrouble."""

    async def look_up(self, host: str) -> Addresses: ...


class SystemSource:
    """getaddrinfo in threads; the caller limits how many run at once.

    Names are looked up as absolute ones: otherwise each name that does not exist is looked up again with
    every suffix of the machine's search list (in a pod, five times as many queries), and a link could name a
    host of the private network.
    """

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(_MAX_LOOKUPS)
        self._family = socket.AF_UNSPEC if has_ipv6() else socket.AF_INET

    async def look_up(self, host: str) -> Addresses:
        try:
            found = await trio.to_thread.run_sync(
                socket.getaddrinfo,
                host if host.endswith(".") else f"{host}.",
                None,
                self._family,
                socket.SOCK_STREAM,
                abandon_on_cancel=True,
                limiter=self._threads,
            )
        except socket.gaierror as error:
            if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM, socket.EAI_MEMORY):
                raise ResolverTrouble(str(error)) from error
            raise NoSuchName from error
        except (UnicodeError, ValueError) as error:
            raise NoSuchName from error
        return Addresses(tuple(dict.fromkeys(str(entry[4][0]) for entry in found)), _SYSTEM_TTL_S)


def has_ipv6() -> bool:
    """Whether this machine has a route to the IPv6 internet, found out without sending a packet."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2000::1", 53))
    except OSError:
        return False
    return True


@dataclass(slots=True)
class _Lookup:
    """A lookup that is running or finished."""

    done: trio.Event
    addresses: tuple[str, ...] = ()
    failure: LinkFailed | None = None
    expires: float = math.inf

    @property
    def finished(self) -> bool:
        return bool(self.addresses) or self.failure is not None


class Resolver:
    """Finds the addresses that a link may connect to. `connect_to`: see the setting of that name.

    `times_s` are the durations of the lookups that were answered.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policy: AddressPolicy,
        timeout_s: float,
        connect_to: Sequence[str] = (),
    ) -> None:
        self.times_s: list[float] = []
        self.lookups = 0
        self.troubles = 0
        self._sources = sources
        self._policy = policy
        self._timeout_s = timeout_s
        self._overrides = [_override(entry) for entry in connect_to]
        self._lookups: dict[str, _Lookup] = {}
        self._limit = trio.CapacityLimiter(_START_LOOKUPS)
        self._halved = -math.inf

    def override(self, host: str) -> Endpoint | None:
        """Returns the endpoint that the settings map a host to; it is exempt from the address policy."""
        for pattern, endpoint in self._overrides:
            if fnmatchcase(host.removesuffix("."), pattern):
                return endpoint
        return None

    @property
    def concurrency(self) -> int:
        """The current limit on parallel lookups."""
        return int(self._limit.total_tokens)

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Returns the allowed addresses of a host name or literal, in their order. Raises LinkFailed."""
        while True:
            lookup = self._lookups.get(host)
            if lookup is None or trio.current_time() >= lookup.expires:
                await self._look_up(host)
                continue
            await lookup.done.wait()
            if lookup.failure is not None:
                raise lookup.failure.again()
            if lookup.addresses:
                return lookup.addresses
            # The task that did the lookup was cancelled: do it here.

    async def _look_up(self, host: str) -> None:
        lookup = self._lookups[host] = _Lookup(trio.Event())
        ttl_s = 0.0
        try:
            lookup.addresses, ttl_s = await self._allowed_addresses(host)
        except LinkFailed as failure:
            lookup.failure = failure
            trouble = failure.status is DownloadStatus.RESOLVER_FAILED
            ttl_s = _TROUBLE_TTL_S if trouble else _NO_NAME_TTL_S
        finally:
            lookup.expires = trio.current_time() + ttl_s
            if not lookup.finished:
                del self._lookups[host]
            lookup.done.set()

    async def _allowed_addresses(self, host: str) -> tuple[tuple[str, ...], float]:
        found = _literal(host) or _own_name(host) or await self._ask(host)
        allowed = tuple(address for address in found.literals if self._policy.allows(address))
        if not allowed:
            raise LinkFailed(DownloadStatus.ADDRESS_REFUSED, "not a public address")
        return allowed, min(max(found.ttl_s, _MIN_TTL_S), _MAX_TTL_S)

    async def _ask(self, host: str) -> Addresses:
        """Asks one source after another until one answers."""
        self.lookups += 1
        for source in self._sources:
            async with self._limit:
                started = trio.current_time()
                try:
                    with trio.fail_after(self._timeout_s):
                        found = await source.look_up(host)
                except NoSuchName as error:
                    self._answered(trio.current_time() - started)
                    raise LinkFailed(DownloadStatus.DNS_FAILED, "no such name") from error
                except (ResolverTrouble, trio.TooSlowError):
                    self._failed()
                    continue
                self._answered(trio.current_time() - started)
                if found.literals:
                    return found
                raise LinkFailed(DownloadStatus.DNS_FAILED, "no address")
        self.troubles += 1
        raise LinkFailed(DownloadStatus.RESOLVER_FAILED, "no nameserver could tell")

    def _answered(self, seconds: float) -> None:
        self.times_s.append(seconds)
        if seconds < _FAST_S and self._limit.total_tokens < _MAX_LOOKUPS:
            self._limit.total_tokens += 1

    def _failed(self) -> None:
        now = trio.current_time()
        if now - self._halved >= _BACK_OFF_S:
            self._halved = now
            self._limit.total_tokens = max(_MIN_LOOKUPS, int(self._limit.total_tokens) // 2)


def _literal(host: str) -> Addresses | None:
    """Returns the address if the host is a literal; URLs are normalised, so each has one notation."""
    try:
        return Addresses((str(ip_address(host.strip("[]"))),), math.inf)
    except ValueError:
        return None


def _own_name(host: str) -> Addresses | None:
    """Returns loopback for names of the local machine (RFC 6761), whatever a nameserver says."""
    name = host.rstrip(".")
    return Addresses(("127.0.0.1",), math.inf) if name == "localhost" or name.endswith(".localhost") else None


def _override(entry: str) -> tuple[str, Endpoint]:
    pattern, _, endpoint = entry.partition("=")
    address, _, port = endpoint.rpartition(":")
    return pattern, (address.strip("[]"), int(port))

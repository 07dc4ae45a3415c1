"""Names to addresses: one lookup per host and batch, whatever the number of links, and only public results.

Lookups run in getaddrinfo threads, a bounded number at a time; links of a host that is being looked up wait
for that lookup. Failures are remembered like results: a thousand links of a dead host cost one lookup.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import trio

from laion_etl.download.guard import is_public
from laion_etl.download.outcome import LinkFailed
from laion_etl.errors import SettingsError
from laion_etl.funnel import DownloadStatus

_CONCURRENT_LOOKUPS = 32

Endpoint = tuple[str, int]  # address literal, port


@dataclass(slots=True)
class _Lookup:
    """A lookup under way or done."""

    done: trio.Event
    addresses: tuple[str, ...] = ()
    failure: LinkFailed | None = None


class Resolver:
    """Where a link of a host may be connected to. `connect_to`: see the setting of that name."""

    def __init__(self, connect_to: Sequence[str] = ()) -> None:
        self._overrides = [_override(entry) for entry in connect_to]
        self._lookups: dict[str, _Lookup] = {}
        self._limit = trio.CapacityLimiter(_CONCURRENT_LOOKUPS)

    def override(self, host: str) -> Endpoint | None:
        """The endpoint that a host is mapped to by settings, exempt from the guard."""
        for pattern, endpoint in self._overrides:
            if fnmatchcase(host, pattern):
                return endpoint
        return None

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Public addresses of a host name or literal, IPv4 first. Raises LinkFailed."""
        while True:
            lookup = self._lookups.get(host)
            if lookup is None:
                await self._look_up(host)
                continue
            await lookup.done.wait()
            if lookup.failure is not None:
                raise LinkFailed(lookup.failure.status, lookup.failure.message)
            if lookup.addresses:
                return lookup.addresses
            # The task that did the lookup was cancelled: somebody else does it.

    async def _look_up(self, host: str) -> None:
        lookup = self._lookups[host] = _Lookup(trio.Event())
        try:
            lookup.addresses = await self._public_addresses(host)
        except LinkFailed as failure:
            lookup.failure = failure
        finally:
            if not lookup.addresses and lookup.failure is None:
                del self._lookups[host]
            lookup.done.set()

    async def _public_addresses(self, host: str) -> tuple[str, ...]:
        literal = host.strip("[]")
        try:
            async with self._limit:
                found = await trio.socket.getaddrinfo(literal, None, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError, ValueError) as error:
            raise LinkFailed(DownloadStatus.DNS_FAILED, "no address") from error
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        public = tuple(address for address in addresses if is_public(address))
        if not public:
            raise LinkFailed(DownloadStatus.ADDRESS_REFUSED, "not a public address")
        return public


def _override(entry: str) -> tuple[str, Endpoint]:
    pattern, _, endpoint = entry.partition("=")
    address, _, port = endpoint.rpartition(":")
    if not (pattern and address and port.isdigit()):
        raise SettingsError(f"LAION_ETL_DOWNLOAD_CONNECT_TO entry {entry!r} is not host-pattern=address:port")
    return pattern, (address.strip("[]"), int(port))

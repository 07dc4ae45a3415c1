"""Looks names up at recursive nameservers, from the event loop, by dnspython's stub resolver.

getaddrinfo blocks a thread per lookup and asks one server at a time. dnspython sends each query from a fresh
socket and port with a fresh id (RFC 5452), goes on to the next server when one fails or is silent, and to TCP
when an answer does not fit.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.resolver
import trio
from dns.rdatatype import RdataType

from laion_etl.download.resolver import Addresses, NoSuchName, ResolverTrouble, has_ipv6

_RESOLV_CONF = Path("/etc/resolv.conf")
_TRY_S = 2.0  # per server
_LIFETIME_S = 60.0  # the caller's limit is shorter
_OTHER_FAMILY_S = 0.5  # after addresses of one family have come
_DNS_PORT = 53


class StubSource:
    """Queries its servers in random order, and the next one when one is silent or fails."""

    def __init__(self, servers: Iterable[tuple[str, int]], *, ipv6: bool | None = None) -> None:
        self._resolver = _resolver(list(servers))
        with_ipv6 = has_ipv6() if ipv6 is None else ipv6
        self._types = [RdataType.A, RdataType.AAAA] if with_ipv6 else [RdataType.A]

    async def look_up(self, host: str) -> Addresses:
        """Returns the addresses of both families. Raises NoSuchName or ResolverTrouble."""
        answers: list[Addresses] = []
        failures: list[Exception] = []

        async def ask(rdtype: RdataType) -> None:
            try:
                answers.append(await self._ask(host, rdtype))
                if answers[-1].literals:  # some nameservers drop questions for AAAA
                    nursery.cancel_scope.deadline = trio.current_time() + _OTHER_FAMILY_S
            except (NoSuchName, ResolverTrouble) as failure:
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for rdtype in self._types:
                nursery.start_soon(ask, rdtype)
        literals = tuple(literal for answer in answers for literal in answer.literals)
        if not literals and failures:
            # Half an answer does not count: the address may be of the family that could not be asked for.
            raise next((one for one in failures if isinstance(one, ResolverTrouble)), failures[0])
        return Addresses(literals, min(answer.ttl_s for answer in answers))

    async def _ask(self, host: str, rdtype: RdataType) -> Addresses:
        try:
            name = dns.name.from_text(host)
        except dns.exception.DNSException as error:
            raise NoSuchName from error  # labels too long or empty
        try:
            answer = await _resolved(self._resolver, name, rdtype)
        except dns.resolver.NXDOMAIN as error:
            raise NoSuchName from error
        except (dns.exception.DNSException, OSError) as error:
            raise ResolverTrouble(str(error) or type(error).__name__) from error
        literals = tuple(str(record.address) for record in answer.rrset or ())
        return Addresses(literals, float(answer.chaining_result.minimum_ttl))


def _resolver(servers: Iterable[tuple[str, int]]) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in servers]
    resolver.rotate = True
    resolver.timeout, resolver.lifetime = _TRY_S, _LIFETIME_S
    return resolver


async def _resolved(
    resolver: dns.asyncresolver.Resolver, name: dns.name.Name, rdtype: RdataType
) -> dns.resolver.Answer:
    """Returns the first answer to the question. For dnspython any response without an error is one."""
    answer = await resolver.resolve(name, rdtype, raise_on_no_answer=False)
    if answer.rrset is not None or not (_is_referral(answer.response) or _is_of_another_name(answer)):
        return answer
    servers = [server for server in resolver.nameservers if not isinstance(server, str)]
    places = [(server.answer_nameserver(), server.answer_port()) for server in servers]
    others = [place for place in places if place != (answer.nameserver, answer.port)]
    if len(others) in (0, len(places)):
        raise ResolverTrouble("a referral or the addresses of another name instead of an answer")
    return await _resolved(_resolver(others), name, rdtype)


def _is_referral(response: dns.message.Message) -> bool:
    """Whether a server that does not resolve names for others only says who else may know this one.

    An empty answer comes with the zone's SOA or with nothing (RFC 2308, section 2.2).
    """
    kinds = {rrset.rdtype for rrset in response.authority}
    return RdataType.NS in kinds and RdataType.SOA not in kinds


def _is_of_another_name(answer: dns.resolver.Answer) -> bool:
    """Whether there are addresses, but not at the end of the chain: the server mixed up two answers."""
    return any(rrset.rdtype == answer.rdtype for rrset in answer.response.answer)


def parse_servers(entries: Iterable[str]) -> list[tuple[str, int]]:
    """Addresses and ports of `LAION_ETL_DOWNLOAD_NAMESERVERS`."""
    servers: list[tuple[str, int]] = []
    for entry in entries:
        if entry == "system":
            servers += system_servers()
            continue
        address, colon, port = entry.rpartition(":")
        if not colon or address.endswith(":") or (":" in address and not address.endswith("]")):
            address, port = entry, str(_DNS_PORT)
        servers.append((address.strip("[]"), int(port)))
    return servers


def system_servers(path: Path = _RESOLV_CONF) -> list[tuple[str, int]]:
    """Returns the nameservers listed in /etc/resolv.conf; what else is in it is not read.

    dnspython's own reader raises at a line that glibc passes over, such as an invalid search domain.
    """
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except OSError:
        return []
    words = [line.split()[:2] for line in lines]
    return [(word[1], _DNS_PORT) for word in words if word[:1] == ["nameserver"] and _is_address(word[-1])]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True

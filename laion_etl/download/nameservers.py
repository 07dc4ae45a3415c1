"""A stub resolver: queries recursive nameservers over UDP, and over TCP when an answer does not fit.

getaddrinfo blocks a thread per lookup and asks one server at a time; this queries from the event loop, with a
fresh socket, port and id per query (RFC 5452). dnspython builds and parses the messages.
"""

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import trio

from laion_etl.download.resolver import Addresses, NoSuchName, ResolverTrouble, has_ipv6

_RESOLV_CONF = Path("/etc/resolv.conf")
_TRY_S = 2.0  # per server; the caller limits the whole lookup
_DNS_PORT = 53


class StubSource:
    """Queries its servers in rotation, and the next one when one is silent or fails."""

    def __init__(self, servers: Iterable[tuple[str, int]], *, ipv6: bool | None = None) -> None:
        self._servers = list(servers)
        self._turn = cycle(range(len(self._servers)))
        with_ipv6 = has_ipv6() if ipv6 is None else ipv6
        self._types = [dns.rdatatype.A, dns.rdatatype.AAAA] if with_ipv6 else [dns.rdatatype.A]

    async def look_up(self, host: str) -> Addresses:
        """Returns the addresses of both families. Raises NoSuchName or ResolverTrouble."""
        answers: list[Addresses] = []
        failures: list[Exception] = []

        async def ask(rdtype: dns.rdatatype.RdataType) -> None:
            try:
                answers.append(await self._ask(host, rdtype))
            except (NoSuchName, ResolverTrouble) as failure:
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for rdtype in self._types:
                nursery.start_soon(ask, rdtype)
        if not answers:
            raise failures[0]
        literals = tuple(literal for answer in answers for literal in answer.literals)
        return Addresses(literals, min(answer.ttl_s for answer in answers))

    async def _ask(self, host: str, rdtype: dns.rdatatype.RdataType) -> Addresses:
        try:
            question = dns.message.make_query(host, rdtype)
        except dns.exception.DNSException as error:
            raise NoSuchName from error  # labels too long or empty
        trouble = "no nameserver"
        for _ in self._servers:
            address, port = self._servers[next(self._turn)]
            try:
                answer, _ = await dns.asyncquery.udp_with_fallback(
                    question, address, _TRY_S, port, ignore_unexpected=True, ignore_errors=True
                )
                return _read(answer)
            except (dns.exception.DNSException, OSError, EOFError) as error:
                trouble = str(error) or type(error).__name__
            except ResolverTrouble as error:
                trouble = str(error)
        raise ResolverTrouble(trouble)


def _read(answer: dns.message.Message) -> Addresses:
    """Returns the addresses at the end of the CNAME chain."""
    if answer.rcode() == dns.rcode.NXDOMAIN:
        raise NoSuchName
    if answer.rcode() != dns.rcode.NOERROR or not isinstance(answer, dns.message.QueryMessage):
        raise ResolverTrouble(dns.rcode.to_text(answer.rcode()))
    chain = answer.resolve_chaining()
    literals = tuple(str(record.address) for record in chain.answer or ())
    return Addresses(literals, float(chain.minimum_ttl))


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
    """Returns the nameservers listed in /etc/resolv.conf."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    return [(word[1], _DNS_PORT) for word in words if len(word) > 1 and word[0] == "nameserver"]

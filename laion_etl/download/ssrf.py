"""Protection against SSRF: only publicly routable addresses may be connected to, in whatever notation.

A crawler inside a data centre meets links to `http://169.254.169.254/` and `http://10.0.0.1/admin.jpg`.
Checking names or URLs would not do: a name may resolve differently the second time (DNS rebinding). So the
address itself is checked, after resolution and on every redirect hop, and the connection goes to the very
address that was checked. Sources: the IANA special-purpose address registries (RFC 6890 and updates).
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host agent
        "169.254.0.0/16",  # link-local, metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo (tunnels to any IPv4 address)
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 (embeds any IPv4 address)
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address literal is publicly routable; False for anything else."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _public_v4(parsed) if isinstance(parsed, IPv4Address) else _public_v6(parsed)


class AddressPolicy:
    """Allows public addresses and the networks listed in the settings."""

    def __init__(self, allow_networks: Iterable[str] = ()) -> None:
        self._allowed = [_network(text) for text in allow_networks]

    def allows(self, address: str) -> bool:
        """Whether an address literal may be connected to."""
        if is_public(address):
            return True
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._allowed)


def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)


def _public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _REFUSED_V4)


def _public_v6(address: IPv6Address) -> bool:
    if address in _NAT64:
        return _public_v4(IPv4Address(int(address) & 0xFFFF_FFFF))
    # Everything outside 2000::/3 is special: loopback, link-local, unique local, IPv4-mapped, multicast ...
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)

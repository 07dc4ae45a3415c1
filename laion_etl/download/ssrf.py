"""Protection against SSRF: only publicly routable addresses may be connected to, in whatever notation.

A crawler inside a data centre meets links to `http://169.254.169.254/` and `http://10.0.0.1/admin.jpg`.
Checking names or URLs would not do: a name may resolve differently the second time (DNS rebinding). So the
address itself is checked, after resolution and on every redirect hop, and the connection goes to the very
address that was checked. Which addresses are public is a rule of urls/addresses.py.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from laion_etl.urls.addresses import is_public


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

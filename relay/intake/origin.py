"""Where a client comes from: its address, and what counts as one address."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(1024)  # clients come again and again
def ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of a client; one of IPv4 that was mapped into IPv6 is what it is. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def neighbourhood(text: str) -> str:
    """What counts as one address: a client of IPv6 has a whole /64 to come from."""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)

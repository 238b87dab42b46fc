"""The PROXY protocol, version 2: how a load balancer says who its client is.

Does: reads a header of which the length is known, and gives the client's address.
Promises: a header is read to its last byte and no further, so TLS or SMTP may follow at once; it is at most MAX_HEADER
bytes; version 1, datagrams, unix sockets and an address that is not given are no header. What it says beside the
address (TLV) is passed over.
"""

from __future__ import annotations

import ipaddress

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED = 16
"""Bytes up to and with the length of the rest."""

MAX_HEADER = 2048
"""Bytes of a header; balancers send some hundred at most."""

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


class NotAHeader(ValueError):
    """The bytes are no header that is taken here."""


def rest_length(fixed: bytes) -> int:
    """How many bytes follow the first 16. Raises NotAHeader."""
    if fixed[:12] != SIGNATURE:
        raise NotAHeader("no PROXY header of version 2")
    if fixed[12] not in (_LOCAL, _PROXY):
        raise NotAHeader(f"a PROXY header with version and command {fixed[12]:#04x}")
    length = int.from_bytes(fixed[14:16], "big")
    if FIXED + length > MAX_HEADER:
        raise NotAHeader(f"a PROXY header of {FIXED + length} bytes; {MAX_HEADER} are taken")
    return length


def client_address(header: bytes) -> str | None:
    """The client's address by a whole header; None when the balancer speaks for itself (LOCAL). Raises NotAHeader."""
    if len(header) != FIXED + rest_length(header[:FIXED].ljust(FIXED, b"\0")):
        raise NotAHeader("a PROXY header that is cut off")
    if header[12] == _LOCAL:
        return None
    family, addresses = header[13], header[FIXED:]
    if family == _TCP4 and len(addresses) >= 12:
        return str(ipaddress.IPv4Address(addresses[:4]))
    if family == _TCP6 and len(addresses) >= 36:
        return str(ipaddress.IPv6Address(addresses[:16]))
    raise NotAHeader("a PROXY header without a TCP address")

"""What a device URI says: whether it can do without a driver, how long CUPS waits for it, and whether it answers.

Does: reads device URIs as the backends of CUPS do; tries a TCP connection.
Promises: asks nothing but whether a port is open; an address that can't be had is an answer, not an error.
Known limits: found by dnssd or behind a driver of its own, a device has no address here and is not tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from urllib.parse import parse_qsl, unquote, urlsplit

CONTIMEOUT = 4
"""Seconds after which the ipp backend gives a device up that does not answer; without it a job waits for ever."""

_PORTS = {"ipp": 631, "ipps": 631, "http": 80, "https": 443, "socket": 9100, "lpd": 515}


def may_be_driverless(uri: str) -> bool:
    """Whether CUPS can ask the device behind it for its abilities: ipp, ipps, or one of them found by DNS-SD."""
    scheme = scheme_of(uri)
    return scheme in ("ipp", "ipps") or (scheme == "dnssd" and ("._ipp._tcp" in uri or "._ipps._tcp" in uri))


def scheme_of(uri: str) -> str:
    """Its scheme, in small letters."""
    return uri.partition(":")[0].lower()


def bare(uri: str) -> str:
    """Without options: the name under which a device knows itself."""
    return uri.partition("?")[0]


def lacks_contimeout(uri: str) -> bool:
    """Whether CUPS would wait for ever for this device to answer. Only ipp and ipps have the option."""
    return scheme_of(uri) in ("ipp", "ipps") and not any(name == "contimeout" for name, _ in _options(uri))


def with_contimeout(uri: str) -> str:
    """The URI with the time limit that it lacks; its other options stay."""
    if not lacks_contimeout(uri):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}contimeout={CONTIMEOUT}"


def address(uri: str) -> tuple[str, int] | None:
    """Host and port of a device on the network; None for any other."""
    port = _PORTS.get(scheme_of(uri))
    if port is None:
        return None
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or port
    except ValueError:
        return None
    return (unquote(host), port) if host else None


async def trouble_reaching(uri: str, seconds: float = 3.0) -> str:
    """Why a device on the network does not answer; "" when it does, or when it has no address to try."""
    place = address(uri)
    if place is None:
        return ""
    host, port = place
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"{host} port {port} does not answer within {seconds:g} s"
    except OSError as error:
        return f"{host} port {port} can't be reached: {_words(error)}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


def _words(error: OSError) -> str:
    """Why, in the system's words; asyncio puts its own in their place, which say where and not why."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _options(uri: str) -> list[tuple[str, str]]:
    return parse_qsl(uri.partition("?")[2], keep_blank_values=True)

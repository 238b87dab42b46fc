"""Fetching an MTA-STS policy from its host (RFC 8461 3.3).

Promises: HTTPS with a certificate for the policy host; TIMEOUT for all of it, MAX_POLICY bytes, no redirects, no
cookies, no compressed answers. Only addresses that our name servers gave are connected to, and only public ones:
whoever owns a recipient's domain chooses the host, and must not make us ask what stands in our own network.
Refuses: an answer other than 200, or of another type than text/plain.
Known limits: no proxy; no CRL or OCSP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from relay.config.mta_sts import MtaSts
from relay.dns.resolver import Records, Resolver
from relay.dns.sts_policy import StsPolicy, policy_host, policy_url, read_policy
from relay.errors import DnsError, StartError, StsError, StsHostAway
from relay.mail.status import printable

TIMEOUT = 30.0
MAX_POLICY = 64 * 1024

_NAT64 = IPv6Network("64:ff9b::/96")


class PolicyFetcher:
    """Fetches policies, each over a connection of its own."""

    def __init__(self, settings: MtaSts, resolver: Resolver) -> None:
        """Raises StartError when the authorities can't be used."""
        self.ca_file = settings.ca_file
        "Authorities for hosts of policies, and for the mail hosts that they name; None for those of the system."
        self._settings = settings
        self._resolver = resolver
        try:
            self._tls = ssl.create_default_context(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"the authorities in {settings.ca_file} can't be used: {error}") from None
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.hostname_checks_common_name = False  # RFC 8461 3.3: names of the SAN alone

    async def fetch(self, domain: str) -> StsPolicy:
        """The policy of a domain, which is given as A-labels. Raises StsError with what is in the way."""
        where = policy_host(domain)
        try:
            async with asyncio.timeout(TIMEOUT):
                return read_policy(await self._get(domain))
        except TimeoutError:
            raise StsHostAway(f"{where} did not answer within {TIMEOUT:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or str(error)
            raise StsError(f"{where}: its certificate is not good: {printable(why, 200)}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise StsHostAway(f"{where}: {_in_words(error)}") from None
        except StsError as error:
            raise StsError(f"{where}: {error}") from None

    async def _get(self, domain: str) -> bytes:
        resolver = _Public(self._resolver, allows_private=self._settings.private_hosts)
        connector = aiohttp.TCPConnector(resolver=resolver, ssl=self._tls, force_close=True)
        url = policy_url(domain)
        if self._settings.port != 443:
            url = url.replace(policy_host(domain), f"{policy_host(domain)}:{self._settings.port}", 1)
        headers = {"Accept": "text/plain", "Accept-Encoding": "identity", "User-Agent": "slip-relay"}
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            ) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise StsError(f"the answer is {response.status}, and has to be 200")
            if response.content_type != "text/plain":
                raise StsError(f"the policy is {printable(response.content_type, 60)}, and has to be text/plain")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise StsError("the policy is compressed")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_POLICY:
                    raise StsError(f"the policy has more than {MAX_POLICY // 1024} KiB")
            return bytes(content)


class _Public(AbstractResolver):
    """Resolves by our own name servers, to public addresses."""

    def __init__(self, resolver: Resolver, *, allows_private: bool) -> None:
        self._resolver = resolver
        self._allows_private = allows_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        answers = await asyncio.gather(
            *(self._resolver.records(host, kind) for kind in ("AAAA", "A")), return_exceptions=True
        )
        known = [ip_address(text) for answer in answers if isinstance(answer, Records) for text in answer.texts]
        if not known and (errors := [answer for answer in answers if isinstance(answer, DnsError)]):
            raise OSError(str(errors[0]))
        fit = [address for address in known if self._allows_private or is_public(address)]
        if not fit:
            raise OSError("it has no address" if not known else "its addresses are not public ones")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in fit
        ]

    async def close(self) -> None:
        """Nothing is held."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the world can reach it. With an IPv4 address inside it is what that is (RFC 6052); 6to4, Teredo never."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _in_words(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return printable(str(error.os_error), 200)
    return printable(str(error), 200) or type(error).__name__

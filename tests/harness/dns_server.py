"""An authoritative DNS server for whatever a test publishes, and a DKIM verifier that asks it.

Answers on UDP and TCP at 127.0.0.1, or another loopback address. A name that was not published is NXDOMAIN, a published
name without that type is an empty answer; with `fail` a name is SERVFAIL. An answer that does not fit a UDP datagram is
truncated, so that the client comes again over TCP. What lies below a name that is `secure` has the AD bit, by which a
resolver says that it has validated (RFC 6840 5.7), for those who ask for it. Recursion, transfers and zones cut into
delegations are not its business.

`verify_dkim` is independent of slip-relay: dkimpy checks the signature against the key in this DNS.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

import dkim
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset

from tests.harness.waiting import LOCALHOST

TTL = 60


class DnsServer:
    """The server. `async with DnsServer(port) as dns:`; publish before or while it runs."""

    def __init__(self, port: int, host: str = LOCALHOST) -> None:
        self.port = port
        self._host = host
        self.address = f"{host}:{port}"
        self.questions: list[tuple[str, str]] = []
        "Every question asked so far: name without the final dot, and type."
        self._records: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}
        self._secure: set[dns.name.Name] = set()
        self._failing: set[dns.name.Name] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    def add(self, name: str, kind: str, *values: str, ttl: int = TTL) -> None:
        """Publish values at a name: `add("example.org", "MX", "10 mx.example.org.")`. TXT is quoted for you."""
        owner, rdatatype = _name(name), dns.rdatatype.from_text(kind)
        texts = [txt_strings(value) if kind == "TXT" else value for value in values]
        known = list(self._records.get((owner, rdatatype), ()))
        fresh = dns.rrset.from_text_list(owner, ttl, "IN", rdatatype, texts)
        self._records[owner, rdatatype] = dns.rrset.from_rdata_list(owner, ttl, [*known, *fresh])

    def add_strings(self, name: str, strings: Sequence[str], ttl: int = TTL) -> None:
        """Publish a TXT record that is cut into these strings."""
        owner, quoted = _name(name), " ".join(f'"{string}"' for string in strings)
        self._records[owner, dns.rdatatype.TXT] = dns.rrset.from_text_list(owner, ttl, "IN", "TXT", [quoted])

    def remove(self, name: str, kind: str | None = None) -> None:
        """Take back what was published at a name, or one type of it."""
        owner = _name(name)
        for key in [key for key in self._records if key[0] == owner and kind in (None, dns.rdatatype.to_text(key[1]))]:
            del self._records[key]

    def fail(self, name: str, *, failing: bool = True) -> None:
        """Answer SERVFAIL to everything asked about a name, until `failing=False`."""
        (self._failing.add if failing else self._failing.discard)(_name(name))

    def secure(self, name: str, *, is_secure: bool = True) -> None:
        """Say of everything at a name and below it that it was validated."""
        (self._secure.add if is_secure else self._secure.discard)(_name(name))

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (self._host, self.port))
        self._tcp = await asyncio.start_server(self._serve_stream, self._host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    def answer(self, wire: bytes, *, datagram: bool) -> bytes | None:
        """The answer to a question, in wire format; None when it is not a question at all."""
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return None
        self.questions.append((question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        self._fill(response, question.name, question.rdtype)
        names = [question.name, *(rrset.name for rrset in response.answer)]
        if query.flags & dns.flags.AD and all(any(map(name.is_subdomain, self._secure)) for name in names):
            response.flags |= dns.flags.AD
        if not datagram:
            return response.to_wire()
        try:
            return response.to_wire(max_size=max(512, min(query.payload or 512, 1232)))
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _fill(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> None:
        if name in self._failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif (name, kind) in self._records:
            response.answer.append(self._records[name, kind])
        elif (name, dns.rdatatype.CNAME) in self._records:
            alias = self._records[name, dns.rdatatype.CNAME]
            response.answer.append(alias)
            self._fill(response, alias[0].target, kind)
        elif not any(owner.is_subdomain(name) for owner, _ in self._records):
            response.set_rcode(dns.rcode.NXDOMAIN)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(length), datagram=False)
                if answer is None:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self._server.answer(data, datagram=True)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, address)


@dataclass(frozen=True, slots=True)
class DkimVerdict:
    """What the verifier found: whether the first signature is valid, whose it is, and why not."""

    valid: bool
    domain: str
    selector: str
    reason: str


def verify_dkim(message: bytes, dns_port: int) -> DkimVerdict:
    """Check the first DKIM signature of a message against the keys in the bench's DNS.

    Blocks while it asks the DNS: call it with `asyncio.to_thread` when that server runs in the same loop.
    """
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [LOCALHOST], dns_port, 5.0

    def look_up(name: bytes, timeout: float = 5) -> bytes | None:
        try:
            answer = resolver.resolve(name.decode(), "TXT")
        except dns.exception.DNSException:
            return None
        return b"".join(answer[0].strings)

    verifier = dkim.DKIM(message)
    try:
        valid = bool(verifier.verify(dnsfunc=look_up))
        reason = "" if valid else "the signature does not match, or there is none"
    except dkim.DKIMException as error:
        valid, reason = False, str(error)
    return DkimVerdict(valid, _tag(verifier.domain), _tag(verifier.selector), reason)


def txt_strings(text: str) -> str:
    """A text as the quoted strings of at most 255 bytes that a TXT record is made of."""
    escaped = [re.sub(r'(["\\])', r"\\\1", text[start : start + 250]) for start in range(0, max(len(text), 1), 250)]
    return " ".join(f'"{part}"' for part in escaped)


def _tag(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)

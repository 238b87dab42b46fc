"""SPF's `check_host()` for one address (RFC 7208 4), as a receiver evaluates it: the verdict, its reason, what it cost.

Not pyspf: it asks the system's resolver only, blocks, changes dnspython when it is imported, and has no whole count.
Known limits: the macro `p` is "unknown" (RFC 7208 7.3 allows it); the explanation (`exp`) is not fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Literal
from urllib.parse import quote

from relay.dns.answers import Answers
from relay.dns.spf import MAX_EXCHANGES, MAX_LOOKUPS, MAX_VOID
from relay.dns.spf_record import Record, Term, parse
from relay.errors import DnsError, SpfError

Result = Literal["pass", "fail", "softfail", "neutral", "none", "permerror", "temperror"]
IpAddress = IPv4Address | IPv6Address

COUNTED = 60
"""Look-ups after which even counting ends."""

_QUALIFIERS: dict[str, Result] = {"-": "fail", "~": "softfail", "?": "neutral"}
_MACRO = re.compile(r"%(?:([%_-])|\{([A-Za-z])(\d*)(r?)([.+,/_=-]*)\})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a receiver finds."""

    result: Result
    reason: str
    "The term that decided, with the names that led to it; or what is wrong."
    lookups: int
    voids: int
    chain: tuple[str, ...]
    "Names whose records were read, in their order."


async def judge(answers: Answers, domain: str, address: IpAddress, sender: str) -> Judgement:
    """The verdict on mail of `sender` from an address, by the record of its domain."""
    return await _Check(answers, address, sender, MAX_LOOKUPS, MAX_VOID).judgement(domain)


async def whole_cost(answers: Answers, domain: str) -> Judgement:
    """What the record costs an address that nothing in it names, and what the record says to it."""
    return await _Check(answers, None, f"postmaster@{domain}", COUNTED, COUNTED).judgement(domain)


async def records_of(answers: Answers, domain: str) -> list[str]:
    """The SPF records at a name: there should be one. Raises DnsError when nobody answers."""
    texts = await answers.texts(domain, "TXT")
    return [text for text in texts if text.lower().startswith("v=spf1") and text[6:7] in ("", " ")]


@dataclass(slots=True)
class _Check:
    answers: Answers
    address: IpAddress | None
    sender: str
    max_lookups: int
    max_voids: int
    lookups: int = 0
    voids: int = 0
    chain: list[str] = field(default_factory=list)
    decided: str = "no term matches"

    async def judgement(self, domain: str) -> Judgement:
        result: Result
        try:
            result, reason = await self._result(domain), ""
        except SpfError as error:
            result, reason = "permerror", str(error)
        except DnsError as error:
            result, reason = "temperror", str(error)
        return Judgement(result, reason or self.decided, self.lookups, self.voids, tuple(self.chain))

    async def _result(self, domain: str) -> Result:
        record = await self._record(domain)
        if record is None:
            return "none"
        for term in record.terms:
            if await self._matches(domain, term):
                inner = f" > {self.decided}" if term.kind == "include" else ""
                self.decided = f"{domain}: {term.text}{inner}"
                return _QUALIFIERS.get(term.text[0], "pass")
        if not record.redirect:
            self.decided = f"{domain}: no term matches"
            return "neutral"
        self._count()
        result = await self._result(self._expanded(record.redirect, domain))
        if result == "none":
            raise SpfError(f"{domain}: redirect={record.redirect} has no SPF record")
        return result

    async def _record(self, domain: str) -> Record | None:
        found = await records_of(self.answers, domain)
        if not found:
            return None
        if len(found) > 1:
            raise SpfError(f"{domain} has {len(found)} SPF records; one is allowed")
        self.chain.append(domain)
        try:
            return parse(found[0])
        except SpfError as error:
            raise SpfError(f"{domain}: {error}") from None

    async def _matches(self, domain: str, term: Term) -> bool:
        if term.kind == "all":
            return True
        if term.network is not None:
            return self.address is not None and self.address in term.network
        self._count()
        target = self._expanded(term.domain, domain) if term.domain else domain
        if term.kind == "include":
            result = await self._result(target)
            if result == "none":
                raise SpfError(f"{domain}: {term.text}: {target} has no SPF record")
            return result == "pass"  # without an address by +all only
        if term.kind == "exists":
            return bool(await self._ask(target, "A")) and self.address is not None
        if term.kind == "ptr":
            return await self._is_named(target)
        hosts = [target]
        if term.kind == "mx":
            hosts = [host for host in await self._ask(target, "MX") if host not in ("", ".")]
            if len(hosts) > MAX_EXCHANGES:
                raise SpfError(f"{domain}: {target} has {len(hosts)} MX hosts; {MAX_EXCHANGES} are looked up")
        found = [await self._is_at(host, term) for host in hosts]
        return any(found)

    async def _is_at(self, host: str, term: Term) -> bool:
        kind: Literal["A", "AAAA"] = "AAAA" if isinstance(self.address, IPv6Address) else "A"
        prefix = term.prefix6 if kind == "AAAA" else term.prefix4
        texts = await self._ask(host, kind)
        networks = [ip_network(f"{text}/{prefix}", strict=False) for text in texts]
        return self.address is not None and any(self.address in network for network in networks)

    async def _is_named(self, target: str) -> bool:
        """Whether the address has a confirmed name at or below a domain; what the DNS fails at is passed over (5.5)."""
        if self.address is None:
            return False
        kind: Literal["A", "AAAA"] = "AAAA" if isinstance(self.address, IPv6Address) else "A"
        confirmed: list[str] = []
        for name in (await self._ask_kindly(self.address.reverse_pointer, "PTR"))[:MAX_EXCHANGES]:
            if str(self.address) in await self._ask_kindly(name, kind):
                confirmed.append(f".{name.lower()}")
        return any(name.endswith(f".{target}") for name in confirmed)

    async def _ask_kindly(self, name: str, kind: Literal["A", "AAAA", "PTR"]) -> tuple[str, ...]:
        try:
            return await self._ask(name, kind)
        except SpfError:
            raise
        except DnsError:
            return ()

    async def _ask(self, name: str, kind: Literal["A", "AAAA", "MX", "PTR"]) -> tuple[str, ...]:
        texts = await self.answers.texts(name, kind)
        if not texts:
            self.voids += 1
            if self.voids > self.max_voids:
                raise SpfError(f"more than {self.max_voids} look-ups without an answer, the last one of {name}")
        return texts

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > self.max_lookups:
            raise SpfError(f"more than {self.max_lookups} look-ups")

    def _expanded(self, text: str, domain: str) -> str:
        """A domain with its macros filled in, cut from the left to what a name may be long (RFC 7208 7)."""
        local, _, sender_domain = self.sender.rpartition("@")
        address = self.address if self.address is not None else IPv4Address("192.0.2.1")
        dotted = str(address) if isinstance(address, IPv4Address) else ".".join(address.exploded.replace(":", ""))
        values = {"s": self.sender, "l": local, "o": sender_domain, "d": domain, "i": dotted, "h": sender_domain}
        values |= {"v": "in-addr" if address.version == 4 else "ip6", "p": "unknown"}

        def value(match: re.Match[str]) -> str:
            if match[1]:
                return {"%": "%", "_": " ", "-": "%20"}[match[1]]
            letter = match[2].lower()
            if letter not in values:
                raise SpfError(f"{domain}: {text} has a macro that is not allowed there")
            parts = re.split(f"[{re.escape(match[5] or '.')}]", values[letter])
            parts = parts[::-1] if match[4] else parts
            kept = ".".join(parts[-int(match[3]) :] if match[3] else parts)
            return quote(kept, safe="") if match[2].isupper() else kept

        if "%" in _MACRO.sub("", text):
            raise SpfError(f"{domain}: {text} has a macro that can't be read")
        name = _MACRO.sub(value, text).removesuffix(".")
        while len(name) > 253 and "." in name:
            name = name.partition(".")[2]
        return name.lower()

"""DMARC as receivers find it (RFC 9989): records by the DNS tree walk, the Organizational Domain, the policy in force.

A record of a name counts only when it is the only one there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from relay.dns.answers import Answers
from relay.dns.tags import read_tags
from relay.errors import DnsError

Policy = Literal["none", "quarantine", "reject"]

MAX_QUERIES = 8
"""Names of one walk (RFC 9989 4.10)."""

_MAILTO = re.compile(r"mailto:[^,@]*@([A-Za-z0-9.-]+)", re.IGNORECASE)

OBSOLETE = ("pct", "rf", "ri")
"""Tags of RFC 7489 that mean nothing any more."""


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A record, and the domain it stands for."""

    domain: str
    tags: dict[str, str]

    @property
    def psd(self) -> str:
        """`y`: a public suffix; `n`: an Organizational Domain; `u`: found out by the walk."""
        return self.tags.get("psd", "u").lower()

    @property
    def is_testing(self) -> bool:
        """Whether the policy is asked to be applied one step milder (`t=y`)."""
        return self.tags.get("t", "n").lower() == "y"

    def is_strict(self, tag: Literal["adkim", "aspf"]) -> bool:
        """Whether alignment asks for the very same domain."""
        return self.tags.get(tag, "r").lower() == "s"

    def policy(self, tag: Literal["p", "sp", "np"] = "p") -> Policy | None:
        """The policy of a tag, or of the one it falls back to, at last `none`; None when what stands there is none."""
        fallback = {"p": ("p",), "sp": ("sp", "p"), "np": ("np", "sp", "p")}[tag]
        value = next((self.tags[name].lower() for name in fallback if name in self.tags), "none")
        return cast(Policy, value) if value in ("none", "quarantine", "reject") else None


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk from a domain to the root found."""

    start: str
    records: tuple[DmarcRecord, ...]
    "From the longest name to the shortest."
    faults: tuple[str, ...]
    "What receivers pass over: records that are not the only one, and parts that can't be read."

    @property
    def organizational_domain(self) -> str:
        """Whose domain this is (RFC 9989 4.10.2); the start itself where there is no record."""
        for record in self.records:
            if record.psd == "n":
                return record.domain
            if record.psd == "y" and record.domain != self.start:
                labels = self.start.split(".")
                return ".".join(labels[-(record.domain.count(".") + 2) :])
        return self.records[-1].domain if self.records else self.start

    @property
    def applied(self) -> DmarcRecord | None:
        """The record whose policy holds (RFC 9989 4.10.1): its own, that of the Organizational Domain, or of the public
        suffix.
        """
        organizational = self.organizational_domain
        for domain in (self.start, organizational):
            for record in self.records:
                if record.domain == domain:
                    return record
        return next((record for record in self.records if record.psd == "y"), None)


async def walk(answers: Answers, domain: str) -> Walk:
    """The walk from a domain up. Raises DnsError when nobody answers."""
    records: list[DmarcRecord] = []
    faults: list[str] = []
    for name in _names(domain):
        found = [text for text in await answers.texts(f"_dmarc.{name}", "TXT") if _is_dmarc(text)]
        if len(found) > 1:
            faults.append(f"_dmarc.{name} has {len(found)} DMARC records: none of them counts")
        elif found:
            tags, unread = _read(found[0])
            faults += [f"_dmarc.{name}: {fault}" for fault in unread]
            records.append(DmarcRecord(name, tags))
            if records[-1].psd in ("n", "y"):
                break
    return Walk(domain, tuple(records), tuple(faults))


async def exists(answers: Answers, domain: str) -> bool:
    """Whether a domain exists for DMARC: it has an A, AAAA or MX."""
    return bool(await answers.texts(domain, "MX") or await answers.addresses(domain))


async def strangers(answers: Answers, record: DmarcRecord) -> list[str]:
    """Domains of other organisations that `rua=` names, and that do not say that they take the reports (RFC 9990)."""
    domains = [match[1].lower() for match in _MAILTO.finditer(record.tags.get("rua", ""))]
    own = (await walk(answers, record.domain)).organizational_domain
    found: list[str] = []
    for domain in dict.fromkeys(domains):
        if domain == own or (await walk(answers, domain)).organizational_domain == own:
            continue
        if not any(_is_dmarc(text) for text in await answers.texts(consent_name(record, domain), "TXT")):
            found.append(domain)
    return found


def consent_name(record: DmarcRecord, domain: str) -> str:
    """Where a domain says that it takes the reports about a record."""
    return f"{record.domain}._report._dmarc.{domain}"


def _names(domain: str) -> list[str]:
    """The names of a walk: the domain, then its parents; of a long name at once the last seven labels."""
    labels = domain.split(".")
    names = [domain]
    rest = labels[1:] if len(labels) < MAX_QUERIES else labels[-(MAX_QUERIES - 1) :]
    return names + [".".join(rest[i:]) for i in range(len(rest))]


def _read(text: str) -> tuple[dict[str, str], list[str]]:
    """The tags of a record, and what in it can't be read: the rest counts all the same (RFC 9989 4.7)."""
    tags: dict[str, str] = {}
    faults: list[str] = []
    for part in text.split(";"):
        try:
            for name, value in read_tags(part).items():
                tags.setdefault(name, value)
        except DnsError as error:
            faults.append(str(error))
    return tags, faults


def _is_dmarc(text: str) -> bool:
    first = text.split(";", 1)[0].replace(" ", "").replace("\t", "")
    return first == "v=DMARC1"

"""Whether DMARC passes our mail (RFC 9989): the record of a From domain, and what aligns with it of what we send.

Advice, not fault, is a policy that asks nothing of receivers: one begins with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.dns.answers import Answers
from relay.dns.dmarc import OBSOLETE, DmarcRecord, Walk, consent_name, exists, strangers, walk
from relay.dns.findings import Finding, Record, Verdict
from relay.errors import DnsError
from relay.mail.status import printable

_MUST = "one record with a policy"


@dataclass(frozen=True, slots=True)
class Sent:
    """What receivers compare with the From domain."""

    envelope: str | None
    "Domain of the Envelope-From; None where that is the sender's."
    signers: tuple[str, ...]
    "d= of our keys, the institution's first one first."

    def signer(self, domain: str) -> str | None:
        """d= of the signature on a letter from a domain: the nearest key, else the first; None without keys."""
        near = [each for each in self.signers if domain == each or domain.endswith(f".{each}")]
        return max(near, key=len) if near else next(iter(self.signers), None)


async def check_dmarc(answers: Answers, domain: str, sent: Sent) -> list[Finding]:
    """The record that holds for a From domain, and the alignment of what we send with it."""
    try:
        found = await walk(answers, domain)
        return [await _policy(answers, found), await _alignment(answers, found, sent)]
    except DnsError as error:
        return [Finding("dmarc", f"_dmarc.{domain}", _MUST, str(error), "unknown")]


async def _policy(answers: Answers, found: Walk) -> Finding:
    name = f"_dmarc.{found.start}"
    fresh = Record(name, "TXT", f"v=DMARC1; p=none; rua=mailto:dmarc-reports@{found.start}")
    record = found.applied
    if record is None:
        says = "; ".join(found.faults) or "no record, nor at a parent"
        advice = (
            "leave one record"
            if found.faults
            else "publish it with a mailbox of yours, and raise p= when the reports show nothing but your own mail"
        )
        return Finding("dmarc", name, _MUST, printable(says, 300), "wrong", advice, None if found.faults else fresh)
    tag = await _tag(answers, found, record)
    policy = record.policy(tag)
    where = "" if record.domain == found.start else f" (of _dmarc.{record.domain}, by {tag}=)"
    if policy is None:
        says = f"{printable('; '.join(f'{name}={value}' for name, value in record.tags.items()), 200)}{where}"
        return Finding("dmarc", name, _MUST, says, "wrong", f"{tag}= has to be none, quarantine or reject", fresh)
    says = f"p={policy}{', t=y' if record.is_testing else ''}{where}"
    advised = _advice(record, policy, found.faults)
    for stranger in await strangers(answers, record):
        needed = f"{consent_name(record, stranger)} TXT v=DMARC1"
        advised.append(f"{stranger} does not take reports for {record.domain}: it has to publish {needed}")
    return Finding("dmarc", name, _MUST, says, "warn" if advised else "ok", "; ".join(advised))


async def _tag(answers: Answers, found: Walk, record: DmarcRecord) -> Literal["p", "sp", "np"]:
    """Which policy of a record holds for the domain: a parent's is for subdomains, or for names that do not exist."""
    if record.domain == found.start:
        return "p"
    return "sp" if await exists(answers, found.start) else "np"


def _advice(record: DmarcRecord, policy: str, faults: Sequence[str]) -> list[str]:
    advice = [printable(fault, 200) for fault in faults]
    if "p" not in record.tags:
        advice.append("write p=none, which is meant without p=: receivers by RFC 7489 pass over the record")
    elif policy == "none":
        advice.append("p=none asks nothing of receivers: raise it when the reports show nothing but your own mail")
    elif record.is_testing:
        advice.append("t=y asks for a milder policy: take it out when the tests are over")
    if obsolete := [tag for tag in OBSOLETE if tag in record.tags]:
        advice.append(f"{', '.join(obsolete)} mean nothing any more (RFC 9989)")
    if "rua" not in record.tags:
        advice.append("no rua=: without reports nobody sees whose mail fails")
    return advice


async def _alignment(answers: Answers, found: Walk, sent: Sent) -> Finding:
    domain, signer = found.start, sent.signer(found.start)
    must = "Envelope-From and DKIM d= in the same organisation"
    by_spf = sent.envelope is not None and await _is_aligned(answers, found, sent.envelope, "aspf")
    by_dkim = signer is not None and await _is_aligned(answers, found, signer, "adkim")
    envelope = sent.envelope or "the sender's domain"
    says = f"{_said('SPF', envelope, by_spf)}; {_said('DKIM', signer, by_dkim)}"
    verdict: Verdict = "ok" if by_spf and by_dkim else "warn" if by_spf or by_dkim else "wrong"
    advice = {
        "ok": "",
        "warn": "one is enough for DMARC, but forwarding breaks SPF, and footers of lists break DKIM",
        "wrong": "sign with a key of this domain (institutions.dkim), or use a bounce_domain below it",
    }[verdict]
    return Finding("alignment", domain, must, says, verdict, advice)


async def _is_aligned(answers: Answers, found: Walk, domain: str, tag: Literal["adkim", "aspf"]) -> bool:
    if domain == found.start:
        return True
    record = found.applied
    if record is None:  # as it will be with the record that is to be published
        return domain.endswith(f".{found.start}")
    if record.is_strict(tag):
        return False
    return (await walk(answers, domain)).organizational_domain == found.organizational_domain


def _said(what: str, domain: str | None, is_aligned: bool) -> str:
    if domain is None:
        return f"no {what} key"
    return f"{what} by {domain}{'' if is_aligned else ', not aligned'}"

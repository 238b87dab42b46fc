"""MTA-STS (RFC 8461): the record that announces a policy, the policy itself, and which hosts it is for.

Read strictly: what is not by the grammar is no record, or no policy. Pure; who fetches is `sts_fetch`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from relay.errors import AddressError, StsError
from relay.mail.address import ascii_domain, parse_domain

Mode = Literal["enforce", "testing", "none"]

LONGEST_AGE = 31557600
"""Seconds for which a policy holds at most (RFC 8461 3.2)."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"
_RECORD = re.compile(rf"v=STSv1(?:[ \t]*;[ \t]*{_NAME}=[\x21-\x3a\x3c\x3e-\x7e]+)+(?:[ \t]*;[ \t]*)?")
_ID = re.compile(r";[ \t]*id=([^;\s]*)")
_FIELD = re.compile(rf"({_NAME}):[ \t]*([\x21-\x7e\x80-\U0010ffff][\x20-\x7e\x80-\U0010ffff]*)")
_MODES = ("enforce", "testing", "none")


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """What a domain asks of those who send to it."""

    mode: Mode
    max_age: int
    "Seconds for which it holds from when it was fetched."
    mx: tuple[str, ...]
    "Names of its mail hosts, as A-labels in small letters; `*.` stands for one label."

    def names(self, host: str) -> bool:
        """Whether a mail host is one of the policy's (RFC 8461 4.1)."""
        host = host.rstrip(".").lower()
        return host in self.mx or f"*.{host.partition('.')[2]}" in self.mx

    @property
    def text(self) -> str:
        """The policy as it is published, without line ends of the network."""
        lines = ["version: STSv1", f"mode: {self.mode}", *(f"mx: {name}" for name in self.mx)]
        return "\n".join([*lines, f"max_age: {self.max_age}"])


def policy_host(domain: str) -> str:
    """The host that has a domain's policy."""
    return f"mta-sts.{domain}"


def policy_url(domain: str) -> str:
    """Where a domain's policy has to be."""
    return f"https://{policy_host(domain)}/.well-known/mta-sts.txt"


def record_name(domain: str) -> str:
    """Where a domain says that it has a policy."""
    return f"_mta-sts.{domain}"


def read_record(texts: Sequence[str]) -> str | None:
    """The id of the policy that TXT records announce; None when none of them is about one (RFC 8461 3.1).

    Raises StsError for several, or one that is not by the grammar: they announce nothing.
    """
    found = [text for text in texts if re.match(r"v=STSv1[ \t]*;", text)]
    if not found:
        return None
    if len(found) > 1:
        raise StsError(f"{len(found)} records that begin with v=STSv1: none of them counts")
    ids = _ID.findall(found[0])
    if not _RECORD.fullmatch(found[0]) or not ids or not re.fullmatch(r"[A-Za-z0-9]{1,32}", ids[0]):
        raise StsError("a record with an id of 1 to 32 letters and digits has to be there, as in v=STSv1; id=1;")
    return str(ids[0])


def read_policy(content: bytes) -> StsPolicy:
    """The policy in a file (RFC 8461 3.2). Raises StsError with what is wrong with it."""
    try:
        lines = content.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise StsError("the policy is not UTF-8") from None
    if lines[-1] == "":
        lines.pop()
    values: dict[str, str] = {}
    patterns: list[str] = []
    for line in lines:
        match = _FIELD.fullmatch(line.rstrip(" \t"))
        if match is None:
            raise StsError(f"the policy has a line that is no field: {line[:40]!r}")
        if match[1] == "mx":
            patterns.append(_pattern(match[2]))
        else:
            values.setdefault(match[1], match[2])
    if values.get("version") != "STSv1":
        raise StsError("the policy is not of version STSv1")
    mode, age = values.get("mode", ""), values.get("max_age", "")
    if mode not in _MODES:
        raise StsError(f"the policy has the mode {mode[:20]!r}: it has to be one of {', '.join(_MODES)}")
    if not re.fullmatch(r"[0-9]{1,10}", age):
        raise StsError("the policy has no max_age in seconds")
    if mode != "none" and not patterns:
        raise StsError("the policy names no mail host")
    return StsPolicy(cast(Mode, mode), min(int(age), LONGEST_AGE), tuple(dict.fromkeys(patterns)))


def _pattern(text: str) -> str:
    wild, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        return wild + ascii_domain(parse_domain(name))
    except AddressError:
        raise StsError(f"the policy names {text[:40]!r}, which is no mail host") from None

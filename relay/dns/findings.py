"""What the DNS must say, beside what it says: the shape that every check gives its answer in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.dns.resolver import RecordKind

Verdict = Literal["ok", "warn", "wrong", "unknown"]
"""`unknown`: the DNS could not be asked, so that nothing is known to be wrong."""

Topic = Literal["dkim", "spf", "from-spf", "helo-spf", "dmarc", "alignment", "mx", "ptr", "relay", "mta-sts", "tls-rpt"]

MEANINGS: dict[Topic, str] = {
    "dkim": (
        "Every letter is signed. Receivers look for the public key there; without it the signature is "
        "worthless, and the letter looks forged. Unlike SPF, a signature survives forwarding."
    ),
    "spf": (
        "Receivers ask the domain of the Envelope-From, where bounces go, which addresses may send for it. "
        "Mail from another one is junk, or is refused. More than ten look-ups, or more than two without an "
        "answer, make a record void."
    ),
    "from-spf": (
        "DMARC asks for SPF of the Envelope-From alone. Some filters look at the domain in From as well, and it is the "
        "one that counts where the Envelope-From is kept."
    ),
    "helo-spf": "DSNs have no Envelope-From, as they must, so receivers ask the name that we say in EHLO instead.",
    "dmarc": (
        "It says what receivers should do with letters that carry your domain in From and prove nothing, and "
        "where reports go. Large providers want one of everybody who sends much. It may stand at a parent "
        "domain."
    ),
    "alignment": (
        "For DMARC it is not enough that SPF or DKIM pass: one of them has to pass for the domain that the "
        "reader sees in From or, unless it is strict, for another one of the same organisation."
    ),
    "mx": (
        "Bounces go to this domain. Without a host they are lost, and some receivers refuse mail that can't "
        "be answered."
    ),
    "ptr": (
        "Many receivers refuse clients whose address has no name, or whose name does not lead back to the address."
    ),
    "mta-sts": (
        "Anybody between two mail servers can make them speak in clear text, or put himself in the place of one. A "
        "policy asks senders for TLS with a certificate for the host that takes your mail. It is for mail to you; what "
        "we send keeps to the policies of others by itself."
    ),
    "tls-rpt": "Senders report there, once a day, what mail did not come since TLS with your host failed.",
    "relay": (
        "Microsoft 365 and Google relay for their own customers only. They tell whose a letter is by the domain of the "
        "Envelope-From, by the certificate that we show, or by who logs in. What they can't tell they refuse, and DSNs "
        "first, for those have no Envelope-From."
    ),
}
"""Why each of them matters, in plain words."""

_TXT_STRING = 255


@dataclass(frozen=True, slots=True)
class Record:
    """A record to publish."""

    name: str
    kind: RecordKind
    text: str

    @property
    def zone_line(self) -> str:
        """A line of a zone file: a TXT in strings of at most 255 octets, joined later (RFC 6376 3.6.2.2)."""
        if self.kind != "TXT":
            return f"{self.name}. IN {self.kind} {self.text}"
        strings = [self.text[i : i + _TXT_STRING] for i in range(0, len(self.text), _TXT_STRING)]
        return f"{self.name}. IN TXT ( " + " ".join(f'"{_escaped(string)}"' for string in strings) + " )"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file to publish on the web."""

    url: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the DNS has to say."""

    topic: Topic
    name: str
    "Where it has to stand."
    must: str
    says: str
    verdict: Verdict
    advice: str = ""
    "What to do, or what to know."
    record: Record | None = None
    "To be pasted, where something is missing or wrong."
    file: PublishedFile | None = None
    "The same, on the web."


def _escaped(string: str) -> str:
    """As a zone file has it (RFC 1035 5.1): what others published neither ends the string nor commands a terminal."""
    return "".join(
        f"\\{character}" if character in '"\\' else character if " " <= character <= "~" else f"\\{ord(character):03}"
        for character in string
    )

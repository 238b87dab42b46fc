"""What MAIL, RCPT and BDAT say: their paths, parameters and sizes, read by a strict grammar.

Does: turns the argument of a command into a record.
Promises: knows nothing of the session, of policy or of limits; whatever can't be read is a Refusal with its reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.errors import AddressError, Goodbye, Refusal
from relay.mail import dsn_parameters, status
from relay.mail.address import Address, parse_path
from relay.mail.envelope import Asked
from relay.mail.parameters import parameters
from relay.mail.status import Reply

_SIZE = re.compile(r"[0-9]{1,20}")
"""RFC 1870 5."""

_BDAT = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mail:
    """A MAIL command: the reverse-path (None is the null one), the announced size, and what else was said."""

    reverse_path: Address | None
    size: int = 0
    smtputf8: bool = False
    eight_bit: bool = False
    ret: str = ""
    envid: str = ""
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class Rcpt:
    """A RCPT command: the recipient, and what the sender wants to hear about it."""

    recipient: Address
    asked: Asked


def read_mail(argument: str, *, is_secure: bool = False) -> Mail:
    """`FROM:<path> parameters`, over TLS or not. Raises Refusal."""
    if argument[:5].upper() != "FROM:":
        raise Refusal(status.syntax("MAIL FROM:<address>"))
    try:
        path, rest = parse_path(argument[5:].lstrip(" "), null_allowed=True)
    except AddressError as error:
        raise Refusal(status.bad_sender(str(error))) from None
    given = parameters(rest)
    if given is None:
        raise Refusal(status.syntax("a MAIL parameter can't be read"))
    size, body = given.pop("SIZE", "0"), given.pop("BODY", "7BIT").upper()
    smtputf8 = given.pop("SMTPUTF8", None)
    ret, envid = dsn_parameters.read_ret(given.pop("RET", None)), given.pop("ENVID", None)
    requiretls = given.pop("REQUIRETLS", None) if is_secure else None  # RFC 8689 3
    given.pop("AUTH", None)  # taken and not trusted, as RFC 4954 5 allows
    if given:
        raise Refusal(status.unknown_parameter(f"{next(iter(given))} is not known here"))
    if body == "BINARYMIME":
        raise Refusal(status.unknown_parameter("BINARYMIME is not offered here (RFC 3030 3)"))
    if not _SIZE.fullmatch(size) or body not in ("7BIT", "8BITMIME") or smtputf8 or requiretls:
        raise Refusal(status.syntax("a MAIL parameter has a wrong value"))
    if path is not None and not path.is_ascii and smtputf8 is None:
        raise Refusal(Reply(553, "5.6.7", "this address needs SMTPUTF8"))
    return Mail(
        path,
        int(size),
        smtputf8 is not None,
        body == "8BITMIME",
        ret if requiretls is None else "HDRS",  # what came back whole might travel in clear text (RFC 8689 5)
        dsn_parameters.read_envid(envid),
        requiretls is not None,
    )


def read_rcpt(argument: str, *, smtputf8: bool) -> Rcpt:
    """`TO:<path> parameters`, in a transaction with or without SMTPUTF8. Raises Refusal."""
    if argument[:3].upper() != "TO:":
        raise Refusal(status.syntax("RCPT TO:<address>"))
    try:
        recipient, rest = parse_path(argument[3:].lstrip(" "))
    except AddressError as error:
        raise Refusal(status.bad_recipient(str(error))) from None
    assert recipient is not None
    asked = _read_asked(rest, smtputf8=smtputf8) if rest else Asked()
    if not recipient.is_ascii and not smtputf8:
        raise Refusal(Reply(553, "5.6.7", "this address needs SMTPUTF8"))
    return Rcpt(recipient, asked)


def read_bdat(argument: str) -> tuple[int, bool]:
    """`size [LAST]`: the octets of a chunk, and whether it is the last (RFC 3030 2).

    Raises Goodbye where it can't be read, since nobody knows then how much of what follows is no command.
    """
    match = _BDAT.fullmatch(argument)
    if not match:
        raise Goodbye(status.syntax("BDAT takes a number of octets, and LAST with the last of them"))
    return int(match[1]), match[2] is not None


def _read_asked(text: str, *, smtputf8: bool) -> Asked:
    given = parameters(text)
    if given is None:
        raise Refusal(status.syntax("a RCPT parameter can't be read"))
    notify, orcpt = given.pop("NOTIFY", None), given.pop("ORCPT", None)
    if given:
        raise Refusal(status.unknown_parameter(f"{next(iter(given))} is not known here"))
    if orcpt is not None and not orcpt.isascii() and not smtputf8:
        raise Refusal(Reply(553, "5.6.7", "this ORCPT needs SMTPUTF8"))
    return Asked(dsn_parameters.read_notify(notify), dsn_parameters.read_orcpt(orcpt))

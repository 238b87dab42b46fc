"""What a sender asks about DSNs: RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT (RFC 3461 4), and xtext.

Does: reads the value of a parameter (None where it was not given) into the form in which it is kept and passed on.
Promises: what is kept is printable ASCII without spaces, `+XX` in it stands for printable ASCII only, and reading it
again gives the same.
Refuses: everything else, with `501 5.5.4` and a sentence (RFC 3461 4: a wrong value is a syntax error).
"""

from __future__ import annotations

import re

from relay.errors import Refusal
from relay.mail import status

MAX_ENVID, MAX_ORCPT = 100, 500
"""Longest values (RFC 3461 5.4)."""

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_WORDS = ("SUCCESS", "FAILURE", "DELAY")


def decode_xtext(text: str) -> str:
    """What xtext stands for (RFC 3461 4). Raises ValueError where it is none, or stands for more than printable ASCII.

    The fields of a DSN take no more than that (RFC 3461 4.2, 4.4).
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError(f"{text!r} is not xtext")
    plain = _HEX.sub(lambda match: chr(int(match[1], 16)), text)
    if not (plain.isascii() and plain.isprintable()):
        raise ValueError(f"{text!r} stands for characters that are not printable")
    return plain


def encode_xtext(plain: str) -> str:
    """Printable ASCII as xtext. Raises ValueError for other text."""
    if not (plain.isascii() and plain.isprintable()):
        raise ValueError(f"{plain!r} is not printable ASCII")
    return re.sub(r"[+= ]", lambda match: f"+{ord(match[0]):02X}", plain)


def encode_utf8_address(address: str) -> str:
    """An internationalised address in ASCII, as `utf-8;` wants it (RFC 6533 3, utf-8-addr-xtext)."""
    return "".join(
        character if "!" <= character <= "~" and character not in "+=\\" else f"\\x{{{ord(character):02X}}}"
        for character in address
    )


def read_ret(value: str | None) -> str:
    """FULL, HDRS, or "" (RFC 3461 4.3)."""
    if value is None:
        return ""
    if value.upper() not in ("FULL", "HDRS"):
        raise _refusal("RET is FULL or HDRS")
    return value.upper()


def read_envid(value: str | None) -> str:
    """The envelope id, in xtext as it came, or "" (RFC 3461 4.4)."""
    if value is None:
        return ""
    if not value or len(value) > MAX_ENVID:
        raise _refusal(f"ENVID has 1 to {MAX_ENVID} characters")
    try:
        decode_xtext(value)
    except ValueError:
        raise _refusal("ENVID is not xtext of printable characters") from None
    return value


def read_notify(value: str | None) -> str:
    """NEVER, or what was asked for of SUCCESS, FAILURE and DELAY, as in `DELAY,SUCCESS`; or "" (RFC 3461 4.1)."""
    if value is None:
        return ""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    if not set(words) <= set(_WORDS):
        raise _refusal("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")
    return ",".join(dict.fromkeys(words))


def read_orcpt(value: str | None) -> str:
    """The original recipient as `type;` and xtext, or "" (RFC 3461 4.2).

    It is kept as it came; only an address in UTF-8 (RFC 6533 3, with SMTPUTF8) in the form that every host takes.
    """
    if value is None:
        return ""
    kind, semicolon, address = value.partition(";")
    if not semicolon or not _ATOM.fullmatch(kind) or not address:
        raise _refusal("ORCPT is the type of an address, a semicolon and the address")
    try:
        if kind.lower() == "utf-8":
            address = _utf8_address(address)
        else:
            decode_xtext(address)
    except ValueError:
        raise _refusal("the address in ORCPT is not xtext of printable characters") from None
    kept = f"{kind};{address}"
    if len(kept) > MAX_ORCPT:
        raise _refusal(f"ORCPT has at most {MAX_ORCPT} characters")
    return kept


def _utf8_address(text: str) -> str:
    """An address of the type utf-8 in ASCII. Raises ValueError where it can't be read (RFC 6533 3)."""
    plain = _EMBEDDED.sub(lambda match: _character(match[1]), text)
    if not plain.isprintable() or re.search(r"[+= ]|\\", _EMBEDDED.sub("", text)):
        raise ValueError(f"{text!r} is not an internationalised address")
    return encode_utf8_address(plain)


def _character(digits: str) -> str:
    number = int(digits, 16)
    if number > 0x10FFFF:
        raise ValueError(f"there is no character {digits}")
    return chr(number)


def _refusal(text: str) -> Refusal:
    return Refusal(status.syntax(text))

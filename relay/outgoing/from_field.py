"""The From field of a letter that somebody else wrote, as the institution's: "Name via Library" and its own mailbox.

The name that was there keeps its bytes, in whatever encoding it came; what is put around it is made to stand beside
it. So nothing has to be decoded, and nothing can be read in another way afterwards.
"""

from __future__ import annotations

import re

from relay.config.institutions import Institution
from relay.errors import HeaderError
from relay.mail import headers
from relay.outgoing.encoded_words import phrase

_NAME = re.compile(rb'((?>"(?:[^"\\]|\\.)*+"|[^"<>(),:;@\\]++)*+)<', re.DOTALL)
"""A display name of words and quoted strings, as nearly all are. No step of it is ever taken back."""


def from_field(piece: bytes, institution: Institution) -> bytes:
    """The field in the place of a From field that `headers.from_domains` can read, with its CRLF."""
    value = headers.value_of(piece)
    before, has_name, after = institution.from_name.partition("{name}")
    words = [before.strip(), after.strip()] if has_name else [before]
    parts = [phrase(word) if word else b"" for word in words]
    if has_name:
        parts.insert(1, _name(value))
    text = b" ".join(_spaced(list(filter(None, parts))))
    return b"From: " + text + b"\r\n <" + (institution.from_mailbox or "").encode("ascii") + b">\r\n"


def _name(value: bytes) -> bytes:
    """The display name of the first mailbox, as it stands, or the local part of its address."""
    match = _NAME.match(value)
    if match and (name := match[1].strip()):
        return name
    try:
        local = headers.first_local_part(headers.unfold(value))
    except HeaderError:
        return b""
    return phrase(re.sub(r"\\(.)", r"\1", local.strip('"')))


def _spaced(parts: list[bytes]) -> list[bytes]:
    """Between two encoded words a space is not shown (RFC 2047 6.2), so an encoded one stands between them."""
    spaced = parts[:1]
    for part in parts[1:]:
        if spaced[-1].endswith(b"?=") and part.startswith(b"=?"):
            spaced.append(b"=?utf-8?q?_?=")
        spaced.append(part)
    return spaced

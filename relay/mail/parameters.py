"""Parameters of MAIL and RCPT (RFC 5321 4.1.2, esmtp-param), with the UTF-8 of RFC 6531 3.3."""

from __future__ import annotations

import re

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\u0080-\U0010ffff]+))?")


def parameters(text: str) -> dict[str, str] | None:
    """Parameters by upper-case name ("" without a value); None when one can't be read or comes twice."""
    found: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if not match or match[1].upper() in found:
            return None
        found[match[1].upper()] = match[2] or ""
    return found

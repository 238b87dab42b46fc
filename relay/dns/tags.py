"""Records that are lists of tags, as DKIM and DMARC have them (RFC 6376 3.2, RFC 9989 4.7)."""

from __future__ import annotations

import re

from relay.errors import DnsError

_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)


def read_tags(text: str) -> dict[str, str]:
    """The tags of a record in their order, names in lower case. Raises DnsError with what can't be read."""
    tags: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        match = _TAG.fullmatch(part)
        if match is None:
            raise DnsError(f"{part.strip()[:40]!r} is no tag")
        name = match[1].lower()
        if name in tags:
            raise DnsError(f"the tag {name} stands there twice")
        tags[name] = match[2].strip()
    return tags

"""The settings of pictures on other servers: which URLs may be fetched, and where their copies are kept.

Does: brings URLs into one spelling, compares them with the allow-list, names the copy of each.
Promises: what `Pictures.allows` was asked for and what is fetched are the same bytes: only canonical URLs are compared.
Refuses: URLs with a user, a fragment or dots that climb; patterns without a whole host name.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field

from relay.config.kinds import Duration, Settings

LONGEST_URL = 1000

_PATTERN = re.compile(r"(https?)://(\*\.)?(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(\d{1,5}))?(/[\x21-\x7e]*)", re.IGNORECASE)
_HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.?")
_CLIMBS = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_SAFE = "/:@!$&'()*+,;=~-._%"


def canonical(url: str) -> str | None:
    """The one spelling of a URL that a picture may be fetched from; None when nothing can be."""
    if len(url) > LONGEST_URL or re.search(r"[\x00-\x1f\\]", url):
        return None
    try:
        parts = urlsplit(f"https:{url}" if url.startswith("//") else url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return None
    host = f"[{host}]" if ":" in host else host
    scheme, path = parts.scheme.lower(), quote(parts.path or "/", safe=_SAFE)
    if scheme not in _PORTS or "@" in parts.netloc or not _HOST.fullmatch(host) or _CLIMBS.search(path):
        return None
    shown = f":{port}" if port not in (None, _PORTS[scheme]) else ""
    query = f"?{quote(parts.query, safe=_SAFE + '?')}" if parts.query else ""
    return f"{scheme}://{host}{shown}{path}{query}"


def copy_name(url: str) -> str:
    """Name of the copy of a canonical URL, within the folder of copies."""
    return hashlib.sha256(url.encode()).hexdigest()[:40]


def _pattern(value: str) -> str:
    whole = value if "://" in value else f"https://{value}"
    match = _PATTERN.fullmatch(whole)
    if not match:
        raise ValueError(
            f'{value!r} is no pattern of URLs; one is written as in "https://www.lib.example/logos/*", with a * '
            'anywhere in the path, or at the beginning of the host as in "*.lib.example/logos/*"'
        )
    scheme, wild, host, port, path = match.groups()
    if wild and host.count(".") < 1:
        raise ValueError(f"{value!r} allows a whole top-level domain; name at least a domain, as in *.lib.example/*")
    exact = canonical(f"{scheme}://{host}{f':{port}' if port else ''}{path.replace('*', '-')}")
    if exact is None or "#" in path:
        raise ValueError(f"{value!r} matches no URL that a picture can be fetched from")
    head = exact[: exact.index("/", len("https://"))]
    return head.replace("://", "://*.", 1) + path if wild else head + path


class Pictures(Settings):
    """Pictures on other servers. Slips are printed with copies of them, and never wait for the internet."""

    allow: tuple[Annotated[str, AfterValidator(_pattern)], ...] = ()
    """URLs that may be fetched, as in `https://www.lib.example/logos/*`; https where none is named. Without any,
    nothing is ever fetched.
    """
    folder: Path | None = None
    "Folder of the copies; `pictures` beside the spool's file when it is not set."
    refresh: Annotated[Duration, Field(ge=60)] = 6 * 3600.0
    "Age at which a copy that is used is compared with the server again."

    def allows(self, url: str) -> bool:
        """Whether a canonical URL is on the list."""
        return any(pattern.fullmatch(url) for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_expression, self.allow))


def _expression(pattern: str) -> re.Pattern[str]:
    scheme, _, rest = pattern.partition("://")
    host, slash, path = rest.partition("/")
    wild = host.startswith("*.")
    head = re.escape(scheme) + "://" + (r"[a-z0-9.-]+\." if wild else "") + re.escape(host.removeprefix("*."))
    return re.compile(head + slash + ".*".join(re.escape(piece) for piece in path.split("*")))

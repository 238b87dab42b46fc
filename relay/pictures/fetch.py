"""Fetching pictures from the servers that the configuration allows, after the slips that asked for them.

Does: takes the URLs that a slip asked for, and fetches those of which there is no copy, or one that is older than
`refresh`, one after the other, in the background; asks with the old copy's ETag and date.
Promises: nobody waits for it. TIMEOUT for a picture, MAX_PICTURE bytes, REDIRECTS, each to an allowed URL; no cookies,
no credentials, no compressed answers; names that lead to this machine are not followed unless the list says an address.
A server that fails is asked at growing intervals, up to LONGEST_PAUSE, and the old copy is used meanwhile.
Refuses: what does not begin as a picture does. It is decoded in the rendering child, and nowhere else.
Known limits: no proxy. What a server has no more stays on the shelf.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from relay.config.pictures import Pictures, canonical
from relay.maillog import MailLog
from relay.pictures.shelf import Note, Shelf
from relay.slips.sniff import PICTURES, kind_of

TIMEOUT = 10.0
MAX_PICTURE = 2 * 1024 * 1024
MAX_WAITING = 50
REDIRECTS = 3
FIRST_PAUSE = 300.0
LONGEST_PAUSE = 86400.0


class _NoPicture(Exception):
    """The server gave no picture; the text says why."""


class Fetcher:
    """Fetches for one shelf. `want` in the event loop of the service; `close` there."""

    def __init__(
        self, settings: Pictures, shelf: Shelf, maillog: MailLog | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._shelf = shelf
        self._maillog = maillog
        self._tls = tls
        self._waiting: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def want(self, urls: Iterable[str]) -> None:
        """A slip asked for these. Those that are due are fetched later; the others cost a look."""
        for url in urls:
            if len(self._waiting) < MAX_WAITING and canonical(url) == url and self._settings.allows(url):
                self._waiting[url] = None
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work(), name="pictures")

    async def idle(self) -> None:
        """Wait until nothing is left to do."""
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """Gives up what is under way."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def fetch(self, url: str) -> Note:
        """Fetches a canonical, allowed URL now, and keeps what came. The note says how it went."""
        known = await asyncio.to_thread(self._shelf.note, url)
        note = replace(known or Note(url), asked=time.time())
        content: bytes | None = None
        try:
            async with asyncio.timeout(TIMEOUT):
                note, content = await self._get(note)
            note = replace(note, due=time.time() + self._settings.refresh, failures=0, trouble="")
        except (_NoPicture, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(note.failures, 20))
            trouble = _in_words(error)
            note = replace(note, due=time.time() + pause, failures=note.failures + 1, trouble=trouble)
        await asyncio.to_thread(self._shelf.keep, note, content)
        return note

    async def _work(self) -> None:
        while self._waiting:
            url = next(iter(self._waiting))
            try:
                note = await asyncio.to_thread(self._shelf.note, url)
                if note is None or note.due <= time.time():
                    self._say(await self.fetch(url))
            except OSError as error:  # the disk
                if self._maillog:
                    self._maillog.service("pictures-not-kept", why=error)
                self._waiting.clear()
            finally:
                self._waiting.pop(url, None)

    def _say(self, note: Note) -> None:
        if self._maillog and note.failures:
            self._maillog.service("picture-missing", host=urlsplit(note.url).netloc, why=note.trouble)
        elif self._maillog:
            self._maillog.service("picture-kept", host=urlsplit(note.url).netloc, size=note.size)

    async def _get(self, note: Note) -> tuple[Note, bytes | None]:
        headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "slip-relay"}
        headers |= {"If-None-Match": note.etag} if note.etag and note.size else {}
        headers |= {"If-Modified-Since": note.modified} if note.modified and note.size else {}
        connector = aiohttp.TCPConnector(resolver=_Elsewhere(), ssl=self._tls or True, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        ) as session:
            url = note.url
            for _ in range(REDIRECTS + 1):
                async with session.get(url, headers=headers, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308):
                        url = self._redirected(url, response.headers.get("Location", ""))
                        continue
                    return await self._answered(note, response)
        raise _NoPicture("too many redirects")

    def _redirected(self, url: str, location: str) -> str:
        target = canonical(urljoin(url, location))
        if not location or target is None or not self._settings.allows(target):
            raise _NoPicture("redirected to a place that is not allowed")
        return target

    async def _answered(self, note: Note, response: aiohttp.ClientResponse) -> tuple[Note, bytes | None]:
        if response.status == 304 and note.size:
            return note, None
        if response.status != 200:
            raise _NoPicture(f"the server answered {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _NoPicture("the answer is compressed")
        content = bytearray()
        async for chunk in response.content.iter_chunked(65536):
            content += chunk
            if len(content) > MAX_PICTURE:
                raise _NoPicture(f"the picture has more than {MAX_PICTURE // 1024} KB")
        if kind_of(bytes(content)) not in PICTURES:
            raise _NoPicture("what came is no picture")
        etag, modified = (response.headers.get(name, "")[:300] for name in ("ETag", "Last-Modified"))
        note = replace(note, size=len(content), etag=etag, modified=modified, fetched=time.time())
        return note, bytes(content)


class _Elsewhere(AbstractResolver):
    """Resolves names, but not to this machine: whoever owns an allowed name does not own what listens here."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if host != "localhost":
            found = [one for one in found if not _is_here(one["host"])]
        if not found:
            raise OSError("the name leads nowhere, or to this machine")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _is_here(address: str) -> bool:
    with contextlib.suppress(ValueError):
        ip = ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast
    return True


def _in_words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, (_NoPicture, aiohttp.ClientConnectorError)):
        return str(error)[:200]
    return f"{type(error).__name__}: {error}"[:200]

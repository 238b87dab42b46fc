"""The printer itself, asked by IPP past CUPS: "completed" in CUPS does not mean printed, the device knows better.

Does: asks the device behind a CUPS queue for jobs by their unique name, and for its own state.
Promises: an answer within TIMEOUT and MAX_ANSWER bytes, or PrintError. No credentials, no cookies, no redirects.
Known limits: only devices named by ipp and ipps URIs are asked; certificates of devices are not checked, for hardly one
has a good one, and nothing secret is told to it.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from relay.errors import PrintError
from relay.printing import ipp
from relay.printing.jobs import JobEnd, ended

TIMEOUT = 5.0
MAX_ANSWER = 1024 * 1024
USER = "slip-relay"
"""The name that CUPS gives as the owner of our jobs: devices may show a job's name to nobody else."""

_MOST_JOBS = 500
_JOB_ATTRIBUTES = (
    "job-id",
    "job-name",
    "job-state",
    "job-state-reasons",
    "job-impressions-completed",
    "job-media-sheets-completed",
)
_STATES = {3: "idle", 4: "processing", 5: "stopped"}


@dataclass(frozen=True, slots=True)
class DeviceJob:
    """A job as the device shows it (RFC 8011 5.3)."""

    job_id: int
    state: int
    reasons: tuple[str, ...] = ()
    impressions: int | None = None
    "Sides (or sheets, where it counts only these) that came out so far; None when it does not say."

    @property
    def end(self) -> JobEnd | None:
        """How it ended, or None while it has not."""
        return ended(self.state)


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A printer's own state: `idle`, `processing` or `stopped`, and what it complains of (RFC 8011 5.4.12)."""

    state: str
    reasons: tuple[str, ...] = ()
    accepts_jobs: bool = True


def speaks_ipp(uri: str) -> bool:
    """Whether a device of this URI can be asked."""
    parts = urlsplit(uri)
    return parts.scheme in ("ipp", "ipps") and bool(parts.hostname)


class Device:
    """One device. All questions raise PrintError when it refuses or does not answer."""

    def __init__(self, uri: str, user: str = USER) -> None:
        """`uri` as CUPS has it, options behind a question mark included; see `speaks_ipp`. `user` owns our jobs."""
        self._user = user
        parts = urlsplit(uri)
        self._host = parts.hostname or ""
        secure = parts.scheme == "ipps"
        port = parts.port or 631
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.uri = urlunsplit((parts.scheme, f"{host}:{port}", parts.path or "/", "", ""))
        self._url = urlunsplit(("https" if secure else "http", f"{host}:{port}", parts.path or "/", "", ""))
        self._tls = _unchecked() if secure else None

    async def jobs_named(self, name: str) -> list[DeviceJob]:
        """The jobs of that name which the device still remembers: none, one, or several when CUPS tried again."""
        found = await self._jobs("not-completed") + await self._jobs("completed")
        return [_job(attributes) for attributes in found if _text(attributes, "job-name") == name]

    async def state(self) -> DeviceState:
        """What the device says of itself."""
        wanted = ["printer-state", "printer-state-reasons", "printer-is-accepting-jobs"]
        groups = await self._ask(ipp.GET_PRINTER_ATTRIBUTES, [("requested-attributes", ipp.KEYWORD, wanted)])
        attributes = groups[0] if groups else {}
        number = _number(attributes, "printer-state")
        return DeviceState(
            state=_STATES.get(number or 0, "unknown"),
            reasons=_keywords(attributes, "printer-state-reasons"),
            accepts_jobs=attributes.get("printer-is-accepting-jobs", [True])[:1] != [False],
        )

    async def _jobs(self, which: str) -> list[dict[str, list[object]]]:
        return await self._ask(
            ipp.GET_JOBS,
            [
                ("limit", ipp.INTEGER, _MOST_JOBS),
                ("requested-attributes", ipp.KEYWORD, list(_JOB_ATTRIBUTES)),
                ("which-jobs", ipp.KEYWORD, which),
            ],
        )

    async def _ask(self, operation: int, more: list[ipp.Attribute]) -> list[dict[str, list[object]]]:
        question = ipp.request(
            operation, [("printer-uri", ipp.URI, self.uri), ("requesting-user-name", ipp.NAME, self._user), *more]
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                content = await self._post(question)
        except TimeoutError:
            raise PrintError(f"the printer at {self._host} did not answer within {TIMEOUT:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PrintError(f"the printer at {self._host} can't be asked: {error}") from None
        return ipp.answer(content)

    async def _post(self, question: bytes) -> bytes:
        # A connection for each question: small printers have few, and CUPS needs one.
        connector = aiohttp.TCPConnector(ssl=self._tls or True, force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            ) as session,
            session.post(
                self._url, data=question, headers={"Content-Type": "application/ipp"}, allow_redirects=False
            ) as response,
        ):
            if response.status != 200:
                raise PrintError(f"the printer at {self._host} answered HTTP {response.status}")
            content = bytearray()
            async for block in response.content.iter_any():
                content += block
                if len(content) > MAX_ANSWER:
                    raise PrintError(f"the printer at {self._host} answers without end")
            return bytes(content)


def _job(attributes: dict[str, list[object]]) -> DeviceJob:
    counts = [_number(attributes, name) for name in ("job-impressions-completed", "job-media-sheets-completed")]
    known = [count for count in counts if count is not None]
    return DeviceJob(
        job_id=_number(attributes, "job-id") or 0,
        state=_number(attributes, "job-state") or 0,
        reasons=_keywords(attributes, "job-state-reasons"),
        impressions=max(known) if known else None,
    )


def _text(attributes: dict[str, list[object]], name: str) -> str:
    value = attributes.get(name) or [""]
    return str(value[0])


def _number(attributes: dict[str, list[object]], name: str) -> int | None:
    value = (attributes.get(name) or [None])[0]
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _keywords(attributes: dict[str, list[object]], name: str) -> tuple[str, ...]:
    return tuple(str(value) for value in attributes.get(name, []) if value not in (None, "none"))


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

"""The queues of a CUPS server, and its settings, as far as printing slips depends on them.

Does: asks for some queues by name in one question, and for cupsd.conf where this user may read it.
Promises: changes nothing. Raises PrintError as `CupsServer` does.
Known limits: a class has no device of its own; cupsd.conf is shown by CUPS to its administrators only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cups

from relay.errors import PrintError
from relay.printing.cups import CupsServer, is_unknown, keywords

NO_DRIVER = "Local Raw Printer"
"""What CUPS calls the model of a queue without a driver."""

_STOPPED = 5  # printer-state, RFC 8011 5.4.11
_STATES = {3: "idle", 4: "printing", _STOPPED: "paused"}
_ATTRIBUTES = [
    "device-uri",
    "job-hold-until-default",
    "job-k-limit",
    "job-page-limit",
    "job-sheets-default",
    "media-supported",
    "printer-error-policy",
    "printer-is-accepting-jobs",
    "printer-make-and-model",
    "printer-state",
    "printer-state-message",
    "printer-state-reasons",
    "queued-job-count",
]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as CUPS has it (RFC 8011 5.4, and CUPS's own attributes)."""

    name: str
    device: str
    driver: str = ""
    "Its model; NO_DRIVER when it has none."
    state: int = 3
    reasons: tuple[str, ...] = ()
    message: str = ""
    accepts: bool = True
    "Whether it takes jobs (`printer-is-accepting-jobs`)."
    error_policy: str = "retry-job"
    media: tuple[str, ...] = ()
    "Names of the papers it knows (PWG 5101.1), `custom_min_...` and `custom_max_...` among them."
    banners: tuple[str, ...] = ()
    "Pages before and after each job, but for `none`."
    hold_until: str = "no-hold"
    has_quota: bool = False
    "Whether it counts pages or bytes of a user, and refuses jobs over a limit."
    waiting: int = 0
    "Jobs in it that are not finished."

    @property
    def is_paused(self) -> bool:
        """Whether it prints nothing until somebody enables it."""
        return self.state == _STOPPED

    @property
    def has_driver(self) -> bool:
        """Whether CUPS can make of a PDF what the device understands."""
        return self.driver != NO_DRIVER

    @property
    def shown_state(self) -> str:
        """Its state in a word."""
        return _STATES.get(self.state, "unknown") if self.accepts or self.is_paused else "rejecting"


async def read_queues(server: CupsServer, names: Iterable[str]) -> dict[str, Queue | None]:
    """The queues of these names; None for one that the server does not have."""
    wanted = list(dict.fromkeys(names))

    def read(connection: cups.Connection) -> dict[str, Queue | None]:
        return {name: _read(connection, name) for name in wanted}

    return await server.ask(read)


async def read_settings(server: CupsServer) -> dict[str, str] | None:
    """The directives of cupsd.conf, outside its sections; None where this user may not read them."""

    def read(connection: cups.Connection) -> str:
        with tempfile.TemporaryFile() as file:
            connection.getFile("/admin/conf/cupsd.conf", fd=file.fileno())
            file.seek(0)
            return file.read().decode("utf-8", "replace")

    try:
        return directives(await server.ask(read))
    except PrintError:
        return None


def directives(conf: str) -> dict[str, str]:
    """The directives of a cupsd.conf by their names in small letters; what stands in a section is left out."""
    found: dict[str, str] = {}
    depth = 0
    for line in map(str.strip, conf.splitlines()):
        if line.startswith("</"):
            depth -= 1
        elif line.startswith("<"):
            depth += 1
        elif line and not line.startswith("#") and depth == 0:
            name, _, value = line.partition(" ")
            found[name.lower()] = value.strip()
    return found


def _read(connection: cups.Connection, name: str) -> Queue | None:
    try:
        found = connection.getPrinterAttributes(name, requested_attributes=_ATTRIBUTES)
    except cups.IPPError as error:
        if is_unknown(error):
            return None
        raise
    return queue_from(name, found)


def queue_from(name: str, found: Mapping[str, object]) -> Queue:
    """The queue that its attributes, as pycups gives them, tell of."""
    return Queue(
        name=name,
        device=str(found.get("device-uri") or ""),
        driver=str(found.get("printer-make-and-model") or ""),
        state=_number(found.get("printer-state")),
        reasons=tuple(reason for reason in keywords(found.get("printer-state-reasons")) if reason != "none"),
        message=str(found.get("printer-state-message") or ""),
        accepts=bool(found.get("printer-is-accepting-jobs")),
        error_policy=str(found.get("printer-error-policy") or ""),
        media=keywords(found.get("media-supported")),
        banners=tuple(page for page in keywords(found.get("job-sheets-default")) if page != "none"),
        hold_until=str(found.get("job-hold-until-default") or "no-hold"),
        has_quota=any(_number(found.get(limit)) > 0 for limit in ("job-k-limit", "job-page-limit")),
        waiting=_number(found.get("queued-job-count")),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0

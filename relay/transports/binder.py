"""Batches of one printer: in which order the slips come out that waited, and the page before them.

Does: has a rendering child read each letter that waited, once, where its batch is sorted or has a separator; sorts by
the text of an element; cuts into batches; says which slips may share a document; prints the separator as a job of its
own.
Promises: nothing here touches a delivery. A letter that can't be read is sorted as one without that element; when no
child starts, or reading takes longer than READ_FOR, so are the rest. A separator that can't be printed is logged and
left out; after a crash the rest of a batch may get another one. It names no patron.
Known limit: that CUPS took the separator is all that is asked of it.
"""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from typing import Protocol
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from relay.config.printers import Printer
from relay.config.profiles import Profile
from relay.config.settings import Config
from relay.errors import PrintError, RelayError, RendererUnavailable
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.printing.cups import CupsServer
from relay.printing.jobs import job_options
from relay.resources import templates_folder
from relay.slips.facts import ElementFound, ElementWanted, Facts, Wanted
from relay.slips.slip import Occasion, Slip
from relay.spool.records import Delivery, Key
from relay.spool.store import Store
from relay.transports.merging import MOST_SLIPS, may_share

READ_FOR = 300.0
"""Seconds for reading the letters of all that waited; one takes some 10 ms."""

SEPARATOR_TIMEOUT = 60.0
"""Seconds after which slips no longer wait for their separator."""

MOST_LISTED = 200
"""Slips that a separator lists; it only counts the others."""


class Renderer(Protocol):
    """Who reads letters, and makes pages (`relay.slips.pool.RenderPool`)."""

    async def describe(self, message: bytes, wanted: Wanted) -> Facts:
        """What the letter of a message is like. Raises RenderError and RendererUnavailable."""
        ...

    async def render(self, message: bytes, profile: Profile, occasion: Occasion | None = None) -> Slip:
        """The slip of a message. Raises as `describe` does."""
        ...


class BatchBinder:
    """The batches of one printer."""

    def __init__(
        self, printer: Printer, config: Config, store: Store, renderer: Renderer, cups: CupsServer, maillog: MailLog
    ) -> None:
        self._printer = printer
        self._institution = config.institution(printer.institution)
        # A separator is one page as the printer's slips are, but once, and with nothing of a letter printed large.
        self._profile = config.profile(printer.profile).model_copy(update={"big": None, "copies": 1})
        zone = printer.time_zone or config.server.time_zone
        self._zone = ZoneInfo(zone) if zone is not None else None
        self._store = store
        self._renderer = renderer
        self._cups = cups
        self._maillog = maillog
        self._known: dict[Key, Facts] = {}
        "What was read of the letters of the batches under way."
        elements = (ElementWanted(printer.sort),) if printer.sort is not None else ()
        self._wanted = Wanted(elements=elements, subjects=self._institution.subjects)
        environment = Environment(
            loader=FileSystemLoader(templates_folder() / "batches"), autoescape=True, undefined=StrictUndefined
        )
        self._template = environment.get_template("separator.html")

    async def bind(self, slips: Sequence[Delivery]) -> list[list[Delivery]]:
        """The slips in the order in which they are to come out, in batches of `max_batch`."""
        ordered = list(slips)
        self._known.clear()
        if self._printer.sort is not None:
            await self._read(slips)
            ordered.sort(key=lambda slip: _place(self._text(slip), slip.key))
        size = self._printer.max_batch or len(ordered)
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def groups(self, batch: Sequence[Delivery]) -> list[list[Delivery]]:
        """The batch with those slips together, at the place of the first of them, that may come out in one document:
        they are laid out by the same profile, so many times each, for the same institution.
        """
        groups: list[list[Delivery]] = []
        open_groups: dict[tuple[object, ...], list[Delivery]] = {}
        for slip in batch:
            alike = (slip.message.institution, slip.route, slip.profile, slip.copies, slip.moved_from)
            group = open_groups.get(alike, []) if may_share(slip) else []
            if not group:
                groups.append(group)
            group.append(slip)
            if may_share(slip):
                open_groups[alike] = group if len(group) < MOST_SLIPS else []
        return groups

    async def announce(self, batch: Sequence[Delivery]) -> None:
        """Prints the separator, if the batch is to have one."""
        if not self._printer.separator:
            self._maillog.batch(printer=self._printer.name, slips=len(batch), separator="none")
            return
        why, result = "", "printed"
        try:
            async with asyncio.timeout(SEPARATOR_TIMEOUT):
                await self._print_separator(batch)
        except TimeoutError:
            why, result = f"it took longer than {SEPARATOR_TIMEOUT:g} s", "failed"
        except RelayError as error:
            why, result = str(error), "failed"
        self._maillog.batch(printer=self._printer.name, slips=len(batch), separator=result, why=why)

    async def _print_separator(self, batch: Sequence[Delivery]) -> None:
        listed = batch[:MOST_LISTED]
        await self._read(listed)
        rows = [{"kind": self._kind(delivery), "queue_id": delivery.message.queue_id} for delivery in listed]
        now = datetime.now(self._zone).astimezone(self._zone)
        page = self._template.render(
            language=self._institution.language,
            desk=self._printer.desk or self._printer.name,
            time=now.strftime("%Y-%m-%d %H:%M"),
            count=len(batch),
            slips=rows,
        )
        slip = await self._renderer.render(_message(page), self._profile, self._occasion(now))
        options = job_options(self._profile, (slip.width_mm, slip.height_mm), slip.pages)
        name = f"batch-{new_queue_id()}"
        try:
            job_id = await self._cups.create_job(self._printer.queue, name, options)
            await self._cups.send_document(self._printer.queue, job_id, name, slip.pdf)
        except PrintError as error:
            raise PrintError(f"the separator {name} could not be handed over: {error}") from None

    async def _read(self, slips: Sequence[Delivery]) -> None:
        """Has letters read that were not, one after the other, so that others get their turn with the children."""
        ends = time.monotonic() + READ_FOR
        for slip in slips:
            if slip.key in self._known:
                continue
            if time.monotonic() > ends:
                break
            try:
                content = await self._store.content(slip.message)
                self._known[slip.key] = await self._renderer.describe(content, self._wanted)
            except RendererUnavailable:
                break
            except RelayError as error:  # whoever prints it says what is wrong with it
                self._known[slip.key] = Facts(unreadable=str(error))

    def _text(self, slip: Delivery) -> str:
        """The text that a slip is sorted by."""
        found = self._known.get(slip.key, Facts()).elements.get(self._wanted.elements[0], ElementFound())
        return next((text for text in found.samples if text), "")

    def _kind(self, slip: Delivery) -> str:
        letter_type = self._known.get(slip.key, Facts()).letter_type
        return letter_type.name if letter_type is not None else ""

    def _occasion(self, now: datetime) -> Occasion:
        return Occasion(
            desk=self._printer.desk or self._printer.name,
            institution=self._printer.institution,
            received_at=now,
            printed_at=now,
        )


def natural(text: str) -> tuple[int | str, ...]:
    """A key by which texts sort as people sort shelf marks: digits by their number, case does not count."""
    parts = re.split(r"(\d+)", unicodedata.normalize("NFKC", text).casefold())
    # Words and numbers take turns, so that like is compared with like.
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts))


def _place(text: str, key: Key) -> tuple[bool, tuple[int | str, ...], Key]:
    """What has no text comes last; what has the same in order of arrival."""
    return not text, natural(text), key


def _message(page: str) -> bytes:
    message = EmailMessage()
    message.set_content(page, subtype="html")
    return message.as_bytes(policy=SMTP)

"""A letter on its way to one of several hosts, made ready for what each of them takes, and no oftener than needed."""

from __future__ import annotations

import asyncio

from relay.outgoing.assemble import Assembler, OutgoingMail
from relay.spool.records import Delivery

LARGE = 256 * 1024
"""Bytes from which on a message is signed off the event loop: a 25 MB letter takes a tenth of a second."""


class Letter:
    """A delivery with the bytes it came with."""

    def __init__(self, assembler: Assembler, delivery: Delivery, content: bytes) -> None:
        self._assembler = assembler
        self._delivery = delivery
        self._content = content
        self._made: OutgoingMail | None = None

    async def ready_for(self, offers: frozenset[str]) -> OutgoingMail:
        """The mail for a host with these extensions. Raises BadSignature and Unconvertible.

        What was made for a host that takes less is for all others, too.
        """
        if self._made is None or not self._made.suits(offers):
            if len(self._content) < LARGE:
                self._made = self._assembler.assemble(self._delivery, self._content, offers)
            else:
                self._made = await asyncio.to_thread(self._assembler.assemble, self._delivery, self._content, offers)
        return self._made

"""One document of several slips: each slip of a bundle rendered as it would be by itself, then all on common sheets.

Promises: a letter that can't be rendered, or whose bytes are not those accepted, leaves the bundle with its reason
before anything is printed, and the others go on; so does, to be printed right after, what one document has no room for.
Refuses: a reprint of a bundle whose slips can't all be had again (RenderError).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from relay.config.profiles import Profile
from relay.errors import CorruptBody, RendererDied, RenderError
from relay.slips.pool import RenderPool
from relay.slips.slip import Occasion, Slip
from relay.slips.stack import Piece, is_strip, plan, strip
from relay.spool.records import Delivery, Outcome, State
from relay.spool.store import Store

MOST_SLIPS = 50
"""Slips of one bundle."""

MOST_BYTES = 32 * 1024 * 1024
"""Bytes of the PDFs of one document: of more, what is over comes in the next one."""

NO_ROOM = Outcome(State.DEFERRED, "one document has no room for it; it is printed right after")


@dataclass(frozen=True, slots=True)
class Parts:
    """The slips of a bundle as they were rendered, and those that leave it, with what becomes of them."""

    slips: list[tuple[Delivery, Slip]] = field(default_factory=list)
    leaving: list[tuple[Delivery, Outcome]] = field(default_factory=list)


def may_share(slip: Delivery) -> bool:
    """Whether a slip may come out in one document with others: nothing of it is at a printer, and nobody wants to be
    told of it by itself.
    """
    return slip.merge and not slip.is_bundle and slip.reprint_of is None and slip.job is None and _is_silent(slip)


class Merger:
    """Makes the documents of one printer."""

    def __init__(self, store: Store, renderer: RenderPool, most_sheets: int) -> None:
        self._store = store
        self._renderer = renderer
        self._most_sheets = most_sheets

    async def parts(self, bundle: str, profile: Profile, occasion: Callable[[Delivery], Occasion]) -> Parts:
        """The slips of a bundle, `QUEUE-ID/NUMBER`. Raises RendererUnavailable, and SpoolError."""
        found = Parts()
        pieces: list[Piece] = []
        size = 0
        for member in await self._store.members(bundle):
            if len(pieces) > len(found.slips):
                found.leaving.append((member, NO_ROOM))
                continue
            try:
                slip = await self._render(member, profile, occasion(member))
            except RenderError as error:
                found.leaving.append((member, Outcome(State.HELD, f"can't be rendered: {error}")))
                continue
            except CorruptBody as error:
                found.leaving.append((member, Outcome(State.CORRUPT, str(error))))
                continue
            pieces.append(Piece(slip.pages, slip.height_mm))
            size += len(slip.pdf)
            has_room = len(plan(pieces, profile, self._most_sheets).places) == len(pieces)
            if has_room and (size <= MOST_BYTES or not found.slips):
                found.slips.append((member, slip))
            else:
                found.leaving.append((member, NO_ROOM))
        return found

    async def document(self, slips: Sequence[tuple[Delivery, Slip]], profile: Profile) -> Slip:
        """The slips as one. Raises as the renderer."""
        made = await self._renderer.stack([slip.pdf for _, slip in slips], profile)
        return replace(made, notes=tuple(f"{member}: {note}" for member, slip in slips for note in slip.notes))

    async def again(self, bundle: str, profile: Profile, occasion: Callable[[Delivery], Occasion]) -> Slip | None:
        """The document of a bundle that was printed before; None where that is none. Raises as the renderer, and
        RenderError when something is missing.
        """
        parts = await self.parts(bundle, profile, occasion)
        if parts.leaving:
            member, outcome = parts.leaving[0]
            raise RenderError(f"the slip {member} of it is missing ({outcome.reason}): reprint its slips one by one")
        return await self.document(parts.slips, profile) if parts.slips else None

    async def _render(self, member: Delivery, profile: Profile, occasion: Occasion) -> Slip:
        content = await self._store.content(member.message)
        try:
            slip = await self._renderer.render(content, strip(profile), occasion)
            if is_strip(Piece(slip.pages, slip.height_mm), profile):
                return slip
        except RendererDied:
            raise
        except RenderError:  # a strip may be too long where sheets are not too many; they have the last word
            if profile.page_size[1] is None:
                raise
        return await self._renderer.render(content, profile, occasion)


def _is_silent(slip: Delivery) -> bool:
    return "SUCCESS" not in slip.notify.split(",")

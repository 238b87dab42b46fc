"""A slip once more: from the PDF that was printed, while it is kept, else rendered again from the letter.

Promises: what was printed comes out as it was, whatever became of templates and profiles since; where it is rendered
again (the PDF is gone, was too large to keep, or was made for another profile), the reason of the delivery says so,
and the mark on paper, if there is one. The mark covers nothing of the slip.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from relay.config.profiles import Profile
from relay.slips.pool import RenderPool
from relay.slips.slip import Slip
from relay.spool.records import Delivery, Paper
from relay.spool.store import Store

AS_IT_WAS = "a reprint of {of}, from the PDF that was kept"
RENDERED_AGAIN = "a reprint of {of}, rendered again: no PDF of it is kept for this profile"
_NEAR_MM = 1.0


async def reprinted(
    delivery: Delivery, profile: Profile, store: Store, renderer: RenderPool, render: Callable[[], Awaitable[Slip]]
) -> tuple[Slip, bool]:
    """The slip of a reprint, and whether it is from the PDF that was kept; else it is what `render` gives. Raises as
    the renderer, and SpoolError.
    """
    assert delivery.reprint_of is not None, "it is a reprint"
    queue_id = delivery.message.queue_id
    paper = await store.paper((queue_id, delivery.reprint_of))
    of, words = f"{queue_id}/{delivery.reprint_of}", "REPRINT {now:%Y-%m-%d %H:%M}"
    if paper is not None and paper.pdf is not None and _is_for(paper, profile):
        note, is_kept = AS_IT_WAS, True
        slip = Slip(paper.pdf, paper.pages, paper.width_mm, paper.height_mm)
    else:
        note, is_kept, words = RENDERED_AGAIN, False, words + ", rendered again"
        slip = await render()
    if delivery.marked:
        now = datetime.now().astimezone()
        marked = await renderer.mark(slip.pdf, words.format(now=now), profile)
        slip = replace(slip, pdf=marked.pdf, pages=marked.pages, width_mm=marked.width_mm, height_mm=marked.height_mm)
    return replace(slip, notes=(note.format(of=of), *slip.notes)), is_kept


def _is_for(paper: Paper, profile: Profile) -> bool:
    """Whether the paper is that of a profile: by its name, and by its size, should the profile have changed since."""
    width, height = profile.page_size
    fits = abs(paper.width_mm - width) < _NEAR_MM and (height is None or abs(paper.height_mm - height) < _NEAR_MM)
    return paper.profile == profile.name and fits

"""A profile tried on a sample letter, before the first slip needs it.

Does: fills the profile's template, own style sheet and selector in, as for a slip.
Promises: what would hold every slip of this profile is told now, with the setting it stands in.
Known limits: a mistake that only some letters bring out is not found, nor one in the CSS: what CSS does not know it
ignores.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from relay.config.profiles import Profile
from relay.errors import RenderError
from relay.slips.page import Page, compose, environment, own_css
from relay.slips.sanitize import sanitize
from relay.slips.selectors import first_text
from relay.slips.slip import Occasion
from relay.slips.tree import parse

_SAMPLE = """<html lang="en"><body><h1>Resource request</h1>
<p class="sample">Jane Sample</p><table><tr><td>Title</td><td>A sample</td></tr></table></body></html>"""
_MOMENT = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)


def faults(profile: Profile) -> list[tuple[str, str]]:
    """Why slips of this profile could not be rendered: the name of the setting, and the reason. Empty when they can."""
    letter = sanitize(_SAMPLE, lambda _reference: "")
    occasion = Occasion("Main desk", "0000000000000", "sample", _MOMENT, _MOMENT)
    templates, code = environment(profile.template), "SAMPLE" if profile.big is not None else ""
    plain = profile.model_copy(update={"stylesheet": None})
    trials: list[tuple[str, Callable[[], object]]] = [
        ("template", lambda: compose(templates, plain, Page.of(profile), letter, "", occasion=occasion, code=code)),
        ("stylesheet", lambda: own_css(profile)),
        ("big.select", lambda: first_text(parse(letter.body), profile.big.select if profile.big else "p")),
    ]
    found = []
    for setting, trial in trials:
        try:
            trial()
        except RenderError as error:
            found.append((setting, str(error)))
    return found

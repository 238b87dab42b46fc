"""The settings of notices: after how long somebody is told that something is wrong, or that no mail comes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from relay.config.kinds import Duration, Settings


class Notices(Settings):
    """When `notify` of a printer or an institution is told. "0s" is never."""

    trouble_after: Duration = 900.0
    "A printer's slips have not come out for so long, though one is under way."
    waiting_after: Duration = 3600.0
    "A slip is so old and not on paper, or waits so long for a person."
    silent_after: Duration = 0.0
    "No mail has come for an institution for so long; without it nobody is told of silence."
    look_every: Annotated[Duration, Field(ge=0.2)] = 30.0
    "Time between two looks."

"""The settings of rules: what a rule looks at, and what it does.

A rule that only looks at the envelope, the size and the time is judged when the mail arrives. One that looks into the
letter (`reads_letter`) is judged when a rendering child has read it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from relay.config.hours import Day, TimeZone, minutes
from relay.config.kinds import Mailbox, Name, Settings, Size, mailbox

Pattern = Annotated[str, Field(min_length=1, max_length=500)]
"""Text with `*` and `?`; case does not count."""


def _copy_to(value: str) -> str:
    return mailbox(value) if "@" in value else value


class Element(Settings):
    """An element that has to be in the letter."""

    selector: Annotated[str, Field(min_length=1, max_length=500)]
    "CSS selector, as in `#destination` or `td.to`."
    any_of: tuple[Pattern, ...] = ()
    "Patterns of its text, one of which has to fit; without them it only has to be there."


class Rule(Settings):
    """What happens with mail that fits all its conditions; the rules are asked in their order.

    A rule with an action (print, next_hop, hold, discard, forward) decides, and is the last one asked. One without an
    action only adds copies, or says how it is printed (profile, copies, merge), and the next rule is asked.
    """

    name: Name
    recipient: str = "*"
    "Pattern of the envelope recipient, as in `*@desk.example.edu`."
    institution: Name | None = None
    "Only mail of this institution."
    source: Name | None = None
    "Only mail that this source sent."
    sender: Pattern | None = None
    "Pattern of the reverse-path, as in `*@exlibrisgroup.com` (`<>` is none); without @ of the From domain."
    larger_than: Size | None = None
    "Only messages of more bytes than this."
    smaller_than: Size | None = None
    "Only messages of fewer bytes than this."
    hours: str | None = None
    "Only what arrives at these hours, as in `18:00-08:00`."
    days: tuple[Day, ...] = ()
    "Only what arrives on these days of the week; of a night counts the day on which it begins."
    time_zone: TimeZone | None = None
    "Whose clock hours and days mean, as in `Europe/Berlin`; without it `server.time_zone`."
    letter_type: tuple[Pattern, ...] = ()
    "Only letters of one of these types, as in `FulTransitSlipLetter`; patterns. What is not recognised fits none."
    printer_code: Pattern | None = None
    "Pattern of the code of Alma's printer, which only the marker in the letter tells (docs/alma-marker.md)."
    library_code: Pattern | None = None
    "Pattern of the code of Alma's library, which only the marker in the letter tells."
    text: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    "Only letters in whose text this stands; case and line breaks do not count."
    attached: tuple[Pattern, ...] = ()
    "Only messages with a file of one of these media types attached, as in `application/vnd.*`; patterns."
    elements: Annotated[tuple[Element, ...], Field(max_length=20)] = ()
    "Only letters that have each of these elements."
    same_list: tuple[Annotated[tuple[Pattern, ...], Field(min_length=1)], ...] = ()
    "Lists of patterns: all the elements have to fit the same list, as both ends of a transit within a building."
    print: Name | None = None
    "Print on this printer."
    next_hop: Name | None = None
    "Send to this next hop."
    hold: str | None = None
    "Keep for a person to decide; the text is the reason shown."
    discard: bool = False
    "Accept, record and drop."
    forward: tuple[Mailbox, ...] = ()
    "Send to these addresses instead."
    copy_to: tuple[Annotated[str, AfterValidator(_copy_to)], ...] = ()
    "Printers and addresses that get it as well."
    profile: Name | None = None
    "Profile that lays it out, instead of the printer's own."
    copies: Annotated[int, Field(ge=1, le=20)] | None = None
    "How often it is printed, whatever the profile says."
    merge: bool = False
    "Short slips that wait for the same printer's hours or release time come out as one document, several on a sheet."

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: str | None) -> str | None:
        if value is not None:
            minutes(value)
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        actions = [self.print is not None, self.next_hop is not None, self.hold is not None, self.discard]
        actions.append(bool(self.forward))
        for_paper = self.profile is not None or self.copies is not None or self.merge
        if sum(actions) > 1:
            raise ValueError("a rule has only one of print, next_hop, hold, discard and forward")
        if not any(actions) and not self.copy_to and not for_paper:
            raise ValueError(
                "a rule has exactly one of print, next_hop, hold, discard and forward, "
                "or else copy_to, profile, copies or merge"
            )
        if for_paper and any(actions) and self.print is None:
            raise ValueError("profile, copies and merge are for what is printed")
        if self.same_list and not self.elements:
            raise ValueError("same_list needs the elements that are to be in the same list")
        if self.time_zone is not None and self.hours is None and not self.days:
            raise ValueError("time_zone goes with hours or days")
        if None not in (self.larger_than, self.smaller_than) and self.larger_than >= self.smaller_than:  # type: ignore[operator]
            raise ValueError("no message is larger_than and smaller_than these sizes")
        return self

    @cached_property
    def decides(self) -> bool:
        """Whether no further rule is asked when this one matches."""
        return self.print is not None or self.next_hop is not None or self.hold is not None or self.ends

    @property
    def ends(self) -> bool:
        """Whether the delivery itself goes no further: it is dropped, or others go in its stead."""
        return self.discard or bool(self.forward)

    @cached_property
    def reads_letter(self) -> bool:
        """Whether the letter has to be read to tell whether it matches."""
        return bool(
            self.letter_type
            or self.attached
            or self.elements
            or self.text is not None
            or self.printer_code is not None
            or self.library_code is not None
        )

    @cached_property
    def is_simple(self) -> bool:
        """Whether it looks at the recipient and the institution only, and does nothing but decide the way."""
        return (
            self._conditions <= {"recipient", "institution"} and self.decides and not self.forward and not self.copy_to
        )

    @property
    def _conditions(self) -> set[str]:
        return {name for name in CONDITIONS if getattr(self, name) != type(self).model_fields[name].default}


CONDITIONS = (
    "institution",
    "source",
    "recipient",
    "sender",
    "larger_than",
    "smaller_than",
    "hours",
    "days",
    "time_zone",
    "letter_type",
    "printer_code",
    "library_code",
    "text",
    "attached",
    "elements",
    "same_list",
)
"""The settings of a rule that say which mail it is for; the others say what happens with it."""

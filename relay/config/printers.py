"""The settings of paper: CUPS, the renderer, profiles and printers."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from relay.config.kinds import Duration, Mailbox, Name, Settings, Size, Text, paper_size
from relay.config.next_hops import Retry


class Cups(Settings):
    """The CUPS server that has the printers."""

    server: str = "/run/cups/cups.sock"
    "Path of its socket, or host:port."
    timeout: Duration = 30.0
    "Longest wait for an answer."

    @field_validator("server")
    @classmethod
    def _place(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not value.startswith("/") and not (host and colon and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError('a CUPS server is the path of its socket, or host:port as in "localhost:631"')
        return value

    poll: Annotated[Duration, Field(ge=0.05)] = 1.0
    "Time between two questions about a job under way."


class Rendering(Settings):
    """The children that turn slips into PDF."""

    children: Annotated[int, Field(ge=1, le=32)] = 2
    "Warm rendering processes; with one, a letter that takes long keeps the slips of all printers waiting."
    timeout: Duration = 30.0
    "Longest time for one slip."
    memory: Annotated[Size, Field(ge=256 * 1024 * 1024)] = Size(1024 * 1024 * 1024)
    "Most memory of one child; one that is warm has 190 MiB mapped."
    max_pages: Annotated[int, Field(ge=1, le=1000)] = 50
    "A slip with more pages is held."


class Profile(Settings):
    """How a slip is laid out for a kind of printer."""

    name: Name
    paper: str
    "A4, A5, Letter, a sheet as in `100x150mm`, or a roll as in `80mm`: as long as its content."
    margin_mm: Annotated[float, Field(ge=0, le=100)] = 12.0
    "Margin on all four sides, in millimetres."
    font_family: str = "Liberation Sans, DejaVu Sans, sans-serif"
    "Fonts for text that names none."
    font_size_pt: Annotated[float, Field(ge=4, le=72)] = 11.0
    "Size of text that names none, in points."
    dpi: Annotated[int, Field(ge=72, le=2400)] = 300
    "Resolution of the printer."
    template: str = "slip.html"
    "Jinja2 page template: one of templates/slips, or the path of your own."

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width, height = paper_size(self.paper)
        if 2 * self.margin_mm > min(width, height or width) - 10:
            raise ValueError(f"margins of {self.margin_mm} mm leave no room on {self.paper}")
        return self


BUILT_IN_PROFILES = (
    Profile(name="a4", paper="A4"),
    Profile(name="a5", paper="A5", margin_mm=8.0, font_size_pt=10.0),
    Profile(name="letter", paper="Letter"),
    Profile(name="receipt80", paper="80mm", margin_mm=4.0, font_size_pt=9.0, dpi=203, template="receipt.html"),
)


class Printer(Settings):
    """A printer: the mailboxes Alma writes to and the CUPS queue the paper comes from."""

    name: Name
    institution: Name
    "Institution whose slips it prints; nobody else's."
    mailboxes: Annotated[tuple[Mailbox, ...], Field(min_length=1)]
    "Addresses that stand for it, as entered in Alma."
    queue: Text
    "Name of its CUPS queue."
    profile: Name
    "Profile that lays out its slips."
    retry: Retry = Retry()
    "Other times than those of [delivery]."

    @model_validator(mode="after")
    def _never_given_up(self) -> Self:
        if self.retry.expire_after is not None:
            raise ValueError("slips never expire: leave out retry.expire_after")
        return self

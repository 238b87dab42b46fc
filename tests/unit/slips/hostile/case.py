"""What a hostile letter is: a name, how it is built, and how it has to end.

A `Trap` is what the letters try to reach: a server that counts who calls, a file with a secret, a picture in a colour
that nobody else uses. Every letter that has something to print carries MARK, so that one can see it was printed whole.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from email.mime.base import MIMEBase
from pathlib import Path

from tests.unit.slips.letters import letter

MARK = "Shelf mark QX 27"
SECRET = "Perlmutt-4711-Quittenbrot"
COLOR = (250, 0, 250)
"""Of the picture that lies beside the secret."""


class End(enum.Enum):
    """How a letter has to end."""

    PRINTED = "a slip with MARK on it"
    REFUSED = "a RenderError; the child stays"
    HELD = "a RenderError, or the child is killed: which of them depends on the machine"


@dataclass(frozen=True, slots=True)
class Trap:
    """What hostile letters try to reach: `http://127.0.0.1:{port}/` and two files."""

    port: int
    secret: Path
    picture: Path

    @property
    def targets(self) -> tuple[str, ...]:
        """The same places under many names; the first ones are those that would work in most readers."""
        port, secret, picture = self.port, self.secret, self.picture
        return (
            f"http://127.0.0.1:{port}/a.png",
            f"file://{picture}",
            f"file://{secret}",
            f"//127.0.0.1:{port}/b.png",
            f"HtTp://localhost:{port}/c.png",
            f"http://[::1]:{port}/d.png",
            f"http://2130706433:{port}/e.png",
            f"http://desk@127.0.0.1:{port}/f.png",
            f" \tht\ntp://127.0.0.1:{port}/g.png",
            f"https://127.0.0.1:{port}/h.png",
            f"ftp://127.0.0.1:{port}/i.png",
            str(picture),
            str(secret),
            f"../../../../../../../..{picture}",
            f"file://localhost{secret}",
            f"file:{picture}",
            "file:///etc/passwd",
            "file:///proc/self/environ",
            "/proc/self/cmdline",
            "\\\\127.0.0.1\\share\\x.png",
            f"cid:../../../../../../../..{picture}",
        )


@dataclass(frozen=True, slots=True)
class Hostile:
    """One letter. `says` is what a note, or the error, has to say; `heavy` ones are for `make prove`."""

    name: str
    build: Callable[[Trap], bytes]
    end: End = End.PRINTED
    says: str = ""
    heavy: bool = False


def page(html: str, *pictures: MIMEBase, head: str = "") -> bytes:
    """A letter with this HTML below MARK."""
    return letter(f"<html><head>{head}</head><body><p>{MARK}</p>\n{html}\n</body></html>", *pictures)


def printed(name: str, html: str, *, head: str = "", says: str = "", heavy: bool = False) -> Hostile:
    """A letter of this HTML that is printed."""
    return Hostile(name, lambda trap: page(html, head=head), says=says, heavy=heavy)


def fixed(name: str, message: bytes, end: End = End.PRINTED) -> Hostile:
    """A letter that is this message."""
    return Hostile(name, lambda trap: message, end)


def held(name: str, html: str, *, head: str = "", says: str = "", heavy: bool = False) -> Hostile:
    """A letter of this HTML that is held, one way or the other."""
    return Hostile(name, lambda trap: page(html, head=head), End.HELD, says, heavy)


def refused(name: str, html: str, says: str, *, head: str = "", heavy: bool = False) -> Hostile:
    """A letter of this HTML that is refused, with these words."""
    return Hostile(name, lambda trap: page(html, head=head), End.REFUSED, says, heavy)

"""What people read in mail of ours: templates of templates/dsn, notices or trials, one for each language, filled in
and wrapped.

A template gives a head (`From:` with the display name and `Subject:`), an empty line, and paragraphs. Lines that begin
with a space stand by themselves; the others are joined and wrapped.
Promises: what is filled in stays on the line where it was put.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from relay.bounces.mime import Words
from relay.mail.status import printable
from relay.resources import templates_folder

WIDTH = 72
"""Characters of a line."""


class Templates:
    """The templates of some languages, compiled."""

    def __init__(self, languages: Iterable[str], folder: Literal["dsn", "notices", "trials"] = "dsn") -> None:
        """Compiles them, so that one that is wrong is found at the start."""
        environment = Environment(
            loader=FileSystemLoader(templates_folder() / folder),
            autoescape=False,  # noqa: S701 - plain text
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates = {language: environment.get_template(f"{language}.txt") for language in languages}

    def fill(self, language: str, kind: str, **values: str | bool) -> Words:
        """The words of a message of that kind, as the templates of the folder call it."""
        clean = {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}
        head, _, body = self._templates[language].render(kind=kind, **clean).partition("\n\n")
        fields = dict(line.split(": ", 1) for line in head.strip().splitlines())
        return Words(fields["From"], fields["Subject"], "\n".join(_wrapped(body)))


def local_time(seconds: float) -> str:
    """A time as people of every language read it: 2026-11-24 18:27 +01:00."""
    text = datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "minutes")
    return f"{text[:16]} {text[16:]}"


def _wrapped(text: str) -> Iterator[str]:
    paragraph: list[str] = []
    for line in [*text.strip("\n").split("\n"), ""]:
        if line and not line.startswith(" "):
            paragraph.append(line)
            continue
        if paragraph:
            yield from _lines(" ".join(paragraph), "")
            paragraph = []
        text = line.lstrip(" ")
        yield from _lines(text, line[: len(line) - len(text)]) or [""]


def _lines(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

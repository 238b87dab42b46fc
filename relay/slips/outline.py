"""What a letter is made of, seen in one pass over its tags: names, pictures, headings, marks and text.

Promises: bounded work; no tree is built. Names (ids, classes, pictures) are in small letters, pictures without `cid:`
and folders.
Refuses: letters with more tags or deeper nesting than `sanitize` takes (RenderError).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser

from relay.errors import RenderError
from relay.slips.sanitize import EMPTIED, MAX_DEPTH, MAX_TAGS

MARKS = ("slip-relay", "print_type")
"""Ids of elements that may say what the letter is."""

_MAX_NAMES = 500
_MAX_TEXT = 1024 * 1024
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())  # noqa: SIM905
_CLOSED_BY_OTHERS = frozenset("p li dt dd td th tr".split())  # noqa: SIM905
_BLOCKS = frozenset(
    "address article aside blockquote br dd div dl dt footer h1 h2 h3 h4 h5 h6 header hr li ol p pre section table td th tr ul".split()  # noqa: SIM905, E501
)
_SPACES = re.compile(r"\s+")


@dataclass(slots=True)
class Outline:
    """The traits of a letter."""

    tags: Counter[str] = field(default_factory=Counter)
    classes: set[str] = field(default_factory=set)
    pictures: set[str] = field(default_factory=set)
    "File names of the pictures that it shows."
    metas: list[dict[str, str]] = field(default_factory=list)
    marks: dict[str, tuple[str, str]] = field(default_factory=dict)
    "Title and text of the elements that may say what the letter is, by their id."
    headings: list[str] = field(default_factory=list)
    text: str = ""
    "All of its visible text, with single spaces."


def outline(html: str) -> Outline:
    """The traits of a letter's HTML. Raises RenderError when it is too large to look at."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    reader.end_mark()
    reader.found.text = squeezed("".join(reader.words))
    return reader.found


def squeezed(text: str) -> str:
    """Text with single spaces."""
    return _SPACES.sub(" ", text).strip()


def file_name(reference: str) -> str:
    """The bare name of a picture, in small letters."""
    name = reference.strip().lower().removeprefix("cid:")
    return re.split(r"[?#]", name, maxsplit=1)[0].strip("<> ").replace("\\", "/").rsplit("/", 1)[-1]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found = Outline()
        self.words: list[str] = []
        self._length = 0
        self._count = 0
        self._depth = 0
        self._hidden: str | None = None
        self._heading: list[str] | None = None
        self._mark: tuple[str, str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._count += 1
        if tag not in _VOID and tag not in _CLOSED_BY_OTHERS:
            self._depth += 1
        if self._count > MAX_TAGS:
            raise RenderError(f"the letter has more than {MAX_TAGS} elements")
        if self._depth > MAX_DEPTH:
            raise RenderError(f"the elements of the letter are nested deeper than {MAX_DEPTH}")
        self._note(tag, {name: (value or "")[:1000] for name, value in attrs})
        if tag in EMPTIED:
            self._hidden = tag
        elif tag in _BLOCKS:
            self._say(" ")
        if tag == "h1" and len(self.found.headings) < 10:
            self._heading = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID and tag not in _CLOSED_BY_OTHERS:
            self._depth = max(0, self._depth - 1)
        if tag == self._hidden:
            self._hidden = None
        if tag in _BLOCKS:
            self._say(" ")
        if tag == "h1" and self._heading is not None:
            self.found.headings.append(squeezed("".join(self._heading))[:300])
            self._heading = None
        self.end_mark()

    def end_mark(self) -> None:
        """The element that says what the letter is has ended."""
        if self._mark is not None:
            name, title, words = self._mark
            self.found.marks.setdefault(name, (title, squeezed("".join(words))[:300]))
            self._mark = None

    def handle_data(self, data: str) -> None:
        if self._hidden is None:
            self._say(data)

    def _say(self, words: str) -> None:
        if self._length < _MAX_TEXT:
            self._length += len(words)
            self.words.append(words)
        for listener in (self._heading, self._mark[2] if self._mark is not None else None):
            if listener is not None and len(listener) < 100:
                listener.append(words[:300])

    def _note(self, tag: str, attributes: dict[str, str]) -> None:
        found = self.found
        found.tags[tag] += 1
        if tag == "img" and "src" in attributes and len(found.pictures) < _MAX_NAMES:
            found.pictures.add(file_name(attributes["src"]))
        elif tag == "meta" and len(found.metas) < 50:
            found.metas.append(attributes)
        if "class" in attributes and len(found.classes) < _MAX_NAMES:
            found.classes.update(attributes["class"].lower().split())
        name = attributes.get("id", "").lower()
        if name in MARKS and name not in found.marks:
            self._mark = (name, attributes.get("title", ""), [])

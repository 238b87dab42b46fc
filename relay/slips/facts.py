"""What a rendering child tells about a letter when the rules ask: records, and how they travel in a frame.

Promises: what comes from a child is read as bounded words and numbers, because a child has read hostile mail. None of
it is for a log, but for the type and the codes, which have no more than letters, digits and a few signs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_SAMPLES = 5
"""Texts of elements that are brought back for a person who asks why a rule did not match."""

MAX_SAMPLE = 200
"""Characters of such a text."""

FoundBy = Literal["marker", "fingerprint", "subject"]

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_CODE = re.compile(r"[\w .:/+-]{1,80}")


@dataclass(frozen=True, slots=True)
class LetterType:
    """What kind of letter it is, by Alma's name (`FulTransitSlipLetter`), and how that was found out."""

    name: str
    found_by: FoundBy

    def __str__(self) -> str:
        return f"{self.name} (by its {self.found_by})"


@dataclass(frozen=True, slots=True)
class ElementWanted:
    """A question about elements of a letter."""

    selector: str
    any_of: tuple[str, ...] = ()
    "Patterns, one of which has to fit the text of an element; without them any element will do."
    lists: tuple[str, ...] = ()
    "Further patterns: which of them fit the text of such an element?"


@dataclass(frozen=True, slots=True)
class ElementFound:
    """The answer."""

    count: int = 0
    "Elements that the selector finds and one of `any_of` fits."
    fits: frozenset[int] = frozenset()
    "The numbers of those of `lists` that fit one of these."
    samples: tuple[str, ...] = ()
    "Texts of such elements; of others that the selector finds, where there is none."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the rules want to know of a letter."""

    texts: tuple[str, ...] = ()
    "Texts that may stand in it."
    elements: tuple[ElementWanted, ...] = ()
    subjects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    "Patterns of the subjects of letter types, before those that are built in."


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a letter."""

    letter_type: LetterType | None = None
    printer_code: str = ""
    library_code: str = ""
    texts: frozenset[str] = frozenset()
    "Those of the texts that stand in it."
    elements: Mapping[ElementWanted, ElementFound] = field(default_factory=dict)
    attachments: tuple[str, ...] = ()
    "Media types of the attached files: what they are where that can be seen, else what they are said to be."
    unreadable: str = ""
    "Why nothing can be told of its text; empty when it was read."


def type_name(text: str) -> str:
    """The name of a letter type, or "" when it can't be one."""
    return text if _TYPE.fullmatch(text) else ""


def code(text: str) -> str:
    """The code of a printer or library, or "" when it can't be one."""
    return text if _CODE.fullmatch(text) else ""


def question(wanted: Wanted) -> dict[str, Any]:
    """The header of a request."""
    return {
        "describe": {
            "texts": list(wanted.texts),
            "elements": [[each.selector, list(each.any_of), list(each.lists)] for each in wanted.elements],
            "subjects": {name: list(patterns) for name, patterns in wanted.subjects.items()},
        }
    }


def wanted_from(header: Mapping[str, Any]) -> Wanted:
    """What a request asks for."""
    asked = header["describe"]
    return Wanted(
        tuple(asked["texts"]),
        tuple(ElementWanted(selector, tuple(any_of), tuple(lists)) for selector, any_of, lists in asked["elements"]),
        {name: tuple(patterns) for name, patterns in asked["subjects"].items()},
    )


def answer(facts: Facts, wanted: Wanted) -> dict[str, Any]:
    """The header of an answer."""
    found = [facts.elements.get(each, ElementFound()) for each in wanted.elements]
    return {
        "type": facts.letter_type.name if facts.letter_type else "",
        "found_by": facts.letter_type.found_by if facts.letter_type else "",
        "printer": facts.printer_code,
        "library": facts.library_code,
        "texts": [text in facts.texts for text in wanted.texts],
        "elements": [[each.count, sorted(each.fits), list(each.samples)] for each in found],
        "attachments": list(facts.attachments[:20]),
        "unreadable": facts.unreadable,
    }


def facts_from(header: Mapping[str, Any], wanted: Wanted) -> Facts:
    """The facts of an answer. Raises ValueError, KeyError or TypeError when it is none."""
    name, found_by = type_name(str(header["type"])), header["found_by"]
    if found_by not in ("", "marker", "fingerprint", "subject"):
        raise ValueError("the answer does not say how the type was found")
    return Facts(
        letter_type=LetterType(name, found_by) if name and found_by else None,
        printer_code=code(str(header["printer"])),
        library_code=code(str(header["library"])),
        texts=frozenset(text for text, there in zip(wanted.texts, header["texts"], strict=True) if there is True),
        elements={
            asked: ElementFound(
                int(count),
                frozenset(int(number) for number in fits[: len(asked.lists)]),
                tuple(str(sample)[:MAX_SAMPLE] for sample in samples[:MAX_SAMPLES]),
            )
            for asked, (count, fits, samples) in zip(wanted.elements, header["elements"], strict=True)
        },
        attachments=tuple(str(kind)[:100] for kind in header["attachments"][:20]),
        unreadable=str(header["unreadable"])[:300],
    )

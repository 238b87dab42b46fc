"""Which letter of Alma's it is, by Alma's own name for it (`FulTransitSlipLetter`).

Does: looks for a marker (docs/alma-marker.md, or what libraries had put in before), then for traits of the default
templates that do not depend on language or labels, then in tables of subjects.
Promises: None rather than a guess. A trait that two types share only narrows the subjects down to these two.
Known limits: a template that was written anew and bears no marker is known by its subject only, and that is a label
which each institution words for itself and for each language (`institutions.subjects`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from relay.slips.facts import LetterType, code, type_name
from relay.slips.outline import Outline, squeezed
from relay.slips.subjects import SUBJECTS

_REQUEST, _TRANSIT = "FulReasourceRequestSlipLetter", "FulTransitSlipLetter"
"""The misspelling is Alma's."""


@dataclass(frozen=True, slots=True)
class Marker:
    """What a letter says of itself."""

    type: str = ""
    printer: str = ""
    library: str = ""


def marker(letter: Outline) -> Marker:
    """The marks of a letter. The first that says something counts."""
    found = Marker()
    for attributes in letter.metas:
        if attributes.get("name", "").lower() == "slip-relay":
            found = _joined(found, _read(attributes.get("content", "")))
    if "slip-relay" in letter.marks:
        found = _joined(found, _read(letter.marks["slip-relay"][0]))
    for attributes in letter.metas:
        if attributes.get("name", "").lower() == "kthb":  # KTH's own mark
            found = _joined(found, Marker(printer=code(attributes.get("printer", "").strip())))
    if "print_type" in letter.marks:  # Mannheim's
        found = _joined(found, Marker(type=type_name(letter.marks["print_type"][1])))
    return found


def letter_type(
    letter: Outline, attached: Collection[str], subject: str, subjects: Mapping[str, tuple[str, ...]]
) -> LetterType | None:
    """The type of a letter, or None. `attached` are the names of the message's pictures, `subjects` patterns of the
    institution's own, by type.
    """
    if name := marker(letter).type:
        return LetterType(name, "marker")
    candidates = _by_traits(letter, set(attached))
    if len(candidates) == 1:
        return LetterType(candidates[0], "fingerprint")
    for words in (subject, *letter.headings):
        if name := by_subject(words, subjects, candidates):
            return LetterType(name, "subject")
    return None


def by_subject(subject: str, subjects: Mapping[str, tuple[str, ...]], candidates: Collection[str] = ()) -> str:
    """The type that a subject stands for, among the candidates if there are any; "" for none, or for more than one."""
    if subject.endswith("Letter") and type_name(subject):
        return subject  # so is the mail named that Alma's "XML to Letter Admin" sends
    said = squeezed(subject).casefold()
    if not said:
        return ""
    for tables in ([subjects], SUBJECTS.values()):
        found = {
            name
            for table in tables
            for name, patterns in table.items()
            if (not candidates or name in candidates) and any(fnmatchcase(said, each.casefold()) for each in patterns)
        }
        if len(found) == 1:
            return found.pop()
    return ""


def _by_traits(letter: Outline, attached: Collection[str]) -> tuple[str, ...]:
    """The types whose default templates have the traits of this letter."""
    shown = letter.pictures
    if "externalid.png" in shown:
        if {"qualifier.png", "group_qualifier.png"} <= shown:
            return ("ResourceSharingShippingSlipLetter",)
        if any(name.startswith("barcode1") for name in shown):
            return ("FulIncomingSlipLetter",)
        return ("ResourceSharingReceiveSlipLetter", "ResourceSharingReturnSlipLetter")
    known = shown | set(attached)
    if "request_id_barcode.png" in known:
        # The place on the shelf is a heading of the second level on the one, and no template of the other has any.
        if letter.tags["h2"]:
            return (_REQUEST,)
        if {"request_id_barcode.png", "item_id_barcode.png"} <= shown and "recordtitle" in letter.classes:
            return (_TRANSIT,)
        return (_REQUEST, _TRANSIT)
    if "item_id_barcode.png" in shown:
        # A transit without a request has no barcode of one, and neither has a slip for what was just received.
        return (_TRANSIT,) if "recordtitle" in letter.classes else ("ReceivingSlipLetter", _TRANSIT)
    return ()


def _read(words: str) -> Marker:
    """A marker's words, as in `type=FulTransitSlipLetter; printer=MAIN; library=LAW`."""
    said: dict[str, str] = {}
    for part in words.split(";")[:10]:
        name, _, value = part.partition("=")
        said.setdefault(name.strip().lower(), value.strip())
    return Marker(type_name(said.get("type", "")), code(said.get("printer", "")), code(said.get("library", "")))


def _joined(first: Marker, second: Marker) -> Marker:
    return Marker(first.type or second.type, first.printer or second.printer, first.library or second.library)

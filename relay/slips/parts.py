"""Choosing what to print: which part of a message is the letter, which are its pictures, which are attachments.

Does: chooses the part to print in the tree of `structure`; decodes its text (`text`); collects pictures under every
name a letter may call them by (Content-ID, file name, Content-Location), and the files that were sent along.
Promises: a `Letter`, or a `RenderError` with the reason; no other exception, whatever the bytes are. A message without
a letter is one of attachments alone, or the letter that it forwards, if it has no more than that.
Refuses: the XML of a letter ("XML to Letter Admin" in Alma), which is not for paper; what is encrypted; and whatever
`structure` refuses.
Known limits: of several texts that a message shows one after the other the first is printed, HTML before plain text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from relay.errors import RenderError
from relay.slips import sniff
from relay.slips.rtf import text_of_rtf
from relay.slips.structure import ENCRYPTED, FORWARDED, MAX_DECODED, MAX_DEPTH, MAX_PARTS, Part, read_structure
from relay.slips.text import clean, decode_part, decode_text, html_of, is_letter_xml, looks_like_html

__all__ = ["MAX_DECODED", "MAX_DEPTH", "MAX_PARTS", "Attachment", "Letter", "Picture", "decode_text", "read_letter"]

MAX_MESSAGE = 96 * 1024 * 1024
MAX_TEXT = 4 * 1024 * 1024
MAX_NOTES = 30
MAX_NAME = 80
_BEGINNING = 8192

_HTML = ("text/html", "application/xhtml+xml")
_XML = ("text/xml", "application/xml")
_TEXT = (*_HTML, "text/plain")
_FILES_OF_TEXT = (*_TEXT, sniff.RTF, "text/rtf", "text/markdown", "text/enriched")
_SIGNATURES = ("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature")
_INVISIBLE = re.compile(
    r"<!--.*?-->|<(style|script|title)\b.*?</\1\s*>|<(?!img\b|hr\b)[^>]*>", re.DOTALL | re.IGNORECASE
)
_LONGEST_BLANK = 10_000
_PGP_ENCRYPTED = "-----BEGIN PGP MESSAGE-----"
_PGP_SIGNED = re.compile(
    r"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+:[^\n]*\n)*\n(.*?)\n-----BEGIN PGP SIGNATURE-----", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A part that may be a picture, with the names it goes by. Nothing about its type is believed yet."""

    content: bytes
    content_id: str = ""
    name: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that was sent along. `kind` is its media type, by looking at it where that says something."""

    name: str
    kind: str
    content: bytes

    @property
    def is_pages(self) -> bool:
        """Whether it can be printed: PDF, PNG, JPEG, TIFF."""
        return self.kind in sniff.PAGES

    @property
    def title(self) -> str:
        """Its name and what it is, for people."""
        words = sniff.in_words(self.kind, self.name)
        return f"{self.name[:MAX_NAME]} ({words})" if self.name else f"a file without a name ({words})"


@dataclass(frozen=True, slots=True)
class Letter:
    """What a message has for paper: HTML (still untrusted; empty when there is none), pictures, files, and notes.

    An attached picture is among the pictures too: only the HTML can tell whether it is shown in the letter.
    """

    html: str
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()


def read_letter(message: bytes) -> Letter:
    """The letter of a message. Raises RenderError when there is nothing that could be printed."""
    if len(message) > MAX_MESSAGE:
        raise RenderError(f"the message has more than {MAX_MESSAGE // 2**20} MB")
    try:
        notes: list[str] = []
        letter = _letter(read_structure(message, notes), notes)
        return replace(letter, notes=tuple(dict.fromkeys(notes))[:MAX_NOTES])
    except (RenderError, MemoryError):  # without memory the child can't be trusted to go on
        raise
    except (Exception, RecursionError) as error:
        # The email package raises IndexError, TypeError, LookupError and more on hostile headers.
        raise RenderError(f"the message can't be read ({type(error).__name__})") from error


def _letter(root: Part, notes: list[str]) -> Letter:
    leaves = list(_leaves(root))
    part = _choose(root, notes, attached=False)
    attachments = list(_attachments(root, part))
    pages = any(attachment.is_pages for attachment in attachments)
    if part is None and not pages:
        part = _choose(root, notes, attached=True)
        attachments = list(_attachments(root, part))
    if part is not None and pages and _is_blank(_html(part, [])):
        part = None  # scanners and mail programs write an empty page around what they send
    if part is None and not pages:
        forwarded = next((leaf for leaf in leaves if leaf.kind == FORWARDED and leaf.children), None)
        if forwarded is not None:
            notes.append("The message has no text of its own; the message that it forwards was printed.")
            return _letter(forwarded.children[0], notes)
    if part is None and any(leaf.kind == ENCRYPTED for leaf in leaves):
        raise RenderError("the message is encrypted, and only its recipient can read it")
    if part is None and not attachments:
        raise RenderError("the message has no text to print: neither HTML nor plain text")
    for attachment in attachments:
        if not (attachment.is_pages or attachment.kind in sniff.PICTURES):  # those may be shown in the letter
            notes.append(f"The attachment {attachment.name[:MAX_NAME] or attachment.kind} was not printed.")
    return Letter(
        "" if part is None else _html(part, notes),
        tuple(_pictures(leaves, part)),
        attachments=tuple(attachments),
    )


def _leaves(root: Part) -> Iterator[Part]:
    """Every part that is no multipart, in order. Forwarded messages stay closed."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if part.children and part.kind != FORWARDED:
            waiting.extend(reversed(part.children))
        elif not part.kind.startswith("multipart/"):
            yield part


def _choose(part: Part, notes: list[str], *, attached: bool) -> Part | None:
    """The part to print below `part`; `attached` also takes what is marked as an attachment."""
    if not part.is_container:
        return part if _is_letter(part, attached=attached) else None
    if part.kind == FORWARDED:
        return None
    children: list[Part] = list(part.children)
    if part.start:  # RFC 2387 3.2: the root of a related is the part that `start` names, else the first
        children.sort(key=lambda child: child.content_id != part.start)
    found = [chosen for child in children if (chosen := _choose(child, notes, attached=attached)) is not None]
    if part.kind == "multipart/alternative":
        found.reverse()  # RFC 2046 5.1.4: the last one is the best
    elif part.kind not in ("multipart/related", "multipart/signed") and len(found) > 1:
        notes.append("The message has more text parts than the one that was printed.")
    return next((chosen for chosen in found if chosen.kind in _HTML), found[0] if found else None)


def _is_letter(part: Part, *, attached: bool) -> bool:
    if part.is_attached and not attached:
        return False
    if not part.content.strip() or sniff.kind_of(part.content, part.kind) in (*sniff.PICTURES, sniff.PDF):
        return False
    if part.kind in _TEXT or (attached and part.kind in _FILES_OF_TEXT):
        return True
    if part.kind in _XML or (attached and part.kind in ("application/octet-stream", *_XML)):
        # XML is for programs, but for XHTML, and for the XML of a letter, so that it is recognised and refused.
        text = decode_part(part.content[:_BEGINNING], part.charset, [])
        return is_letter_xml(text) or looks_like_html(text)
    return False


def _text(part: Part, notes: list[str]) -> str:
    if len(part.content) > MAX_TEXT:
        raise RenderError(f"the letter has more than {MAX_TEXT // 1024} KB of text")
    if sniff.kind_of(part.content) == sniff.RTF:
        return clean(text_of_rtf(part.content)[0])
    if part.kind == "text/plain":
        return clean(decode_text(part.content, part.charset, notes))
    return decode_part(part.content, part.charset, notes)


def _html(part: Part, notes: list[str]) -> str:
    text = _text(part, notes)
    if is_letter_xml(text):
        raise RenderError("the message is the XML of a letter (XML to Letter Admin), which is not for printing")
    begin = text[:200].lstrip()
    if begin.startswith(_PGP_ENCRYPTED):
        raise RenderError("the message is encrypted, and only its recipient can read it")
    if begin.startswith("-----BEGIN PGP SIGNED") and (signed := _PGP_SIGNED.search(text)):
        text = re.sub(r"^- ", "", signed[1], flags=re.MULTILINE)  # RFC 9580, 7.1
    is_html = part.kind in (*_HTML, *_XML) or part.name.lower().endswith((".html", ".htm"))
    return html_of(text, is_html=is_html, flowed=part.is_flowed, delsp=part.is_delsp)


def _is_blank(text: str) -> bool:
    if len(text) > _LONGEST_BLANK:
        return False
    rest = html.unescape(_INVISIBLE.sub("", text))
    return not rest.strip("\u00a0\u200b\ufeff \t\n\f")


def _attachments(root: Part, letter: Part | None) -> Iterator[Attachment]:
    """What was sent along, in order. Pictures that only the letter's HTML may show are not among them."""
    waiting = [(root, False)]
    while waiting:
        part, is_related = waiting.pop()
        if part.children and part.kind != FORWARDED:
            below = is_related or part.kind == "multipart/related"
            waiting.extend((child, below) for child in reversed(part.children))
        elif part is not letter and _is_sent_along(part, letter, is_related=is_related):
            kind = FORWARDED if part.kind == FORWARDED else sniff.kind_of(part.content, part.kind)
            yield Attachment(part.name, kind, part.content)


def _is_sent_along(part: Part, letter: Part | None, *, is_related: bool) -> bool:
    if part.kind in (*_SIGNATURES, ENCRYPTED) or part.kind.startswith("multipart/"):
        return False
    kind = sniff.kind_of(part.content, part.kind)
    if kind == sniff.PDF or part.kind == FORWARDED or part.is_attached:
        return True
    if kind in sniff.PICTURES:
        # Alma attaches its pictures inline with a Content-ID, also when the HTML does not use them.
        return letter is None or not (is_related or part.content_id or part.location)
    # What is inline but has no name is another form of the letter; a picture that can't be read is the letter's.
    return bool(part.name) and not (part.kind.startswith("image/") or part.content_id or part.location)


def _pictures(leaves: list[Part], letter: Part | None) -> Iterator[Picture]:
    for part in leaves:
        if part is letter or part.kind in (FORWARDED, ENCRYPTED) or (part.kind.startswith("text/") and not part.name):
            continue
        is_named = part.content_id or part.location or part.kind == "application/octet-stream"
        if part.kind.startswith("image/") or is_named or sniff.kind_of(part.content) in sniff.PICTURES:
            yield Picture(part.content, part.content_id, part.name, part.location)

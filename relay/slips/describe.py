"""From the bytes of a message to what the rules ask about it (`facts`). Runs in the rendering child only.

Promises: `Facts`, or RenderError for a selector that can't be used; a letter that can't be read is described as far as
that goes, and says why (`unreadable`).
"""

from __future__ import annotations

from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import Message

from relay.errors import RenderError
from relay.slips.facts import Facts, LetterType, Wanted
from relay.slips.headers import BoundedMessage
from relay.slips.letter_type import by_subject, letter_type, marker
from relay.slips.outline import file_name, outline, squeezed
from relay.slips.parts import read_letter
from relay.slips.selectors import check_selector, find_elements

_MAX_SUBJECT = 500
_MAX_WALKED = 500
_MAX_NAMED = 20


def describe(message: bytes, wanted: Wanted) -> Facts:
    """What is wanted to know about the letter of a message."""
    for each in wanted.elements:
        check_selector(each.selector)
    subject, attachments = _envelope(message)
    try:
        return _described(message, wanted, subject)
    except (RenderError, RecursionError) as error:
        why = str(error) if isinstance(error, RenderError) else "its elements are nested too deeply"
        name = by_subject(subject, wanted.subjects)
        return Facts(LetterType(name, "subject") if name else None, attachments=attachments, unreadable=why)


def _described(message: bytes, wanted: Wanted, subject: str) -> Facts:
    letter = read_letter(message)
    seen = outline(letter.html)
    attached = {file_name(name) for picture in letter.pictures for name in (picture.content_id, picture.name) if name}
    marks = marker(seen)
    text = seen.text.casefold()
    return Facts(
        letter_type=letter_type(seen, attached, subject, wanted.subjects),
        printer_code=marks.printer,
        library_code=marks.library,
        texts=frozenset(each for each in wanted.texts if squeezed(each).casefold() in text),
        elements=find_elements(letter.html, wanted.elements),
        attachments=tuple(each.kind for each in letter.attachments[:_MAX_NAMED]),
    )


def _envelope(message: bytes) -> tuple[str, tuple[str, ...]]:
    """Subject, and the types that attached files are said to be; as far as they can be read."""
    try:
        root = message_from_bytes(message, BoundedMessage, policy=policy.compat32)
        return _subject(root), _attachments(root)
    except (Exception, RecursionError):  # the email package raises nearly anything on hostile headers
        return "", ()


def _subject(root: Message) -> str:
    raw = str(root.get("Subject") or "")[: 10 * _MAX_SUBJECT]
    try:
        return squeezed(str(make_header(decode_header(raw))))[:_MAX_SUBJECT]
    except (ValueError, LookupError, IndexError):
        return squeezed(raw)[:_MAX_SUBJECT]


def _attachments(root: Message) -> tuple[str, ...]:
    found = []
    for number, part in enumerate(root.walk()):
        if number > _MAX_WALKED:
            break
        disposition = str(part.get("Content-Disposition") or "").strip().lower()
        if disposition.startswith("attachment"):
            found.append(part.get_content_type()[:100])
    return tuple(found[:_MAX_NAMED])

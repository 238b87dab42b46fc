"""The message: which part is the letter, and which parts are its pictures.

Does: reads the MIME structure of an untrusted message; chooses the part to print; decodes its text; collects pictures
under every name a letter may call them by (Content-ID, file name, Content-Location).
Promises: a `Letter`, or a `RenderError` with the reason; no other exception, whatever the bytes are.
Refuses: more than MAX_PARTS parts, nesting deeper than MAX_DEPTH, more than MAX_DECODED bytes, and the XML of a letter
("XML to Letter Admin" in Alma), which is not for paper.
Known limits: forwarded messages (message/rfc822) are not opened; format=flowed (RFC 3676) prints line by line.

`policy=default` of the email package raises on real headers, so everything here uses compat32.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import Message
from email.utils import collapse_rfc2231_value

import webencodings

from relay.errors import RenderError

MAX_PARTS = 500
MAX_DEPTH = 20
MAX_DECODED = 64 * 1024 * 1024
MAX_TEXT = 4 * 1024 * 1024

_HTML = ("text/html", "application/xhtml+xml")
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([a-zA-Z0-9_.:-]{1,40})", re.IGNORECASE)
_LOOKS_HTML = re.compile(r"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_LOOKS_LETTER_XML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<notification_data\b")


@dataclass(frozen=True, slots=True)
class Picture:
    """A part that may be a picture, with the names it goes by. Nothing about its type is believed yet."""

    content: bytes
    content_id: str = ""
    name: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a message has for paper: HTML (still untrusted), pictures, and notes on what could not be read."""

    html: str
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


def read_letter(message: bytes) -> Letter:
    """The letter of a message. Raises RenderError when there is none."""
    try:
        root = message_from_bytes(message, policy=policy.compat32)
        leaves = list(_leaves(root))
        notes: list[str] = []
        part = _choose(root, notes, attached=False) or _choose(root, notes, attached=True)
        if part is None:
            raise RenderError("the message has no text to print: neither HTML nor plain text")
        text = _text(part, notes)
        return Letter(_as_html(part, text), tuple(_pictures(leaves, part, notes)), tuple(notes))
    except RenderError:
        raise
    except (Exception, RecursionError) as error:
        # The email package raises IndexError, TypeError, LookupError and more on hostile headers.
        raise RenderError(f"the message can't be read ({type(error).__name__})") from error


def _leaves(root: Message) -> Iterator[Message]:
    """Every part that is not a multipart, in order, within the bounds."""
    waiting = [(root, 1)]
    seen = 0
    while waiting:
        part, depth = waiting.pop()
        seen += 1
        if seen > MAX_PARTS:
            raise RenderError(f"the message has more than {MAX_PARTS} parts")
        if depth > MAX_DEPTH:
            raise RenderError(f"the parts of the message are nested deeper than {MAX_DEPTH}")
        children = _children(part)
        if children:
            waiting.extend((child, depth + 1) for child in reversed(children))
        else:
            yield part


def _children(part: Message) -> list[Message]:
    payload = part.get_payload()
    if part.get_content_maintype() != "multipart" or not isinstance(payload, list):
        return []
    return [child for child in payload if isinstance(child, Message)]


def _kind(part: Message) -> str:
    # A multipart without its boundary arrives here as one block of text (RFC 2046 5.1 has no name for that).
    return "text/plain" if part.get_content_maintype() == "multipart" else part.get_content_type()


def _choose(part: Message, notes: list[str], *, attached: bool) -> Message | None:
    """The part to print below `part`; `attached` also takes what is marked as an attachment."""
    children = _children(part)
    if not children:
        if _kind(part) not in (*_HTML, "text/plain") or (_is_attachment(part) and not attached):
            return None
        return part if _payload(part).strip() else None
    start = _parameter(part, "start").strip("<> ")
    if start:  # RFC 2387 3.2: the root of a related is the part that `start` names, else the first
        children = sorted(children, key=lambda child: _content_id(child) != start)
    found = [chosen for child in children if (chosen := _choose(child, notes, attached=attached)) is not None]
    if part.get_content_subtype() == "alternative":
        found.reverse()  # RFC 2046 5.1.4: the last one is the best
    elif part.get_content_subtype() != "related" and len(found) > 1:
        notes.append("The message has more text parts than the one that was printed.")
    return next((chosen for chosen in found if _kind(chosen) in _HTML), found[0] if found else None)


def _is_attachment(part: Message) -> bool:
    return str(part.get("Content-Disposition") or "").strip().lower().startswith("attachment")


def _content_id(part: Message) -> str:
    return str(part.get("Content-ID") or "").strip().strip("<>").strip()


def _parameter(part: Message, name: str) -> str:
    try:
        return collapse_rfc2231_value(part.get_param(name) or "").strip()
    except (TypeError, ValueError, IndexError, LookupError):
        return ""  # continuations (RFC 2231 3) that the email package can't sort or decode


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)  # lenient: broken base64 gives what can be read
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message, notes: list[str]) -> str:
    content = _payload(part)
    if len(content) > MAX_TEXT:
        raise RenderError(f"the letter has more than {MAX_TEXT // 1024} KB of text")
    name = _parameter(part, "charset")
    if not name and _kind(part) in _HTML and (match := _META_CHARSET.search(content[:4096])):
        name = match[1].decode("ascii")
    text = decode_text(content, name, notes)
    return text.replace("\r\n", "\n").replace("\0", "")


def decode_text(content: bytes, charset: str, notes: list[str]) -> str:
    """Text of bytes: byte order mark, declared charset, UTF-8, else windows-1252; never fails."""
    for mark, codec in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(codec, "replace")
    encoding = webencodings.lookup(charset) if charset else None
    if charset and encoding is None:
        notes.append(f"The letter names a charset that does not exist: {charset[:40]}.")
    tries = [encoding.codec_info] if encoding else []
    if charset.lower() in ("us-ascii", "ascii"):  # the web's ASCII is windows-1252, which never fails
        tries.clear()
    for codec_info in (*tries, webencodings.UTF8.codec_info):
        try:
            return str(codec_info.decode(content, "strict")[0])
        except UnicodeError:
            continue
    if encoding is webencodings.UTF8:
        notes.append("The letter is not in the charset it names; some characters may be wrong.")
    return content.decode("windows-1252", "replace")


def _as_html(part: Message, text: str) -> str:
    if _LOOKS_LETTER_XML.match(text):
        raise RenderError("the message is the XML of a letter (XML to Letter Admin), which is not for printing")
    if _kind(part) in _HTML or _LOOKS_HTML.match(text):
        return text
    return f"<pre>{html.escape(text)}</pre>"


def _pictures(leaves: list[Message], letter: Message, notes: list[str]) -> Iterator[Picture]:
    total = 0
    for part in leaves:
        kind = part.get_content_type()
        name = _file_name(part)
        if part is letter or (kind.startswith("text/") and not name) or kind == "message/rfc822":
            continue
        content_id, location = _content_id(part), str(part.get("Content-Location") or "").strip()
        if not kind.startswith("image/") and not content_id and not location:
            if _is_attachment(part) or name:
                notes.append(f"The attachment {name[:80] or kind} was not printed.")
            if kind != "application/octet-stream":
                continue
        content = _payload(part)
        total += len(content)
        if total > MAX_DECODED:
            raise RenderError(f"the pictures of the message have more than {MAX_DECODED // 2**20} MB")
        yield Picture(content, content_id, name, location)


def _file_name(part: Message) -> str:
    try:
        name = part.get_filename() or ""  # Content-Disposition filename, else Content-Type name (RFC 2231 decoded)
    except (TypeError, ValueError, IndexError, LookupError):
        return ""
    if "=?" in name:
        try:  # RFC 2047 words have no place in a parameter, and yet they are there
            name = str(make_header(decode_header(name)))
        except (ValueError, LookupError):
            return name
    return re.sub(r"[\x00-\x1f\x7f]", "", name).strip()

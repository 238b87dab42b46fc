"""What bytes are, by looking at them: the types that mail declares are not to be believed.

Does: knows the kinds of file that libraries send each other by their first bytes, and says them in words.
Promises: pure and quick; an unknown file is what it was declared as.
"""

from __future__ import annotations

import re

PDF = "application/pdf"
TNEF = "application/ms-tnef"
RTF = "application/rtf"
PICTURES = frozenset(("image/png", "image/jpeg", "image/gif", "image/bmp", "image/tiff", "image/webp"))
PAGES = frozenset(("image/png", "image/jpeg", "image/tiff", PDF))
"""What is printed when it is attached."""

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"\x78\x9f\x3e\x22", TNEF),
    (b"{\\rtf", RTF),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"%!PS", "application/postscript"),
)
_BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
# Office files are zip or OLE files; which ones is in the declared type, or else in the name.
_CONTAINERS = ("application/zip", "application/x-ole-storage")
_WORDS = (
    (re.compile(r"pdf"), "PDF"),
    (re.compile(r"spreadsheet|excel|csv|\.xlsx?$|\.ods$|\.csv$"), "spreadsheet"),
    (re.compile(r"wordprocessing|msword|opendocument\.text|\.docx?$|\.odt$|rtf"), "document"),
    (re.compile(r"presentation|powerpoint|\.pptx?$|\.odp$"), "presentation"),
    (re.compile(r"message/rfc822|\.eml$|\.msg$"), "e-mail"),
    (re.compile(r"calendar|\.ics$"), "calendar entry"),
    (re.compile(r"vcard|\.vcf$"), "address card"),
    (re.compile(r"^image/"), "picture"),
    (re.compile(r"^(?:audio|video)/"), "recording"),
    (re.compile(r"zip|x-tar|rar|7z"), "archive"),
    (re.compile(r"html"), "web page"),
    (re.compile(r"xml"), "XML file"),
    (re.compile(r"^text/"), "text file"),
)


def kind_of(content: bytes, declared: str = "") -> str:
    """The media type of these bytes: seen, else declared, else application/octet-stream."""
    for beginning, kind in _BEGINNINGS:
        if content.startswith(beginning):
            return declared if kind in _CONTAINERS and declared.startswith("application/") else kind
    if content.startswith(b"BM") and content[6:10] == b"\0\0\0\0" and content[14:18] in _BMP_HEADERS:
        return "image/bmp"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    # Readers allow what stands before (ISO 32000, annex H); a text may speak of it.
    if b"%PDF-" in (content[:40].lstrip()[:5] if declared.startswith("text/") else content[:1024]):
        return PDF
    if declared in PICTURES or declared == PDF:
        return "application/octet-stream"  # it says so, but it is not
    return declared or "application/octet-stream"


def in_words(kind: str, name: str) -> str:
    """A kind of file as a person would say it."""
    for pattern, words in _WORDS:
        if pattern.search(kind) or pattern.search(name.lower()):
            return words
    return "file"

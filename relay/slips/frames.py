"""How a request and its answer travel between the service and a rendering child.

A frame is two lengths (four bytes each, big endian), a header in JSON, and a body of bytes. No pickle: what a child
says is read as words and numbers, because a child has read hostile mail.

    child -> service   {"ready": true, ...}                      once, when it can work
    service -> child   {"profile": {...}, "occasion": {...}, "pictures": {...}}   message   one slip
    child -> service   {"began": true}                           the request was read: what happens now is its doing
    child -> service   {"pages": ..., ...}           PDF         or
                       {"error": "...", "died": false}
    service -> child   {"mark": TEXT, "profile": {...}}   PDF    a reprint that is to say so; answered as a slip
    service -> child   {"stack": [LENGTH, ...], "profile": {...}}   PDFs   several slips as one document; the same
    service -> child   {"describe": {...}}           message     what the rules ask of a letter (`relay.slips.facts`)
    child -> service   {"type": ..., ...}                        after "began", as above
"""

from __future__ import annotations

import json
import re
import struct
from asyncio import StreamReader
from datetime import datetime
from typing import Any, BinaryIO

from relay.slips.slip import Barcodes, Occasion, Slip

_LENGTHS = struct.Struct("!II")
_DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_HEADER = 1024 * 1024
MAX_BODY = 512 * 1024 * 1024
MAX_PAGES = 1000
LONGEST_MM = 6000.0
"""No paper is longer: PDF itself ends at 5,080 mm."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """A frame."""
    words = json.dumps(header).encode()
    return b"".join((_LENGTHS.pack(len(words), len(body)), words, body))


def read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next frame; None at the end of the stream."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    words, body = _LENGTHS.unpack(lengths)
    return _header(stream.read(_within(words, MAX_HEADER))), stream.read(_within(body, MAX_BODY))


async def receive(stream: StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next frame. Raises IncompleteReadError (an EOFError) at the end of the stream, ValueError on nonsense."""
    words, body = _LENGTHS.unpack(await stream.readexactly(_LENGTHS.size))
    header = _header(await stream.readexactly(_within(words, MAX_HEADER)))
    return header, await stream.readexactly(_within(body, MAX_BODY))


def slip_header(slip: Slip) -> dict[str, Any]:
    """A slip without its PDF."""
    return {
        "pages": slip.pages,
        "width_mm": slip.width_mm,
        "height_mm": slip.height_mm,
        "notes": list(slip.notes),
        "missing_glyphs": slip.missing_glyphs,
        "wanted": list(slip.wanted),
        "content": slip.content,
        "barcodes": {"good": slip.barcodes.good, "failed": list(slip.barcodes.failed)},
    }


def slip_from(header: dict[str, Any], pdf: bytes) -> Slip:
    """The slip of an answer. Raises ValueError, KeyError or TypeError when it is none."""
    if not pdf.startswith(b"%PDF-"):
        raise ValueError("the answer is not a PDF")
    notes = tuple(str(note)[:300] for note in header["notes"][:50])
    pages, failed = header["pages"], header["barcodes"]["failed"][:200]
    if not isinstance(pages, int) or not 1 <= pages <= MAX_PAGES:
        raise ValueError("the answer has an impossible number of pages")
    content = str(header["content"])
    if content and not _DIGEST.fullmatch(content):
        raise ValueError("the answer has no digest of the content")
    return Slip(
        pdf,
        pages,
        _length(header["width_mm"]),
        _length(header["height_mm"]),
        notes,
        int(header["missing_glyphs"]),
        Barcodes(int(header["barcodes"]["good"]), tuple(str(reason)[:200] for reason in failed)),
        tuple(str(url)[:1000] for url in header["wanted"][:20]),
        content,
    )


def _length(value: Any) -> float:
    # NaN and infinity are numbers to JSON as Python reads it, and would go on to CUPS as the size of the paper.
    if not isinstance(value, int | float) or not 1 <= value <= LONGEST_MM:
        raise ValueError("the answer has an impossible size")
    return float(value)


def occasion_header(occasion: Occasion) -> dict[str, str | None]:
    """An occasion in words."""
    return {
        "desk": occasion.desk,
        "queue_id": occasion.queue_id,
        "institution": occasion.institution,
        "received_at": occasion.received_at.isoformat() if occasion.received_at else None,
        "printed_at": occasion.printed_at.isoformat() if occasion.printed_at else None,
        "note": occasion.note,
    }


def occasion_from(header: dict[str, str | None]) -> Occasion:
    """The occasion of a request."""
    received, printed = header["received_at"], header["printed_at"]
    return Occasion(
        desk=header["desk"] or "",
        queue_id=header["queue_id"] or "",
        institution=header["institution"] or "",
        received_at=datetime.fromisoformat(received) if received else None,
        printed_at=datetime.fromisoformat(printed) if printed else None,
        note=header["note"] or "",
    )


def _header(words: bytes) -> dict[str, Any]:
    header = json.loads(words)  # RecursionError on brackets in brackets
    if not isinstance(header, dict):
        raise ValueError("the header of a frame is an object")
    return header


def _within(length: int, limit: int) -> int:
    if length > limit:
        raise ValueError("the frame is too long")
    return length

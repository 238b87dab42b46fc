"""winmail.dat for the tests, written by MS-OXTNEF and MS-OXRTFCP."""

from __future__ import annotations

import struct

STRING8, UNICODE, BINARY, LONG, OBJECT = 0x1E, 0x1F, 0x0102, 3, 0x0D


def attribute(level: int, number: int, value: bytes) -> bytes:
    """An attribute with its checksum."""
    return struct.pack("<BII", level, number, len(value)) + value + struct.pack("<H", sum(value) % 65536)


def properties(*found: tuple[int, int, bytes]) -> bytes:
    """MAPI properties: number, type, value."""
    pieces = [struct.pack("<I", len(found))]
    for number, kind, value in found:
        pieces.append(struct.pack("<HH", kind, number))
        if number >= 0x8000:  # named: by a string
            name = "Keyword\0".encode("utf-16-le")
            pieces.append(bytes(16) + struct.pack("<II", 1, len(name)) + name.ljust((len(name) + 3) // 4 * 4, b"\0"))
        if kind in (STRING8, UNICODE, BINARY, OBJECT):
            pieces.append(struct.pack("<II", 1, len(value)) + value.ljust((len(value) + 3) // 4 * 4, b"\0"))
        else:
            pieces.append(value)
    return b"".join(pieces)


def attachment(content: bytes, name: str, content_id: str = "") -> bytes:
    """A file: its rendering data, its short name, its bytes, its properties."""
    more = [(0x3707, UNICODE, f"{name}\0".encode("utf-16-le"))]
    more += [(0x3712, STRING8, f"{content_id}\0".encode())] if content_id else []
    return (
        attribute(2, 0x00069002, bytes(14))
        + attribute(2, 0x00018010, b"SHORT~1\0")
        + attribute(2, 0x0006800F, content)
        + attribute(2, 0x00069005, properties(*more))
    )


def winmail(*attributes: bytes) -> bytes:
    """The whole."""
    head = struct.pack("<IH", 0x223E9F78, 1) + attribute(1, 0x00069007, struct.pack("<II", 1252, 0))
    return head + b"".join(attributes)


def message_properties(*found: tuple[int, int, bytes]) -> bytes:
    """The properties of the message, behind a few that nobody wants."""
    unwanted = [(0x0E06, 0x40, bytes(8)), (0x8001, STRING8, b"x\0"), (0x8002, LONG, bytes(4)), (0x0E07, 2, bytes(4))]
    return attribute(1, 0x00069003, properties(*unwanted, *found))


def compressed(rtf: bytes) -> bytes:
    """Compressed RTF: a reference to the beginning of the dictionary, then single bytes."""
    prefix = b"{\\rtf1\\ansi"
    assert rtf.startswith(prefix)
    tokens = [(True, struct.pack(">H", 0 << 4 | len(prefix) - 2))]
    tokens += [(False, bytes((byte,))) for byte in rtf[len(prefix) :]]
    end = (207 + len(rtf)) % 4096
    tokens.append((True, struct.pack(">H", end << 4)))
    body = b""
    for start in range(0, len(tokens), 8):
        group = tokens[start : start + 8]
        body += bytes((sum(1 << bit for bit, (is_reference, _) in enumerate(group) if is_reference),))
        body += b"".join(token for _, token in group)
    return struct.pack("<II4sI", len(body) + 12, len(rtf), b"LZFu", 0) + body


def stored(rtf: bytes) -> bytes:
    """RTF that was not compressed."""
    return struct.pack("<II4sI", len(rtf) + 12, len(rtf), b"MELA", 0) + rtf

"""IPP requests and answers as bytes (RFC 8010), written by libcups.

Does: makes a request of an operation and its attributes; takes an answer apart into its groups.
Promises: an answer of whatever bytes becomes groups or PrintError; values that nobody asks about (collections, dates,
ranges) are left out. Answers are not read by pycups, which keeps each for ever (2.0.4: 5 KB of a small one).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cups

from relay.errors import PrintError

GET_JOBS = 0x000A
GET_PRINTER_ATTRIBUTES = 0x000B

_HEAD = 8
"""Bytes of version, status and number of the request."""
_OPERATION, _JOB, _END, _PRINTER = 1, 2, 3, 4
"""Tags of the groups of attributes, and of their end (RFC 8010 3.5.1)."""
_FIRST_VALUE = 0x10
_ENUM, _COLLECTION, _END_COLLECTION = 0x23, 0x34, 0x37
_WITH_LANGUAGE = (0x35, 0x36)
_STRINGS = range(0x40, 0x4A)
"""Tags of values (RFC 8010 3.5.2)."""
_FIRST_ERROR = 0x0400

Attribute = tuple[str, int, object]
"""A name, its value tag (RFC 8010 3.5.2) and its value or values."""

URI = cups.IPP_TAG_URI
NAME = cups.IPP_TAG_NAME
KEYWORD = cups.IPP_TAG_KEYWORD
BOOLEAN = cups.IPP_TAG_BOOLEAN
INTEGER = cups.IPP_TAG_INTEGER


def request(operation: int, attributes: Sequence[Attribute]) -> bytes:
    """A request with operation attributes in the order given; the character set and language go before them."""
    made = cups.IPPRequest(operation)
    for name, tag, value in attributes:
        made.add(cups.IPPAttribute(_OPERATION, tag, name, value))
    written = bytearray()

    def write(block: bytes) -> int:
        written.extend(block)
        return len(block)

    made.writeIO(write)
    return bytes(written)


def answer(content: bytes) -> list[dict[str, list[object]]]:
    """The groups of jobs or printers in an answer, each attribute with its values.

    Raises PrintError when it is none, or says that the request failed.
    """
    try:
        status = int.from_bytes(_taken(content, 2, 2))
        groups = list(_groups(content, _HEAD))
    except ValueError:
        raise PrintError("not an IPP answer") from None
    if status >= _FIRST_ERROR:
        raise PrintError(f"IPP status 0x{status:04x}")
    return groups


def _groups(content: bytes, at: int) -> Iterator[dict[str, list[object]]]:
    """The groups of an answer from the first tag on. Raises ValueError when it does not go on to its end tag."""
    group: dict[str, list[object]] | None = None
    values: list[object] = []
    depth = 0
    while (tag := _taken(content, at, 1)[0]) != _END:
        at += 1
        if tag < _FIRST_VALUE:
            if group:
                yield group
            group = {} if tag in (_JOB, _PRINTER) else None
            values = []
            continue
        name, at = _field(content, at)
        value, at = _field(content, at)
        if tag == _END_COLLECTION:
            depth -= 1
        elif tag == _COLLECTION:
            depth += 1
        elif not depth and group is not None:
            # Where groups follow each other without a mark in between, the second begins with a name that was there.
            if name and (key := name.decode("utf-8", "replace")) in group:
                yield group
                group = {}
            if name:
                values = group.setdefault(key, [])
            values += _value(tag, value)
    if group:
        yield group


def _value(tag: int, value: bytes) -> list[object]:
    """A value as Python has it (RFC 8010 3.9); nothing for those that nobody asks about."""
    if tag in (INTEGER, _ENUM, BOOLEAN):
        if len(value) != (1 if tag == BOOLEAN else 4):
            raise ValueError("a number of the wrong length")
        return [value != b"\0" if tag == BOOLEAN else int.from_bytes(value, signed=True)]
    if tag in _WITH_LANGUAGE:
        _, at = _field(value, 0)
        value, _ = _field(value, at)
    elif tag not in _STRINGS:
        return []
    return [value.decode("utf-8", "replace")]


def _field(content: bytes, at: int) -> tuple[bytes, int]:
    """What stands behind its length of two bytes, and where that ends."""
    length = int.from_bytes(_taken(content, at, 2))
    return _taken(content, at + 2, length), at + 2 + length


def _taken(content: bytes, at: int, length: int) -> bytes:
    found = content[at : at + length]
    if len(found) != length:
        raise ValueError("it ends too early")
    return found

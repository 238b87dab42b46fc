"""IPP requests and answers as bytes (RFC 8010), written and read by libcups.

Does: makes a request of an operation and its attributes; takes an answer apart into its groups.
Promises: an answer of whatever bytes becomes groups or PrintError; values that libcups can't show (collections) are
left out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import cups

from relay.errors import PrintError

GET_JOB_ATTRIBUTES = 0x0009
GET_JOBS = 0x000A
GET_PRINTER_ATTRIBUTES = 0x000B
CANCEL_JOB = 0x0008

_OPERATION, _JOB, _PRINTER = 1, 2, 4
"""Tags of the groups of attributes (RFC 8010 3.5.1)."""
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
    read = cups.IPPRequest()
    source = io.BytesIO(content)
    try:
        state = read.readIO(source.read)
    except (RuntimeError, UnicodeDecodeError, OSError) as error:
        raise PrintError(f"not an IPP answer: {error}") from None
    if state != cups.IPP_DATA:
        raise PrintError("not an IPP answer")
    if read.statuscode >= _FIRST_ERROR:
        raise PrintError(f"IPP status 0x{read.statuscode:04x}")
    groups: list[dict[str, list[object]]] = []
    is_open = False
    for attribute in read.attributes:
        if attribute.group_tag not in (_JOB, _PRINTER) or not attribute.name:
            is_open = False
            continue
        # Where groups follow each other without a mark in between, the second one begins with a name that was there.
        if not is_open or attribute.name in groups[-1]:
            groups.append({})
            is_open = True
        groups[-1][attribute.name] = list(attribute.values or [])
    return groups

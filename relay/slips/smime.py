"""S/MIME in one piece (application/pkcs7-mime): the signed content is taken out, unverified.

Does: walks the few outer layers of CMS SignedData (RFC 5652, 5.1) in DER or BER, up to the content.
Promises: bounded depth; ValueError for everything that is not as expected.
Known limits: the signature is not checked: a slip is paper, and it says nothing about who sent it.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_DEPTH = 20

_SIGNED = bytes.fromhex("2a864886f70d010702")
_ENVELOPED = (bytes.fromhex("2a864886f70d010703"), bytes.fromhex("2a864886f70d0109100117"))
_SEQUENCE, _OCTETS, _OCTETS_IN_PARTS, _OID, _EXPLICIT_0 = 0x30, 0x04, 0x24, 0x06, 0xA0


class Encrypted(ValueError):
    """The content is there, but not for us."""


@dataclass(frozen=True, slots=True)
class _Element:
    tag: int
    start: int
    end: int
    after: int


def signed_content(cms: bytes) -> bytes:
    """The content that was signed. Raises Encrypted, or ValueError."""
    outer = _expect(cms, _element(cms, 0, len(cms)), _SEQUENCE)
    kind, content = _children(cms, outer)[:2]
    name = cms[kind.start : kind.end]
    if name in _ENVELOPED:
        raise Encrypted("enveloped data")
    if kind.tag != _OID or name != _SIGNED:
        raise ValueError("not signed data")
    signed = _expect(cms, _children(cms, content)[0], _SEQUENCE)
    encapsulated = next(child for child in _children(cms, signed) if child.tag == _SEQUENCE)
    wrapped = [child for child in _children(cms, encapsulated) if child.tag == _EXPLICIT_0]
    if not wrapped:
        raise ValueError("the content is elsewhere")
    return _octets(cms, _children(cms, wrapped[0])[0], 0)


def _octets(cms: bytes, element: _Element, depth: int) -> bytes:
    if element.tag == _OCTETS:
        return cms[element.start : element.end]
    if element.tag != _OCTETS_IN_PARTS or depth > MAX_DEPTH:
        raise ValueError("no octets")
    return b"".join(_octets(cms, child, depth + 1) for child in _children(cms, element))


def _expect(cms: bytes, element: _Element, tag: int) -> _Element:
    if element.tag != tag:
        raise ValueError("another element was expected")
    return element


def _children(cms: bytes, element: _Element) -> list[_Element]:
    found, position = [], element.start
    while position < element.end:
        child = _element(cms, position, element.end)
        found.append(child)
        position = child.after
    return found


def _element(cms: bytes, position: int, end: int, depth: int = 0) -> _Element:
    """The element at a position: its tag, where its content lies, and where the next one begins."""
    if position + 2 > end or depth > MAX_DEPTH:
        raise ValueError("cut off")
    tag, length = cms[position], cms[position + 1]
    if tag & 0x1F == 0x1F:
        raise ValueError("a tag of several bytes")
    start = position + 2
    if length == 0x80:  # BER: until the end is marked, by two zeros
        inner = start
        while cms[inner : inner + 2] != b"\0\0":
            inner = _element(cms, inner, end, depth + 1).after
        return _Element(tag, start, inner, inner + 2)
    if length > 0x80:
        count = length - 0x80
        length = int.from_bytes(cms[start : start + count], "big")
        start += count
    if start + length > end:
        raise ValueError("cut off")
    return _Element(tag, start, start + length, start + length)

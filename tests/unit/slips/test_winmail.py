"""winmail.dat and RTF."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RenderError
from relay.slips.parts import read_letter
from relay.slips.rtf import MAX_RTF, decompress, text_of_rtf
from relay.slips.tnef import read_tnef
from tests.unit.slips.enclosures import file, message, pdf_of, sheet_of
from tests.unit.slips.letters import solid
from tests.unit.slips.outlook import (
    BINARY,
    LONG,
    OBJECT,
    STRING8,
    UNICODE,
    attachment,
    attribute,
    compressed,
    message_properties,
    stored,
    winmail,
)

HTML_IN_RTF = (
    rb"{\rtf1\ansi\ansicpg1252\fromhtml1 \fbidis \deff0{\fonttbl{\f0\fswiss Arial;}}"
    rb"{\*\htmltag19 <html>}{\*\htmltag50 <body>}{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 Gr\'f6\'dfe &amp; "
    rb"\u1041?\u1080?\htmlrtf }\htmlrtf0 {\*\htmltag84 <br>}\htmlrtf \line\htmlrtf0 next{\*\htmltag72 </p>}"
    rb"{\*\htmltag58 </body>}{\*\htmltag27 </html>}}"
)
PLAIN_RTF = (
    rb"{\rtf1\ansi\ansicpg1251{\fonttbl{\f0 Arial;}}{\colortbl;\red0\green0\blue0;}{\info{\author Anna Lind}}"
    rb"{\*\generator Word;}\pard\f0 First \b bold\b0  line\par \'cf\'f0\'e0\'e3\'e0\par\uc2\u8364 EU{\pict 00ffee} 5"
    rb"\tab \{x\}\par}"
)


def mailed(content: bytes, *, name: str = "winmail.dat", kind: str = "application/ms-tnef", html: str = "") -> bytes:
    return message(file(content, name, kind), html=html)


def test_html_of_a_winmail_is_the_letter() -> None:
    page = "<p>Größe</p>".encode()
    body = message_properties((0x3FDE, LONG, struct.pack("<I", 65001)), (0x1013, BINARY, page))
    for kind, name in (("application/ms-tnef", ""), ("application/octet-stream", "winmail.dat"), ("text/plain", "x")):
        letter = read_letter(mailed(winmail(attribute(1, 0x2800C, b"text\0"), body), name=name, kind=kind))
        assert letter.html == "<p>Größe</p>"
        assert letter.notes == ()
        assert letter.attachments == ()


def test_text_of_a_winmail_is_printed_when_there_is_nothing_better() -> None:
    for body in (
        attribute(1, 0x0002800C, "Größe\0".encode("cp1252")),
        message_properties((0x1000, UNICODE, "Größe\0".encode("utf-16-le"))),
        message_properties((0x1000, STRING8, "Größe\0".encode("cp1252"))),
    ):
        assert read_letter(mailed(winmail(body))).html == "<pre>Größe</pre>"


def test_winmail_as_the_whole_message_is_read() -> None:
    part = file(winmail(attribute(1, 0x0002800C, b"words\0")), "winmail.dat", "application/ms-tnef")
    assert read_letter(part.as_bytes()).html == "<pre>words</pre>"


def test_letter_beside_the_winmail_stays_the_letter_and_its_files_are_found() -> None:
    content = winmail(attribute(1, 0x2800C, b" \0"), attachment(pdf_of(sheet_of("red")), "Größe.pdf"))
    letter = read_letter(mailed(content, html="<p>outer</p>"))
    assert letter.html == "<p>outer</p>"
    assert [(a.name, a.kind) for a in letter.attachments] == [("Größe.pdf", "application/pdf")]


def test_pictures_of_a_winmail_have_their_content_ids() -> None:
    page = message_properties((0x1013, BINARY, b"<img src='cid:logo@x'>"))
    letter = read_letter(mailed(winmail(page, attachment(solid("red"), "logo.png", "logo@x"))))
    assert [(p.content_id, p.name) for p in letter.pictures] == [("logo@x", "logo.png")]


def test_embedded_message_is_a_file() -> None:
    inner = bytes(16) + winmail(attribute(1, 0x2800C, b"inner\0"))
    body = attribute(1, 0x2800C, b"outer\0") + attribute(2, 0x69002, bytes(14))
    more = struct.pack("<IHHII", 1, OBJECT, 0x3701, 1, len(inner)) + inner
    found = read_tnef(winmail(body, attribute(2, 0x00069005, more)))
    assert found.text == "outer"
    assert found.attachments[0].content == inner[16:]


@pytest.mark.parametrize("pack", [compressed, stored])
def test_compressed_rtf_is_read(pack: object) -> None:
    assert callable(pack)
    body = message_properties((0x1009, BINARY, pack(HTML_IN_RTF)))
    assert read_letter(mailed(winmail(body))).html == "<html><body><p>Größe &amp; Би<br>next</p></body></html>"
    plain = message_properties((0x1009, BINARY, pack(PLAIN_RTF)))
    assert read_letter(mailed(winmail(plain))).html == "<pre>First bold line\nПрага\n€ 5\t{x}\n</pre>"


def test_compressed_rtf_may_refer_to_what_it_is_writing() -> None:
    body = bytes((0b10,)) + b"a" + struct.pack(">H", 207 << 4 | 8)
    assert decompress(struct.pack("<II4sI", len(body) + 12, 11, b"LZFu", 0) + body) == b"a" * 11


def test_compressed_rtf_is_bounded() -> None:
    body = (b"\xff" + struct.pack(">H", 1 << 4 | 15) * 8) * 40_000
    found = decompress(struct.pack("<II4sI", len(body) + 12, 2**32 - 1, b"LZFu", 0) + body)
    assert len(found) <= MAX_RTF + 17


def test_rtf_file_that_is_all_there_is_is_printed() -> None:
    assert "Прага" in read_letter(file(PLAIN_RTF, "letter.rtf", "application/rtf").as_bytes()).html


def test_broken_winmail_is_a_file_with_a_notice() -> None:
    letter = read_letter(mailed(b"\x78\x9f", html="<p>x</p>"))
    assert [a.name for a in letter.attachments] == ["winmail.dat"]
    whole = winmail(attribute(1, 0x2800C, b"words\0"), attachment(b"file" * 50, "a.txt"))
    for end in range(40, len(whole)):
        assert "words" in read_letter(mailed(whole[:end])).html


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 255))
def test_any_winmail_is_a_letter_or_a_refusal(junk: bytes, at: int, byte: int) -> None:
    page = message_properties((0x1013, BINARY, b"<p>x</p>"), (0x1009, BINARY, compressed(PLAIN_RTF)))
    whole = bytearray(winmail(page, attachment(b"1234", "a.txt")))
    whole[min(at, len(whole) - 1)] = byte
    for content in (bytes(whole), whole[:6] + junk):
        try:
            read_letter(mailed(bytes(content)))
        except RenderError as error:
            assert "can't be read" not in str(error)  # noqa: PT017


@given(st.binary(max_size=300))
def test_any_rtf_has_some_text(junk: bytes) -> None:
    text_of_rtf(b"{\\rtf1\\fromhtml1" + junk)
    text_of_rtf(b"{\\rtf1" + junk)


@pytest.mark.parametrize("piece", [b"{", b"}", b"\\'", b"\\u1?", b"{\\*\\htmltag", b"\\ansicpg99999 \\'ff", b"\\"])
def test_endless_rtf_ends(piece: bytes) -> None:
    text_of_rtf(b"{\\rtf1" + piece * (200_000 // len(piece)))

"""Content transfer encodings that are broken."""

from __future__ import annotations

import base64
import binascii
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.slips.transfer import decoded, uuencoded

HTML = b"<html><body><p>Title of a book</p></body></html>" * 5
BASE64 = base64.encodebytes(HTML)


@given(st.binary(max_size=3000))
def test_whole_encodings_give_what_was_encoded(content: bytes) -> None:
    assert decoded(base64.encodebytes(content), "base64") == (content, False)
    assert decoded(base64.b64encode(content), "base64") == (content, False)
    # As binary: with text, the encoder makes the ends of lines alike.
    assert decoded(binascii.b2a_qp(content, istext=False), "quoted-printable")[0] == content
    assert decoded(content, "8bit") == (content, False)


@given(st.binary(max_size=2000), st.sampled_from(["base64", "quoted-printable", "x-uuencode", "nonsense", ""]))
def test_anything_is_decoded_to_something(content: bytes, encoding: str) -> None:
    found, _ = decoded(content, encoding)
    assert isinstance(found, bytes)


def test_missing_padding() -> None:
    assert decoded(base64.b64encode(b"hello").rstrip(b"="), "base64") == (b"hello", True)


def test_cut_off_in_the_middle_of_a_byte() -> None:
    for cut in range(1, 5):
        found, is_broken = decoded(BASE64.rstrip()[:-8][:-cut], "base64")
        assert HTML.startswith(found)
        assert len(found) > len(HTML) - 12
        assert is_broken or len(found) % 3 == 0


def test_foreign_characters_are_passed_over() -> None:
    dirty = BASE64[:20] + b"\x00!?" + BASE64[20:]
    assert decoded(dirty, "base64") == (HTML, True)


def test_blocks_that_were_put_together() -> None:
    both = base64.b64encode(b"one!") + b"\n" + base64.b64encode(b"two!!") + b"\n"
    assert decoded(both, "base64") == (b"one!two!!", True)


def test_footer_of_a_gateway_behind_the_block_is_left_out() -> None:
    block = base64.encodebytes(b"x" * 100)
    assert block.rstrip().endswith(b"=")
    assert decoded(block + b"\n-- \nThis mail was scanned for you.\n", "base64") == (b"x" * 100, True)


def test_body_that_was_never_encoded_is_taken_as_it_is() -> None:
    assert decoded(HTML, "base64") == (HTML, True)
    prose = b"Dear desk, please bring the book to the other building today.\nThank you\n"
    assert decoded(prose, "base64") == (prose, True)
    html = b'<table width="100%"><tr><td align="right" bgcolor="#eeeeee">1</td></tr></table>'
    assert decoded(html, "quoted-printable") == (html, True)


def test_broken_quoted_printable_keeps_the_rest() -> None:
    assert decoded(b"Gr=C3=B6=DFe=\r\n f=FCr=ZZ =", "quoted-printable") == (b"Gr\xc3\xb6\xdfe f\xfcr=ZZ ", True)


def uu(content: bytes, name: bytes = b"a.pdf") -> bytes:
    lines = b"".join(binascii.b2a_uu(content[start : start + 45]) for start in range(0, len(content), 45))
    return b"begin 644 " + name + b"\n" + lines + b"`\nend\n"


@given(st.binary(min_size=1, max_size=500))
def test_uuencoded_blocks_are_taken_out_of_the_text(content: bytes) -> None:
    blocks, rest = uuencoded(b"before\n" + uu(content) + b"after\n" + uu(b"2", b"b b.txt"))
    assert blocks == [(b"a.pdf", content), (b"b b.txt", b"2")]
    assert rest == b"before\nafter\n"


def test_uuencoded_block_that_lost_the_spaces_at_the_ends_of_its_lines() -> None:
    block = binascii.b2a_uu(b"abc\0\0\0").replace(b"`", b" ").rstrip() + b"\n"
    assert uuencoded(b"begin 644 z\n" + block + b"end\n")[0] == [(b"z", b"abc\0\0\0")]


def test_text_that_only_begins_so_stays_text() -> None:
    text = b"begin 644 words\nof a sentence\nend\n"
    assert uuencoded(text) == ([], text)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"=" * 2_000_000, "base64"),
        (b"A=\n!\n" * 400_000, "base64"),
        (b"A=\nB" * 400_000, "base64"),
        (b"=!$ =\xff" * 200_000, "base64"),  # one line, looked through to its end from each padding
        (b"=\n" * 1_000_000, "quoted-printable"),
        (b"= " * 1_000_000, "quoted-printable"),
        (b"begin 644 a\n" * 150_000, "x-uuencode"),
        (b"begin 644 a\n#AAAA\n" * 100_000, "x-uuencode"),
    ],
)
def test_hostile_bodies_take_no_longer_than_their_length(content: bytes, encoding: str) -> None:
    started = time.process_time()
    decoded(content, encoding)
    assert time.process_time() - started < 5

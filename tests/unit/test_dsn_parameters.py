"""NOTIFY, ORCPT, RET and ENVID as senders write them (RFC 3461 4, RFC 6533 3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Refusal
from relay.mail.dsn_parameters import (
    MAX_ENVID,
    MAX_ORCPT,
    decode_xtext,
    encode_utf8_address,
    encode_xtext,
    read_envid,
    read_notify,
    read_orcpt,
    read_ret,
)

Read = Callable[[str | None], str]
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(PRINTABLE)
def test_xtext_stands_for_what_it_was_made_of(plain: str) -> None:
    encoded = encode_xtext(plain)
    assert decode_xtext(encoded) == plain
    assert not set(encoded) & set(" =")


@pytest.mark.parametrize("text", ["a b", "a=b", "+", "+2", "+2b", "+zz", "ä", "+0D+0A", "+00", "+7F", "+FF", "\r\n"])
def test_what_is_no_xtext_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not xtext|not printable"):
        decode_xtext(text)


@pytest.mark.parametrize("plain", ["ä", "\n", "\x7f"])
def test_xtext_holds_printable_ascii_only(plain: str) -> None:
    with pytest.raises(ValueError, match="not printable ASCII"):
        encode_xtext(plain)


@pytest.mark.parametrize(
    ("read", "value", "kept"),
    [
        (read_ret, "full", "FULL"),
        (read_ret, "HDRS", "HDRS"),
        (read_envid, "QQ314159", "QQ314159"),
        (read_envid, "a+2Bb+3Dc", "a+2Bb+3Dc"),
        (read_envid, "x" * MAX_ENVID, "x" * MAX_ENVID),
        (read_notify, "never", "NEVER"),
        (read_notify, "DELAY,success", "DELAY,SUCCESS"),
        (read_notify, "FAILURE,FAILURE", "FAILURE"),
        (read_notify, "SUCCESS,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"),
        (read_orcpt, "RFC822;Carol+2BHold@Ivory.example", "RFC822;Carol+2BHold@Ivory.example"),
        (read_orcpt, "x400;/C=de/+3D", None),
        (read_orcpt, "x400;/C+3Dde", "x400;/C+3Dde"),
        (read_orcpt, "utf-8;gr\\x{F6}\\x{DF}e@x.example", "utf-8;gr\\x{F6}\\x{DF}e@x.example"),
        (read_orcpt, "UTF-8;größe@x.example", "UTF-8;gr\\x{F6}\\x{DF}e@x.example"),
        (read_orcpt, "rfc822;" + "x" * (MAX_ORCPT - 7), "rfc822;" + "x" * (MAX_ORCPT - 7)),
        *((read, None, "") for read in (read_ret, read_envid, read_notify, read_orcpt)),
    ],
)
def test_what_is_kept(read: Read, value: str | None, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(Refusal):
            read(value)
    else:
        assert read(value) == kept
        assert read(kept or None) == kept, "it is passed on to a host that reads it as we do"


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (read_ret, ""),
        (read_ret, "BODY"),
        (read_envid, ""),
        (read_envid, "+0D+0AX:y"),
        (read_envid, "a=b"),
        (read_envid, "ä"),
        (read_envid, "x" * (MAX_ENVID + 1)),
        (read_notify, ""),
        (read_notify, "NEVER,SUCCESS"),
        (read_notify, "ALWAYS"),
        (read_notify, "SUCCESS,"),
        (read_orcpt, ""),
        (read_orcpt, "a@b.example"),
        (read_orcpt, "rfc822;"),
        (read_orcpt, ";a@b.example"),
        (read_orcpt, "rfc 822;a@b.example"),
        (read_orcpt, "rfc822;a+0D+0AAction:delivered"),
        (read_orcpt, "rfc822;größe@x.example"),
        (read_orcpt, "utf-8;a\\x{D}b"),
        (read_orcpt, "utf-8;a\\x{110000}b"),
        (read_orcpt, "utf-8;a\\x{D800}b"),
        (read_orcpt, "utf-8;a\\b"),
        (read_orcpt, "rfc822;" + "x" * MAX_ORCPT),
    ],
)
def test_a_wrong_value_is_a_syntax_error(read: Read, value: str) -> None:
    with pytest.raises(Refusal) as refusal:
        read(value)
    assert (refusal.value.reply.code, refusal.value.reply.enhanced) == (501, "5.5.4")
    assert str(refusal.value.reply).isascii()


@given(st.sampled_from([read_ret, read_envid, read_notify, read_orcpt]), st.text() | PRINTABLE)
def test_what_is_kept_is_one_word_and_is_read_again_as_itself(read: Read, value: str) -> None:
    try:
        kept = read(value)
    except Refusal:
        return
    assert kept.isascii()
    assert kept.isprintable()
    assert " " not in kept
    assert read(kept) == kept


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=40))
def test_an_address_in_utf_8_is_kept_in_ascii(address: str) -> None:
    encoded = encode_utf8_address(address)
    assert encoded.isascii()
    assert read_orcpt(f"utf-8;{encoded}") == f"utf-8;{encoded}"

"""What commands say: read, or refused with a reply that can be sent; whatever a client makes up."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.errors import Goodbye, Refusal
from relay.intake.commands import Mail, read_bdat, read_mail, read_rcpt
from relay.mail.address import Address
from relay.mail.parameters import parameters
from tests.harness.fuzz_commands import judge

PIECES = st.sampled_from(
    ["FROM:", "TO:", "<", ">", "a@b.example", "@", ".", " ", "=", "SIZE=", "9" * 25, "BODY=8BITMIME", "BODY=BINARYMIME",
     "SMTPUTF8", "RET=FULL", "ENVID=x+2B", "NOTIFY=", "NEVER", "ORCPT=rfc822;", "ORCPT=utf-8;\\x{10FFFF}", "AUTH=<>",
     '"', "\\", "ü", "\u202e", "+", ";", ",", "REQUIRETLS", "LAST", "0", "-1", "\u0660"]
)  # fmt: skip
ARGUMENTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=60)


def refused(refusal: Refusal) -> None:
    """A refusal can be sent: its reply is one line with a status of its class (RFC 2034)."""
    line = refusal.reply.line()
    assert re.fullmatch(rb"[45]\d\d [45]\.\d{1,3}\.\d{1,3} [\x20-\x7e]+\r\n", line), line
    assert len(line) <= 512


@given(ARGUMENTS, st.booleans())
@example("FROM:<a@b.example> SIZE=٣", False)
@example("FROM:<> BODY=binarymime", False)
@example("FROM:<> REQUIRETLS", True)
def test_mail_is_read_or_refused(argument: str, is_secure: bool) -> None:
    try:
        mail = read_mail(argument, is_secure=is_secure)
    except Refusal as refusal:
        refused(refusal)
    else:
        assert mail.reverse_path is None or str(mail.reverse_path).isprintable()
        assert 0 <= mail.size < 10**20
        assert mail.smtputf8 or mail.reverse_path is None or mail.reverse_path.is_ascii


@given(ARGUMENTS, st.booleans())
def test_rcpt_is_read_or_refused(argument: str, smtputf8: bool) -> None:
    try:
        rcpt = read_rcpt(argument, smtputf8=smtputf8)
    except Refusal as refusal:
        refused(refusal)
    else:
        assert str(rcpt.recipient).isprintable()
        assert smtputf8 or rcpt.recipient.is_ascii
        assert rcpt.asked.orcpt.isascii()


@given(ARGUMENTS)
@example("12 LAST")
@example("٣")
@example("1e3")
def test_bdat_is_read_or_ends_the_session(argument: str) -> None:
    try:
        octets, is_last = read_bdat(argument)
    except Goodbye as goodbye:
        refused(goodbye)
    else:
        assert re.fullmatch(r"0*" + str(octets or "") + ("(?i: +LAST)" if is_last else ""), argument)


def test_what_mail_says() -> None:
    said = read_mail("from: <circ@lib.example> SIZE=10 body=8bitmime SMTPUTF8 RET=HDRS ENVID=x")
    assert said == Mail(Address("circ", "lib.example"), 10, smtputf8=True, eight_bit=True, ret="HDRS", envid="x")
    assert read_mail("FROM:<>") == Mail(None)


def test_requiretls_is_for_tls_and_has_no_value() -> None:
    assert read_mail("FROM:<> REQUIRETLS RET=FULL", is_secure=True) == Mail(None, ret="HDRS", requiretls=True)
    for argument, is_secure in (("FROM:<> REQUIRETLS", False), ("FROM:<> REQUIRETLS=1", True)):
        with pytest.raises(Refusal):
            read_mail(argument, is_secure=is_secure)
    with pytest.raises(Refusal):
        read_mail("FROM:<> REQUIRETLS RET=ALL", is_secure=True)


@pytest.mark.parametrize("argument", ["", "5 FIRST", "LAST", "-5", "+5", "5 LAST LAST", "0x10", "9" * 21, "5,LAST"])
def test_a_bdat_that_cannot_be_read(argument: str) -> None:
    with pytest.raises(Goodbye):
        read_bdat(argument)


@given(st.binary(max_size=80))
@example(b"\x00<a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+2Bb")
@example(b'\x01<"x\\"y"@b\xc3\xbc.example> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;a\\x{FC}b@c')
@example(b"\x02<a@[IPv6:2001:db8::1]> ORCPT=rfc822;a+40b")
@example(b"\x03123 LAST")
def test_what_is_read_reads_back_and_what_is_refused_can_be_said(words: bytes) -> None:
    judge(words)


@given(st.text(max_size=60))
def test_parameters_have_a_name_each(text: str) -> None:
    found = parameters(text)
    if found is not None:
        assert len(found) == len(text.split())
        assert all(name == name.upper() and name.isascii() for name in found)

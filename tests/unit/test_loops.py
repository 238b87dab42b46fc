"""Mail in circles is refused for good; mail that has been here before, or far, is not."""

from __future__ import annotations

import pytest

from relay.errors import HeaderError, Refusal
from relay.intake.loops import MAX_OWN, MAX_RECEIVED, check
from relay.mail.address import Address, parse_address

US = "relay.lib.example"
OURS = (
    b"Received: from mx.lib.example ([192.0.2.1])\r\n"
    b"\tby relay.lib.example (slip-relay) with ESMTPS id 06GXWTSGYD8QM;\r\n\tSat, 28 Nov 2026 20:00:00 +0000\r\n"
)
OTHERS = b"Received: from relay.lib.example ([192.0.2.9]) by mx.lib.example with ESMTP id 1; Sat, 28 Nov 2026\r\n"
DESK = parse_address("desk@print.lib.example")


def verdict(header: bytes, *recipients: Address) -> str:
    try:
        check(header, US, recipients or (DESK,))
    except Refusal as refusal:
        return str(refusal.reply)
    return ""


def test_few_servers_are_no_loop() -> None:
    assert verdict(b"From: a@lib.example\r\n") == ""
    assert verdict(OTHERS * MAX_RECEIVED) == ""
    assert verdict(OURS * MAX_OWN + OTHERS) == ""


def test_too_many_servers_are_one() -> None:
    assert verdict(OTHERS * (MAX_RECEIVED + 1)).startswith("554 5.4.6 the message has passed 51 servers")


@pytest.mark.parametrize(
    "ours", [OURS, b"RECEIVED: by RELAY.lib.example;\r\n", b"Received: by relay.lib.example(x) id 1; x\r\n"]
)
def test_what_was_here_too_often_is_one(ours: bytes) -> None:
    assert verdict(ours * MAX_OWN) == ""
    assert verdict(ours * (MAX_OWN + 1)).startswith("554 5.4.6 the message has been here 4 times")


@pytest.mark.parametrize("name", [b"relay.lib.example.evil", b"xrelay.lib.example", b"relay-lib.example"])
def test_another_server_is_not_us(name: bytes) -> None:
    assert verdict((b"Received: from x by " + name + b" id 1; x\r\n") * (MAX_OWN + 1)) == ""


def test_what_comes_back_to_whom_it_was_delivered_is_one() -> None:
    back = b"Delivered-To: <Desk@print.LIB.example>\r\n"
    assert verdict(back + OURS).startswith("554 5.4.6 the message was delivered to one of its recipients before")
    assert verdict(back + OURS, parse_address("other@print.lib.example")) == ""
    assert verdict(back + OTHERS) == "", "it was never here"


def test_a_header_that_is_none_is_told() -> None:
    with pytest.raises(HeaderError):
        verdict(OURS + b"no field\r\n")

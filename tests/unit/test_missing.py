"""What a letter came without is added on top of it, the same at each attempt, and signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.config.settings import Config
from relay.mail import headers
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler
from relay.outgoing.keys import public_record
from relay.outgoing.missing import missing_fields
from relay.outgoing.private_key import pem
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, State
from tests.accepted import accepted

DATE = b"Date: Sat, 21 Nov 2026 08:00:00 +0000\r\n"
BARE = DATE + b"From: circ@lib.example\r\nSubject: due\r\n"
ID = b"Message-ID: <%s@relay.lib.example>\r\n"
AUTOMATIC = b"Auto-Submitted: auto-generated\r\n"
LETTER = replace(accepted(BARE + b"\r\nbody\r\n"), queue_id="0123456789ABC")
MADE = ID % LETTER.queue_id.encode()


@pytest.mark.parametrize(
    ("more", "added"),
    [
        (b"", MADE + AUTOMATIC),
        (b"message-id : <1@alma.example>\r\n", AUTOMATIC),
        (b"Message-ID:\r\n <1@alma.example>\r\n", AUTOMATIC),
        (b"X-Message-ID: <1@alma.example>\r\n", MADE + AUTOMATIC),
        (b"Auto-Submitted: no\r\n", MADE),
        (b"Message-ID: <1@alma.example>\r\nAUTO-SUBMITTED: auto-replied\r\n", b""),
        (b"DKIM-Signature: v=1; h=from:subject; b=x\r\n", MADE + AUTOMATIC),
        (b"DKIM-Signature: v=1; h=From:\r\n\tMessage-ID :From; b=x\r\n", AUTOMATIC),
        (b"DKIM-Signature: v=1; bh=message-id; h = auto-submitted\r\n", MADE),
        (b"DKIM-Signature: h=message-id\r\nDKIM-Signature: v=1;h=auto-submitted; b=\r\n", b""),
    ],
)
def test_what_is_missing_is_added_unless_that_breaks_a_signature(more: bytes, added: bytes) -> None:
    assert missing_fields(LETTER, BARE + more, "relay.lib.example", automatic=True) == added


def test_a_letter_without_a_date_has_that_of_its_receipt() -> None:
    header = BARE.replace(DATE, b"")
    made = missing_fields(LETTER, header, "relay.lib.example", automatic=True)
    assert made.startswith(MADE + b"Date: ")
    assert made.endswith(b"\r\n" + AUTOMATIC)
    said = parsedate_to_datetime(made.split(b"\r\n")[1].decode().removeprefix("Date: "))
    assert said.timestamp() == int(LETTER.received_at)
    signed = header + b"DKIM-Signature: v=1; h=from:date; b=x\r\n"
    assert missing_fields(LETTER, signed, "relay.lib.example", automatic=True) == MADE + AUTOMATIC


def test_who_wants_no_auto_submitted_gets_none() -> None:
    assert missing_fields(LETTER, BARE, "relay.lib.example", automatic=False) == MADE


def test_returned_mail_is_not_called_automatic() -> None:
    assert missing_fields(replace(LETTER, reverse_path=None), BARE, "relay.lib.example", automatic=True) == MADE


def test_a_name_beyond_ascii_is_written_in_ascii() -> None:
    made = missing_fields(LETTER, BARE, "relay.bücherei.example", automatic=False)
    assert made.endswith(b"@relay.xn--bcherei-n2a.example>\r\n")


def test_it_leaves_signed_with_it_and_the_same_each_time(make_config: Callable[..., Config], tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key.pem").write_bytes(pem(private))
    demo: dict[str, Any] = {"name": "demo", "domains": ["lib.example"], "envelope_from": "bounces@lib.example"}
    demo["dkim"] = [{"domain": "lib.example", "selector": "s1", "key_file": tmp_path / "key.pem"}]
    config = make_config(institutions=[demo])
    delivery = Delivery(LETTER, 0, "reader@patron.example", "default", "default", State.ACTIVE, 1, 0.0)
    content = BARE + b"\r\nbody\r\n"
    first, second = (
        Assembler(config, Signer(config.institutions), MailLog()).assemble(delivery, content) for _ in range(2)
    )
    record = public_record(private).encode()
    for mail in (first, second):
        assert mail.content.endswith(MADE + AUTOMATIC + content)
        assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: record)
        assert not dkim.verify(mail.content.replace(MADE, b""), dnsfunc=lambda name, timeout=5: record)
        assert headers.message_id(headers.section(mail.content)).encode() in MADE

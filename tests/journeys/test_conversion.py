"""Letters through the real service to a host that has neither 8BITMIME nor SMTPUTF8."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import dkim
import pytest
import pytest_asyncio

from relay.mail import headers
from tests.harness.institution import DOMAIN
from tests.harness.letters_only import LettersOnly
from tests.harness.next_hop import Taken
from tests.harness.waiting import LOCALHOST

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADER = f"From: J\xf6rg <circ@{DOMAIN}>\r\nSubject: f\xfcr Sie\r\nMIME-Version: 1.0\r\n".encode()
TEXT = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
BODY = "Gr\xf6\xdfe: 5 \xbd\r\n.dot \r\n".encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def letters(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LettersOnly]:
    """The service before a host that takes less, and is told of what fails."""
    extra = {"institutions": [{"name": "demo", "dsn_to": f"desk@{DOMAIN}"}]}
    async with LettersOnly(tmp_path_factory.mktemp("less"), extra=extra) as made:
        made.next_hop.eight_bit = False
        yield made


async def sent(letters: LettersOnly, content: bytes, *options: str) -> Taken:
    """Hands a letter in, with options of MAIL; gives what comes to the next hop of it, or because of it."""
    count = len(letters.next_hop.taken)

    def send() -> None:
        with smtplib.SMTP(LOCALHOST, letters.appliance.port, local_hostname="client.example") as client:
            client.sendmail("alma@exlibrisgroup.example", ["reader@patron.example"], content, mail_options=options)

    await asyncio.to_thread(send)
    return (await letters.next_hop.wait_for(count + 1))[count]


def is_well_signed(letters: LettersOnly, content: bytes) -> bool:
    record = letters.institution.dkim_record.encode()
    return bool(dkim.verify(content, dnsfunc=lambda name, timeout=5: record))


@pytest.mark.parametrize("options", [(), ("BODY=8BITMIME",), ("BODY=8BITMIME", "SMTPUTF8")])
@pytest.mark.parametrize("size", [1, 20_000], ids=["small", "large"])
async def test_a_letter_is_converted_and_signed_after_that(
    letters: LettersOnly, options: tuple[str, ...], size: int
) -> None:
    taken = await sent(letters, HEADER + TEXT + BODY * size, *options)
    assert taken.content.isascii()
    assert taken.mail_parameters.split() == [f"SIZE={len(taken.content)}"]
    assert is_well_signed(letters, taken.content)
    message = message_from_bytes(taken.content, policy=default)
    assert message.get_payload(decode=True) == BODY * size
    assert (message["Subject"], message["From"].addresses[0].display_name) == ("f\xfcr Sie", "J\xf6rg")


async def test_what_can_not_be_converted_comes_back_and_says_why(letters: LettersOnly) -> None:
    header = HEADER + "Message-ID: <\xf6@lib.example>\r\n".encode()
    taken = await sent(letters, header + TEXT + BODY, "BODY=8BITMIME", "SMTPUTF8")
    assert (taken.mail_from, taken.rcpt_to) == ("", [f"desk@{DOMAIN}"])
    assert taken.content.isascii()
    assert b"\r\nStatus: 5.6.9\r\n" in taken.content
    assert b"its field message-id is not ASCII, and has no other form" in taken.content.replace(b"=\r\n", b"")
    assert is_well_signed(letters, taken.content)


async def test_a_dsn_that_brings_a_letter_back_is_converted_as_well(letters: LettersOnly) -> None:
    letters.next_hop.refuse_next(550, at="body")
    content = HEADER.replace("\xf6".encode(), b"o").replace("\xfc".encode(), b"u") + TEXT + BODY
    taken = await sent(letters, content, "BODY=8BITMIME", "RET=FULL")
    assert taken.mail_from == ""
    assert taken.content.isascii()
    assert headers.count(headers.section(taken.content), "dkim-signature") == 1
    *_, returned = message_from_bytes(taken.content, policy=default).walk()
    assert (returned["From"].addresses[0].display_name, returned.get_payload(decode=True)) == ("Jorg", BODY)


async def test_the_log_says_which_signature_was_broken(letters: LettersOnly, tmp_path: Path) -> None:
    brought = b"DKIM-Signature: v=1; a=rsa-sha256; d=lib.example; s=exl; h=from; bh=AA==; b=AA==\r\n"
    await sent(letters, brought + HEADER + TEXT + BODY)
    log = letters.appliance.log.read_text(encoding="utf-8")
    (line,) = [line for line in log.splitlines() if "event=signature-broken" in line]
    assert line.endswith(" delivery=0 kind=dkim domain=lib.example selector=exl rules=convert")
    assert ', converted"' in log

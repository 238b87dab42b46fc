"""Whatever a client calls a message: it is refused, or goes on with every byte it came with, and well signed."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.bounces.notify import Notifier
from relay.config.settings import Config, Intake
from relay.errors import HeaderError, Refusal, Unconvertible
from relay.intake.staging import Arrived, Staging
from relay.mail import headers
from relay.mail.status import Reply
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler
from relay.outgoing.keys import public_record
from relay.outgoing.private_key import pem
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, Outcome, State
from tests.accepted import accepted

NAMES = [b"From", b"from", b"Subject", b"To", b"Date", b"Message-ID", b"Received", b"DKIM-Signature", b"X-Odd", b"Cc"]
VALUES = st.sampled_from(
    [
        b"circ@lib.example",
        b"Library <circ@lib.example>",
        b" ",
        b"",
        b"a\r\n b",
        b"a\r\n\tb",
        b"\r\n ",
        b"\t x  y \t",
        b"(\\",
        b'"',
        b"<>",
        b":",
        b"=?utf-8?q?=00?=",
        b"v=1; d=x; b=",
        "größe".encode(),
        b"\xff\xfe",
        b"\x00",
        b"\x0b\x0c",
        b"a" * 1100,
    ]
)
FIELDS = st.tuples(
    st.sampled_from(NAMES), st.sampled_from([b":", b" :", b": ", b"\t:\t"]), st.lists(VALUES, max_size=3).map(b"".join)
).map(lambda parts: b"".join(parts) + b"\r\n")
LINES = st.one_of(FIELDS, FIELDS, FIELDS, st.binary(max_size=20), VALUES)
BODIES = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b" ", b"\t", b"text", b"\x00", b"\xe9"]), max_size=20)
MESSAGES = st.builds(
    lambda lines, body: b"From: circ@lib.example\r\n" * (b"From" not in b"".join(lines)) + b"".join(lines) + body,
    st.lists(LINES, max_size=8),
    BODIES.map(lambda pieces: b"\r\n" * bool(pieces) + b"".join(pieces)),
)

REFUSED = Outcome(State.FAILED, "no", Reply(550, "5.1.1", "no such mailbox"))


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, private: rsa.RSAPrivateKey) -> Config:
    folder: Path = tmp_path_factory.mktemp("key")
    (folder / "key.pem").write_bytes(pem(private))
    key = {"domain": "lib.example", "selector": "s1", "key_file": str(folder / "key.pem")}
    demo = {
        "name": "demo",
        "domains": ["lib.example"],
        "envelope_from": "bounces@lib.example",
        "convert": "never",
        "dkim": [key],
    }
    return Config.model_validate(
        {
            "server": {"hostname": "relay.lib.example"},
            "spool": {"url": f"sqlite:///{folder}/spool.db"},
            "listeners": [{"name": "smtp", "port": 2525}],
            "institutions": [demo],
            "sources": [{"name": "alma", "institutions": ["demo"], "networks": ["192.0.2.0/24"]}],
            "next_hops": [{"name": "default", "host": "127.0.0.1"}],
        }
    )


def taken(message: bytes) -> Arrived | None:
    """What is kept of a message; None when it is refused."""

    async def take() -> Arrived | None:
        staging = Staging(Intake(), None, lambda size: True, MailLog())
        sink = staging.sink()
        try:
            await sink.take(message)
            return await sink.finish()
        except Refusal:
            return None
        finally:
            staging.close()

    return asyncio.run(take())


@given(MESSAGES)
@example(b"From: circ@lib.example")
@example(b"From: circ@lib.example\r\n\r\n")
@example(b"\r\nFrom: circ@lib.example\r\n")
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_it_is_refused_or_sent_as_it_came_and_well_signed(
    config: Config, private: rsa.RSAPrivateKey, message: bytes
) -> None:
    arrived = taken(message)
    if arrived is None:
        return
    content = arrived.content
    assert isinstance(content, bytes)
    assert content.replace(b"\r\n", b"").translate(None, b"\r\n\0") == message.translate(None, b"\r\n\0")
    try:
        headers.from_domains(arrived.header)
        headers.count(arrived.header, "received")
    except HeaderError:
        return
    letter = replace(accepted(content), message_id=headers.message_id(arrived.header))
    delivery = Delivery(letter, 0, "reader@patron.example", "default", "default", State.ACTIVE, 1, 0.0)
    mail = Assembler(config, Signer(config.institutions), MailLog()).assemble(delivery, content)
    assert mail.original == content
    assert mail.content == mail.own_fields + content
    assert headers.split(mail.content) == (mail.own_fields + arrived.header, headers.split(content)[1])
    record = public_record(private).encode()
    # dkimpy reads no field with a space before its colon; relaxed canonicalisation takes no notice of it.
    header, body = headers.split(mail.content)
    readable = re.sub(rb"(?m)^([!-9;-~]+)[ \t]+:", rb"\1:", header) + b"\r\n" + body
    assert dkim.verify(readable, minkey=1024, dnsfunc=lambda name, timeout=5: record)
    assert_less_is_as_good(config, delivery, content, record)
    for ret in ("FULL", "HDRS"):
        asked = replace(delivery, message=replace(letter, ret=ret))
        dsn = Notifier(config).about(asked, REFUSED, content)
        assert dsn is not None
        assert dsn.content.count(b"\r") == dsn.content.count(b"\n") == dsn.content.count(b"\r\n")
        assert b"\0" not in dsn.content


def assert_less_is_as_good(config: Config, delivery: Delivery, content: bytes, record: bytes) -> None:
    """For a host without extensions it is converted, well signed, or refused with a reason; rewritten, too."""
    demo = config.institutions[0].model_copy(update={"convert": "as-needed"})
    changed = {"header_from": "rewrite", "from_mailbox": "library@elsewhere.example", "domains": ("elsewhere.example",)}
    for institution in (demo, demo.model_copy(update=changed)):
        own = config.model_copy(update={"institutions": (institution,)})
        try:
            mail = Assembler(own, Signer(own.institutions), MailLog()).assemble(delivery, content, frozenset())
        except Unconvertible:
            continue
        assert mail.content.isascii()
        assert mail.size == len(mail.content)
        header, body = headers.split(mail.content)
        readable = re.sub(rb"(?m)^([!-9;-~]+)[ \t]+:", rb"\1:", header) + b"\r\n" + body
        assert dkim.verify(readable, minkey=1024, dnsfunc=lambda name, timeout=5: record)
        assert headers.from_domains(header) in (["elsewhere.example"], ["lib.example"])

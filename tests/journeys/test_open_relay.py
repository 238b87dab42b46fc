"""No open relay: the tricks by which mail was ever smuggled through a server, from outside and from an allowed source.

Each is tried on the real process. Nothing reaches the next hop, a printer or the spool.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from relay.intake.proxy_protocol import SIGNATURE
from relay.spool.engine import Place
from relay.spool.queries import list_deliveries
from tests.harness.playground import Playground
from tests.harness.raw_smtp import RawSmtp, trusting

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUTSIDE = "127.0.0.9"
BRANCH = "127.0.0.2"
"""A source that may send to staff.lib.example, and print on the demo's printers."""

V2 = SIGNATURE + b"\x21\x11\0\x0c" + bytes([127, 0, 0, 1, 127, 0, 0, 1]) + b"\x12\x34\0\x19"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def playground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Playground]:
    folder = tmp_path_factory.mktemp("open-relay") / "all"
    async with Playground(folder, start_appliance=False) as playground:
        playground.institution.write_config(
            {
                "institutions": [
                    {
                        "name": "law",
                        "domains": ["law.example"],
                        "envelope_from": "bounces@law.example",
                        "next_hop": "default",
                    }
                ],
                "sources": [
                    {
                        "name": "branch",
                        "institutions": ["demo"],
                        "networks": [f"{BRANCH}/32"],
                        "recipients": ["*@staff.lib.example"],
                    }
                ],
                "printers": [
                    {
                        "name": "law",
                        "institution": "law",
                        "mailboxes": ["law@print.law.example"],
                        "queue": "laser",
                        "profile": "a4",
                    }
                ],
                "auth": {"max_failures": 1000, "delay": 0.01},
                "log": {"addresses": "shown"},
                "rendering": {"children": 1},
            }
        )
        await playground.appliance.start()
        yield playground


@dataclass(frozen=True, slots=True)
class Trick:
    """Commands after EHLO. Every RCPT among them has to be refused, and the message too."""

    name: str
    rcpt: str
    mail: str = "<alma@exlibrisgroup.example>"
    ehlo: str = "EHLO mta.outside.example"
    before: tuple[str | bytes, ...] = ()
    "Commands between EHLO and MAIL; each has to be refused."

    def __str__(self) -> str:
        return self.name


def to(name: str, rcpt: str, **more: str) -> Trick:
    return Trick(name, rcpt, **more)  # type: ignore[arg-type]


PATRON = "<reader@patron.example>"
RECIPIENTS = [
    to("plainly", PATRON),
    to("to a printer", "<laser@print.lib.example>"),
    to("to the library's own domain", "<circ@lib.example>"),
    to("to our host name", "<root@relay.lib.example>"),
    to("to our address", "<root@[127.0.0.1]>"),
    to("to an address literal", "<reader@[192.0.2.99]>"),
    to("to an IPv6 literal", "<reader@[IPv6:2001:db8::99]>"),
    to("to an IPv4-mapped literal", "<reader@[IPv6:::ffff:127.0.0.1]>"),
    to("to the bounce domain", "<b-06GXWTSGYD8QM-0-aaaaaaaa@bounces.lib.example>"),
    to("to postmaster", "<postmaster>"),
    to("to postmaster of ours", "<postmaster@lib.example>"),
    to("percent hack", "<reader%patron.example@lib.example>"),
    to("percent hack at our host name", "<reader%patron.example@relay.lib.example>"),
    to("percent hack at our address", "<reader%patron.example@[127.0.0.1]>"),
    to("two percents", "<reader%patron.example%lib.example@relay.lib.example>"),
    to("percent without a domain", "<reader%patron.example>"),
    to("bang path", "<patron.example!reader>"),
    to("bang path at our domain", "<patron.example!reader@lib.example>"),
    to("long bang path", "<relay.lib.example!patron.example!reader>"),
    to("source route", "<@relay.lib.example:reader@patron.example>"),
    to("long source route", "<@relay.lib.example,@lib.example:reader@patron.example>"),
    to("quoted address at our domain", '<"reader@patron.example"@lib.example>'),
    to("quoted address without a domain", '<"reader@patron.example">'),
    to("quoted percent", '<"reader%patron.example"@lib.example>'),
    to("two domains", "<reader@patron.example@lib.example>"),
    to("two domains, ours first", "<reader@lib.example@patron.example>"),
    to("a domain behind the bracket", "<reader@patron.example>@lib.example"),
    to("two paths", "<circ@lib.example> <reader@patron.example>"),
    to("two paths with a comma", "<circ@lib.example>,<reader@patron.example>"),
    to("no brackets", "reader@patron.example"),
    to("spaces", " < reader@patron.example >"),
    to("a comment", "<reader@patron.example(lib.example)>"),
    to("a trailing dot", "<reader@patron.example.>"),
    to("only a dot", "<reader@.>"),
    to("an empty domain", "<reader@>"),
    to("no domain", "<reader>"),
    to("the null path", "<>"),
    to("encoded word", "<=?utf-8?q?reader=40patron.example=3E?=@lib.example>"),
    to("NUL", "<reader@patron.example\0@lib.example>"),
    to("bare CR and a command", "<circ@lib.example>\rRCPT TO:<reader@patron.example>"),
    to("bare LF and a command", "<circ@lib.example>\nRCPT TO:<reader@patron.example>"),
    to("a Cyrillic look-alike", "<reader@lіb.example>"),
    to("a full-width @", "<reader＠patron.example>"),
    to("a full-width percent", "<reader％patron.example@lib.example>"),
    to("an ideographic full stop", "<reader@patron。example>"),
    to("a soft hyphen", "<reader@patron\u00ad.example>"),
    to("a bidi override", "<reader@\u202eelpmaxe.nortap>"),
    to("a pipe", "<|/bin/sh@lib.example>"),
    to("a path on the disk", "<../../spool@lib.example>"),
    to("an ORCPT of ours", f"{PATRON} ORCPT=rfc822;circ@lib.example"),
    to("a NOTIFY", f"{PATRON} NOTIFY=NEVER"),
]
PLAIN = base64.b64encode(b"\0alma\0alma").decode()
DIALOGUES = [
    Trick("with our sender", PATRON, mail="<circ@lib.example>"),
    Trick("with a printer as sender", PATRON, mail="<laser@print.lib.example>"),
    Trick("with the recipient as sender", PATRON, mail=PATRON),
    Trick("with no sender", PATRON, mail="<>"),
    Trick("with no sender to a printer", "<laser@print.lib.example>", mail="<>"),
    Trick("with no sender to the bounce domain", "<b-x-0-y@bounces.lib.example>", mail="<>"),
    Trick("with an AUTH parameter", PATRON, mail="<circ@lib.example> AUTH=alma@lib.example"),
    Trick("with a SMTPUTF8 sender", PATRON, mail="<größe@lib.example> SMTPUTF8"),
    Trick("as our host name", PATRON, ehlo="EHLO relay.lib.example"),
    Trick("as our domain", PATRON, ehlo="EHLO lib.example"),
    Trick("as our address", PATRON, ehlo="EHLO [127.0.0.1]"),
    Trick("as localhost", PATRON, ehlo="EHLO localhost"),
    Trick("by HELO", PATRON, ehlo="HELO localhost"),
    Trick("XCLIENT", PATRON, before=("XCLIENT ADDR=127.0.0.1 NAME=localhost",)),
    Trick("XFORWARD", PATRON, before=("XFORWARD ADDR=127.0.0.1 NAME=localhost",)),
    Trick("PROXY, version 1", PATRON, before=("PROXY TCP4 127.0.0.1 127.0.0.1 4711 25",)),
    Trick("AUTH in the clear", PATRON, before=(f"AUTH PLAIN {PLAIN}",)),
    Trick("AUTH of an unknown kind", PATRON, before=("AUTH EXTERNAL =",)),
    Trick("AUTH ANONYMOUS", PATRON, before=("AUTH ANONYMOUS Zm9v",)),
    Trick("ETRN", PATRON, before=("ETRN lib.example", "ETRN @lib.example")),
    Trick("TURN", PATRON, before=("TURN", "ATRN lib.example")),
    Trick(
        "SEND, SOML, SAML", PATRON, before=("SEND FROM:<a@lib.example>", "SOML FROM:<a@lib.example>", "SAML FROM:<>")
    ),
    Trick("BURL", PATRON, before=("BURL imap://alma@lib.example/Sent;UIDVALIDITY=1/;UID=1 LAST",)),
    Trick("an old sendmail's debugging", PATRON, before=("DEBUG", "WIZ", "SHELL")),
    Trick("EXPN", PATRON, before=("EXPN laser", "EXPN staff")),
]


@pytest.mark.parametrize("trick", [*RECIPIENTS, *DIALOGUES], ids=str)
async def test_a_trick_from_outside(playground: Playground, trick: Trick) -> None:
    async with RawSmtp(playground.ports.smtp, source=OUTSIDE) as client:
        assert (await client.say(trick.ehlo)).startswith(b"250")
        for command in trick.before:
            assert (await client.say(command))[:1] == b"5", command
        utf8 = "" if trick.rcpt.isascii() or "SMTPUTF8" in trick.mail else " SMTPUTF8"
        assert (await client.say(f"MAIL FROM:{trick.mail}{utf8}")).startswith(b"250")
        await assert_refused(client, trick.rcpt)


async def assert_refused(client: RawSmtp, rcpt: str) -> None:
    """RCPT, then DATA, whatever was answered: nobody is a recipient, and no message is begun."""
    for line in (f"RCPT TO:{rcpt}", "DATA", "QUIT"):
        client.send(line.encode("utf-8"))
    replies = (await client.rest()).splitlines()
    assert replies
    assert not [reply for reply in replies if reply[:3] in (b"354", b"251") or reply.startswith(b"250 2.1.5")], replies
    assert replies[0][:1] in (b"4", b"5"), replies


async def test_a_client_that_does_not_wait(playground: Playground) -> None:
    group = b"MAIL FROM:<a@lib.example>\r\nRCPT TO:<reader@patron.example>\r\nDATA\r\n"
    message = b"From: circ@lib.example\r\n\r\nhello\r\n.\r\nQUIT"
    for greets, first in ((True, group), (False, b"EHLO x.example\r\n" + group)):
        async with RawSmtp(playground.ports.smtp, source=OUTSIDE) as client:
            if greets:
                await client.say("EHLO x.example")
            client.send(first + message)
            replies = (client.greeting + await client.rest()).splitlines()
            assert not [reply for reply in replies if reply.startswith((b"354", b"250 2.1.5", b"250 2.0.0 queued"))]
            assert any(reply[:1] == b"5" for reply in replies), replies


async def test_commands_behind_starttls_are_not_of_the_session(playground: Playground) -> None:
    injected = b"MAIL FROM:<circ@lib.example>\r\nRCPT TO:<reader@patron.example>\r\n"
    for source in (OUTSIDE, "127.0.0.1"):
        async with RawSmtp(playground.ports.smtp, source=source) as client:
            await client.say("EHLO x.example")
            client.send(b"STARTTLS\r\n" + injected.rstrip())
            reply = await client.reply()
            if reply.startswith(b"220"):
                await client.secure(trusting())
                assert (await client.say("EHLO x.example")).startswith(b"250")
                assert (await client.say("DATA")).startswith(b"503")
            else:
                assert reply[:1] in (b"5", b"4"), reply


@pytest.mark.parametrize(
    "words", ["\0alma\0", "\0alma\0alma", "alma\0alma\0", "\0\0", "\0" + "a" * 500 + "\0b", "alma"]
)
async def test_a_wrong_password_opens_nothing(playground: Playground, words: str) -> None:
    async with RawSmtp(playground.ports.submission, source=OUTSIDE) as client:
        await client.say("EHLO x.example")
        await client.start_tls(trusting())
        await client.say("EHLO x.example")
        reply = await client.say("AUTH PLAIN " + base64.b64encode(words.encode()).decode())
        assert reply[:1] == b"5", reply
        assert (await client.say("MAIL FROM:<circ@lib.example>"))[:3] in (b"530", b"550")
        await assert_refused(client, PATRON)


async def test_a_submission_port_knows_nobody_by_address(playground: Playground) -> None:
    async with RawSmtp(playground.ports.submission) as client:
        await client.say("EHLO x.example")
        assert (await client.say("MAIL FROM:<circ@lib.example>"))[:3] in (b"530", b"550")
        await client.start_tls(trusting())
        await client.say("EHLO x.example")
        assert (await client.say("MAIL FROM:<circ@lib.example>"))[:3] in (b"530", b"550")
        await assert_refused(client, PATRON)


async def test_a_proxy_header_of_whoever_is_no_header(playground: Playground) -> None:
    async with RawSmtp(playground.ports.smtp, source=OUTSIDE, first=V2) as client:
        client.send(b"\r\nEHLO x.example\r\nMAIL FROM:<circ@lib.example>\r\nRCPT TO:<reader@patron.example>\r\nQUIT")
        replies = (client.greeting + await client.rest()).splitlines()
        assert any(reply[:1] in (b"4", b"5") for reply in replies), replies
        assert not [reply for reply in replies if reply.startswith(b"250 2.1.5")], replies


async def test_vrfy_tells_nobody_who_is_there(playground: Playground) -> None:
    async with RawSmtp(playground.ports.smtp, source=OUTSIDE) as client:
        await client.say("EHLO x.example")
        answers = {
            await client.say(f"VRFY {name}") for name in ("laser@print.lib.example", "nobody@lib.example", "alma")
        }
        assert len(answers) == 1
        assert next(iter(answers)).startswith((b"252", b"502"))


# --- from an allowed source, outside its domains

BEYOND = [
    to("not among its recipients", PATRON),
    to("the domain above", "<circ@lib.example>"),
    to("a domain below", "<circ@x.staff.lib.example>"),
    to("a domain that ends so", "<circ@xstaff.lib.example>"),
    to("a domain that begins so", "<circ@staff.lib.example.evil.example>"),
    to("another institution's printer", "<law@print.law.example>"),
    to("percent hack", "<reader%patron.example@staff.lib.example>"),
    to("quoted percent", '<"reader%patron.example"@staff.lib.example>'),
    to("quoted @", '<"reader@patron.example"@staff.lib.example>'),
    to("bang path", "<patron.example!reader@staff.lib.example>"),
    to("source route", "<@staff.lib.example:reader@patron.example>"),
    to("two domains", "<reader@patron.example@staff.lib.example>"),
    to("a look-alike", "<circ@staff.lіb.example>"),
    to("a full-width percent at a look-alike", "<reader％patron.example@stаff.lib.example>"),
]


@pytest.mark.parametrize("trick", BEYOND, ids=str)
async def test_a_recipient_beyond_a_source(playground: Playground, trick: Trick) -> None:
    async with RawSmtp(playground.ports.smtp, source=BRANCH) as client:
        await client.say(trick.ehlo)
        utf8 = "" if trick.rcpt.isascii() else " SMTPUTF8"
        assert (await client.say(f"MAIL FROM:<circ@lib.example>{utf8}")).startswith(b"250")
        await assert_refused(client, trick.rcpt)


HEADERS = {
    "a stranger": "From: a@evil.example",
    "another institution": "From: circ@law.example",
    "a domain that ends so": "From: a@xlib.example",
    "a domain that begins so": "From: a@lib.example.evil.example",
    "the domain above": "From: a@example",
    "ours as a name": 'From: "circ@lib.example" <a@evil.example>',
    "ours in a comment": "From: a@evil.example (circ@lib.example)",
    "ours in a comment before": "From: (circ@lib.example) a@evil.example",
    "ours behind": "From: <a@evil.example> circ@lib.example",
    "ours before": "From: circ@lib.example <a@evil.example>",
    "ours in brackets twice": "From: <circ@lib.example> <a@evil.example>",
    "two mailboxes": "From: circ@lib.example, a@evil.example",
    "two mailboxes, the stranger first": "From: a@evil.example, circ@lib.example",
    "a group": "From: library: circ@lib.example, a@evil.example;",
    "an empty group": "From: library:;",
    "a route": "From: <@lib.example:a@evil.example>",
    "two fields": "From: circ@lib.example\r\nFrom: a@evil.example",
    "two fields, the stranger first": "From: a@evil.example\r\nFrom: circ@lib.example",
    "two fields by case": "from: circ@lib.example\r\nFROM: a@evil.example",
    "a space before the colon": "From : a@evil.example\r\nFrom: circ@lib.example",
    "a fold": "From:\r\n a@evil.example",
    "a fold in the middle": "From: circ@lib.example,\r\n\ta@evil.example",
    "no field": "Subject: x",
    "only Sender": "Sender: circ@lib.example",
    "Sender of ours": "From: a@evil.example\r\nSender: circ@lib.example",
    "Resent-From of ours": "Resent-From: circ@lib.example\r\nFrom: a@evil.example",
    "Reply-To of ours": "From: a@evil.example\r\nReply-To: circ@lib.example",
    "an encoded word": "From: =?utf-8?q?circ=40lib=2Eexample?= <a@evil.example>",
    "an encoded address": "From: =?utf-8?q?circ=40lib=2Eexample?=",
    "an address literal": "From: circ@[127.0.0.1]",
    "a look-alike": "From: circ@lіb.example",
    "a line that is no field": "From: circ@lib.example\r\nnothing\r\nFrom: a@evil.example",
    "a bare CR": "From: circ@lib.example\rFrom: a@evil.example",
    "a bare LF": "From: circ@lib.example\nFrom: a@evil.example",
    "NUL": "From: a@evil.example\0@lib.example",
    "an empty field": "From:",
    "two ats": "From: circ@lib.example@evil.example",
    "a trailing dot of a stranger": "From: a@evil.example.",
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_from_field_beyond_a_source(playground: Playground, name: str) -> None:
    for source in (BRANCH, "127.0.0.1"):
        async with RawSmtp(playground.ports.smtp, source=source) as client:
            await client.say("EHLO x.example")
            await client.say("MAIL FROM:<circ@lib.example> BODY=8BITMIME")
            assert (await client.say("RCPT TO:<laser@print.lib.example>")).startswith(b"250")
            assert (await client.say("DATA")).startswith(b"354")
            reply = await client.say(f"{HEADERS[name]}\r\n\r\nhello\r\n.")
            assert reply[:3] in (b"550", b"554", b"500", b"501", b"521", b"552"), reply


async def test_returned_mail_of_a_stranger_goes_to_no_stranger(playground: Playground) -> None:
    async with RawSmtp(playground.ports.smtp) as client:
        await client.say("EHLO x.example")
        await client.say("MAIL FROM:<>")
        assert (await client.say(f"RCPT TO:{PATRON}")).startswith(b"250")
        assert (await client.say("DATA")).startswith(b"354")
        assert (await client.say("From: MAILER-DAEMON@evil.example\r\n\r\nhello\r\n.")).startswith(b"550")


async def test_nothing_of_all_that_passed(playground: Playground) -> None:
    assert list_deliveries(Place.file(playground.institution.spool), limit=10) == []
    assert playground.next_hop.connections == 0
    assert all(not printer.papers() for printer in playground.printers.values())
    log = playground.appliance.log.read_text(encoding="utf-8")
    assert "event=accepted" not in log
    assert "event=fault" not in log

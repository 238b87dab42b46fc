"""The next hop stores exactly what it took, and refuses exactly what it was told to."""

import asyncio
import json
import smtplib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.harness.institution import Institution, Ports
from tests.harness.next_hop import NextHop
from tests.harness.next_hop_session import Stage
from tests.harness.waiting import LOCALHOST, free_ports, until

T = TypeVar("T")

AWKWARD = (
    b"Subject: awkward\r\n\r\n"
    + b"..two dots\r\n.\tdot\r\n"
    + b"x" * 70_000
    + b"\r\n\xff\xfe8bit, a bare\nLF and a bare\rCR\r\n\r\n\r\n"
)


async def _talk(hop: NextHop, dialogue: Callable[[smtplib.SMTP], T]) -> T:
    """Run a dialogue with the next hop in a thread."""

    def run() -> T:
        with smtplib.SMTP(LOCALHOST, hop.port, timeout=5) as client:
            client.ehlo("client.example")
            return dialogue(client)

    return await asyncio.to_thread(run)


def _send(client: smtplib.SMTP, message: bytes = b"Subject: x\r\n\r\nx\r\n", sender: str = "a@b.example") -> int:
    client.mail(sender)
    client.rcpt("c@d.example")
    return client.data(message)[0]


@pytest.mark.asyncio
async def test_bytes_and_envelope_are_stored(tmp_path: Path) -> None:
    async with NextHop(free_ports(1), tmp_path) as hop:
        await _talk(hop, lambda client: [_send(client, AWKWARD), _send(client, sender="<>")])
        assert (tmp_path / "1.eml").read_bytes() == AWKWARD
        first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
        assert first == {"mail_from": "a@b.example", "rcpt_to": ["c@d.example"], "tls": False,
                         "helo": "client.example", "user": None, "connection": 1}  # fmt: skip
        assert second["mail_from"] == ""
        assert hop.connections == 1
        assert [taken.number for taken in await hop.wait_for(2)] == [1, 2]


@pytest.mark.asyncio
async def test_recipients_are_answered_by_name(tmp_path: Path) -> None:
    def dialogue(client: smtplib.SMTP) -> list[int]:
        client.mail("a@b.example")
        return [client.rcpt(f"{who}@d.example")[0] for who in ("tempfail-x", "permfail1", "fine")]

    async with NextHop(free_ports(1), tmp_path) as hop:
        assert await _talk(hop, dialogue) == [450, 550, 250]


@pytest.mark.asyncio
async def test_a_recipient_that_hangs_is_never_answered(tmp_path: Path) -> None:
    async with NextHop(free_ports(1), tmp_path) as hop:
        reader, writer = await asyncio.open_connection(LOCALHOST, hop.port)
        writer.write(b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<hang1@d.example>\r\n")
        while not (await reader.readline()).startswith(b"250 OK"):
            pass
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.3)
        assert hop.open_connections == 1
        hop.drop_connections()
        await until(lambda: hop.open_connections == 0, "the connection to be cut")
        writer.close()


@pytest.mark.asyncio
async def test_refusals_strike_once_and_where_they_should(tmp_path: Path) -> None:
    async with NextHop(free_ports(1), tmp_path) as hop:
        hop.refuse_next(451)
        hop.refuse_next(452, at="mail", text="4.3.1 no room")
        assert await _talk(hop, lambda client: [client.mail("a@b.example"), _send(client), _send(client)]) == [
            (452, b"4.3.1 no room"), 451, 250]  # fmt: skip
        hop.refuse_next(421)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            await _talk(hop, lambda client: [_send(client), client.noop()])
        hop.refuse_next(554, at="connect")
        with pytest.raises(smtplib.SMTPConnectError):
            await _talk(hop, _send)
        stages: tuple[Stage, ...] = ("body", "rcpt", "connect")
        for stage in stages:
            hop.drop_next(at=stage)
            with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
                await _talk(hop, _send)
        assert await _talk(hop, _send) == 250
        assert len(hop.taken) == 2


@pytest.mark.asyncio
async def test_tls_and_auth(tmp_path: Path) -> None:
    library = Institution(tmp_path / "library", Ports(20000))
    context = ssl.create_default_context(cafile=str(library.certificate))

    def dialogue(client: smtplib.SMTP) -> int:
        assert not client.has_extn("auth")
        client.starttls(context=context)
        client.ehlo()
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("campus", "wrong")
        client.login("campus", "right")
        return _send(client)

    async with NextHop(
        free_ports(1),
        tmp_path,
        certificate=(library.certificate, library.certificate_key),
        user="campus",
        password="right",
    ) as hop:
        assert await _talk(hop, dialogue) == 250
        assert (hop.taken[0].tls, hop.taken[0].user, hop.connections) == (True, "campus", 1)
        hop.refuse_next(454, at="starttls")
        with pytest.raises(smtplib.SMTPResponseException, match="454"):
            await _talk(hop, lambda client: client.starttls())


@pytest.mark.asyncio
async def test_auth_is_not_offered_without_a_user(tmp_path: Path) -> None:
    library = Institution(tmp_path / "library", Ports(20000))

    def dialogue(client: smtplib.SMTP) -> bool:
        client.starttls()
        client.ehlo()
        return client.has_extn("auth")

    async with NextHop(free_ports(1), tmp_path, certificate=(library.certificate, library.certificate_key)) as hop:
        assert not await _talk(hop, dialogue)


@pytest.mark.asyncio
async def test_parameters_of_dsn_are_taken_where_it_is_offered(tmp_path: Path) -> None:
    def dialogue(client: smtplib.SMTP) -> tuple[bool, int]:
        client.mail("a@b.example", ["RET=HDRS", "ENVID=QQ+2B1"])
        code = client.rcpt("c@d.example", ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;C@d.example"])[0]
        return client.has_extn("dsn"), (client.data(b"x\r\n")[0] if code == 250 else code)

    async with NextHop(free_ports(1), tmp_path / "with", dsn=True) as hop:
        assert await _talk(hop, dialogue) == (True, 250)
        assert hop.taken[0].mail_parameters.endswith("RET=HDRS ENVID=QQ+2B1")
        assert hop.taken[0].rcpt_parameters == ("NOTIFY=SUCCESS,DELAY ORCPT=rfc822;C@d.example",)
    async with NextHop(free_ports(1), tmp_path / "without") as hop:
        assert await _talk(hop, lambda client: client.mail("a@b.example", ["RET=HDRS"])[0]) == 555
        assert await _talk(hop, lambda client: client.has_extn("dsn")) is False

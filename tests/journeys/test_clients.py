"""Clients of the real world hand letters in: what leaves is signed, and is what they were given."""

from __future__ import annotations

import asyncio
import re
import smtplib
import ssl
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import samples
from tests.harness.institution import USER
from tests.harness.postfix import NO_POSTFIX, Postfix, can_run_postfix
from tests.harness.process import SYSTEM_PATH, find_program
from tests.harness.waiting import LOCALHOST, free_ports, until
from tests.journeys.story import Story, body

pytestmark = pytest.mark.asyncio(loop_scope="session")

SENDER = "circ@lib.example"


async def run(*command: str, stdin: bytes = b"") -> str:
    """Runs a client; gives what it said. It has to succeed."""
    process = await asyncio.create_subprocess_exec(
        find_program(command[0]),
        *command[1:],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": SYSTEM_PATH, "HOME": "/nonexistent"},
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode == 0, output.decode(errors="replace")
    return output.decode(errors="replace")


async def arrives(story: Story, recipient: str, letter: bytes) -> bytes:
    """Waits until the next hop has the letter, once, signed, with the body it was given; gives its content."""
    await until(lambda: story.taken_for(recipient), f"the letter to {recipient}")
    (taken,) = story.taken_for(recipient)
    assert await story.verdict(taken)
    assert body(taken.content).rstrip(b"\r\n") == body(letter).rstrip(b"\r\n")
    return taken.content


@pytest.fixture
def letter(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, bytes, Path]:
    """A recipient of its own, a letter with lines that begin with dots, and the file it is in."""
    recipient = f"{request.node.originalname}@patron.example".replace("_", "-").removeprefix("test-")
    content = samples.patron_letter(recipient=recipient, sender=SENDER).replace(b"</body>", b".\r\n..\r\n</body>")
    path = tmp_path / "letter.eml"
    path.write_bytes(content)
    return recipient, content, path


async def test_swaks_with_tls_and_auth(story: Story, letter: tuple[str, bytes, Path]) -> None:
    recipient, content, path = letter
    ports, password = story.playground.ports, story.playground.institution.password
    said = await run(
        *("swaks", "--server", LOCALHOST, "--port", str(ports.submission), "--helo", "client.example", "--tls"),
        *("--auth", "LOGIN", "--auth-user", USER, "--auth-password", password),
        *("--from", SENDER, "--to", recipient, "--data", f"@{path}"),
    )
    assert "~> AUTH LOGIN" in said
    assert b"with ESMTPSA id " in await arrives(story, recipient, content)


async def test_swaks_pipelining(story: Story, letter: tuple[str, bytes, Path]) -> None:
    recipient, content, path = letter
    said = await run(
        *("swaks", "--server", LOCALHOST, "--port", str(story.appliance.port), "--helo", "client.example"),
        *("--pipeline", "--from", SENDER, "--to", recipient, "--data", f"@{path}"),
    )
    assert re.search(r"-> RCPT TO.*\n -> DATA\n<-  250 2.1.0", said), "all at once"
    await arrives(story, recipient, content)


async def test_msmtp(story: Story, letter: tuple[str, bytes, Path], tmp_path: Path) -> None:
    recipient, content, _ = letter
    institution = story.playground.institution
    (tmp_path / "password").write_text(institution.password)
    await run(
        *("msmtp", "--host", LOCALHOST, "--port", str(story.playground.ports.submission), "--from", SENDER),
        *("--tls=on", "--tls-starttls=on", f"--tls-trust-file={institution.certificate}", "--auth=plain"),
        *(f"--user={USER}", f"--passwordeval=cat {tmp_path / 'password'}", "--domain=client.example", recipient),
        stdin=content,
    )
    assert b"with ESMTPSA id " in await arrives(story, recipient, content)


async def test_curl(story: Story, letter: tuple[str, bytes, Path]) -> None:
    recipient, content, path = letter
    institution = story.playground.institution
    await run(
        *("curl", "--silent", "--show-error", "--url", f"smtp://{LOCALHOST}:{story.playground.ports.submission}"),
        *("--ssl-reqd", "--cacert", str(institution.certificate), "--user", f"{USER}:{institution.password}"),
        *("--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", str(path)),
    )
    assert b"with ESMTPSA id " in await arrives(story, recipient, content)


async def test_smtplib(story: Story, letter: tuple[str, bytes, Path]) -> None:
    recipient, content, _ = letter
    institution = story.playground.institution
    context = ssl.create_default_context(cafile=str(institution.certificate))

    def send() -> None:
        with smtplib.SMTP(LOCALHOST, story.playground.ports.submission, local_hostname="client.example") as client:
            client.starttls(context=context)
            client.login(USER, institution.password)
            client.sendmail(SENDER, [recipient], content, mail_options=["BODY=8BITMIME"], rcpt_options=["NOTIFY=NEVER"])
            assert client.noop()[0] == 250
            assert client.vrfy(recipient)[0] == 252
            assert client.expn("staff")[0] == 502
            assert client.rset()[0] == 250

    await asyncio.to_thread(send)
    await arrives(story, recipient, content)


async def test_smtplib_with_an_internationalised_address(story: Story) -> None:
    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = SENDER, "größe@patron.example", "Ausleihe"
    letter.set_content("Größe\n")

    def send() -> None:
        with smtplib.SMTP(LOCALHOST, story.appliance.port, local_hostname="client.example") as client:
            client.send_message(letter)

    await asyncio.to_thread(send)
    await until(lambda: story.taken_for("größe@patron.example"), "the letter")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postfix(shared: object) -> AsyncIterator[Postfix]:
    """A Postfix that hands everything on to the appliance."""
    if not can_run_postfix():
        pytest.skip(NO_POSTFIX)
    story = Story(shared)  # type: ignore[arg-type]
    settings = {
        "myhostname": "gateway.example",
        "mynetworks": f"{LOCALHOST}/32",
        "relayhost": f"[{LOCALHOST}]:{story.appliance.port}",
        "smtp_tls_security_level": "encrypt",
        "smtp_tls_loglevel": 1,
    }
    server = Postfix([free_ports(1)], settings)
    await server.start()
    yield server
    await server.stop()


async def test_postfix_as_a_gateway(story: Story, postfix: Postfix, letter: tuple[str, bytes, Path]) -> None:
    recipient, content, _ = letter

    def send() -> None:
        with smtplib.SMTP(LOCALHOST, postfix.ports[0], local_hostname="client.example") as client:
            client.sendmail(SENDER, [recipient], content)

    await asyncio.to_thread(send)
    assert b"with ESMTPS id " in await arrives(story, recipient, content)
    await until(lambda: "250 2.0.0 queued as " in postfix.log, lambda: postfix.log)


async def test_postfix_hands_on_many_at_once(story: Story, postfix: Postfix) -> None:
    recipients = [f"many{number}@patron.example" for number in range(40)]

    def send(recipient: str) -> None:
        with smtplib.SMTP(LOCALHOST, postfix.ports[0], local_hostname="client.example") as client:
            client.sendmail(SENDER, [recipient], samples.patron_letter(recipient=recipient, sender=SENDER))

    await asyncio.gather(*(asyncio.to_thread(send, recipient) for recipient in recipients))
    await until(
        lambda: all(len(story.taken_for(recipient)) == 1 for recipient in recipients), lambda: postfix.log[-3000:]
    )

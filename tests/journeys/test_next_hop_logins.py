"""Who we are at a next hop: PLAIN, LOGIN and CRAM-MD5 at a Postfix with Cyrus SASL, XOAUTH2, client certificates."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import pytest_asyncio

from relay.spool.records import State
from relay.transports.opening import ENDED
from tests.harness.certificates import Made, make
from tests.harness.faulty_hop import FaultyHop
from tests.harness.next_hop import NextHop
from tests.harness.postfix import NO_POSTFIX, Postfix, can_run_postfix
from tests.harness.process import SYSTEM_PATH, find_program
from tests.harness.waiting import LOCALHOST, free_ports, until
from tests.harness.way_out import letters_by, send

pytestmark = pytest.mark.asyncio(loop_scope="session")

USER, PASSWORD, REALM = "campus", "right-and-secret", "postfix.example"
MAILBOX = "library@lib.example"


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the hosts show, and what is shown to them; each authority has signed one of them."""

    authority: Made
    host: Made
    client: Made
    stranger: Made

    @property
    def tls(self) -> dict[str, Any]:
        """The settings for verified TLS."""
        return {"tls": "required", "ca_file": str(self.authority.certificate)}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = make(folder, "authority", is_authority=True)
    return Certificates(
        authority,
        make(folder, "localhost", signed_by=authority),
        make(folder, "relay.lib.example", signed_by=authority),
        make(folder, "stranger.example"),
    )


@dataclass(frozen=True, slots=True)
class Host:
    """The Postfix: two ports that want a login, the second without CRAM-MD5, and two that want a certificate, the
    second one by TLS first.
    """

    server: Postfix
    login: int
    no_cram: int
    certificate: int
    certificate_first: int

    def count(self, pattern: str) -> int:
        """Lines of its log."""
        return len(re.findall(pattern, self.server.log))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postfix(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """It throws away what it takes."""
    if not can_run_postfix() or shutil.which("saslpasswd2", path=SYSTEM_PATH) is None:
        pytest.skip(NO_POSTFIX)
    first = free_ports(4)
    tls = certificates.host
    settings = {
        "myhostname": REALM,
        "mynetworks": "",
        "default_transport": "discard:",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": f"{tls.key} {tls.certificate}",
        "smtpd_tls_CAfile": certificates.authority.certificate,
        "smtpd_tls_loglevel": 1,
        "smtpd_sasl_local_domain": REALM,
        "smtpd_tls_auth_only": "yes",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, permit_tls_all_clientcerts, reject",
        "smtpd_client_connection_count_limit": 0,
        "smtpd_error_sleep_time": 0,
    }
    sasl = "smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_path"
    wants = "smtpd -o smtpd_tls_security_level=encrypt -o smtpd_tls_req_ccert=yes"
    listeners = (
        f"{LOCALHOST}:{first} inet n - n - - {sasl}=all\n"
        f"{LOCALHOST}:{first + 1} inet n - n - - {sasl}=plain\n"
        f"{LOCALHOST}:{first + 2} inet n - n - - {wants}\n"
        f"{LOCALHOST}:{first + 3} inet n - n - - {wants} -o smtpd_tls_wrappermode=yes\n"
    )
    server = Postfix(range(first, first + 4), settings, listeners)
    await asyncio.to_thread(_make_login, server.configuration / "sasl")
    await server.start()
    yield Host(server, first, first + 1, first + 2, first + 3)
    await server.stop()


def _make_login(folder: Path) -> None:
    """Writes what Postfix asks (Debian's looks in the folder of its main.cf), readable by its own user."""
    folder.mkdir()
    passwords = folder / "passwords"
    call = [find_program("saslpasswd2"), "-p", "-c", "-f", str(passwords), "-u", REALM, USER]
    subprocess.run(call, input=PASSWORD.encode(), check=True)
    passwords.chmod(0o644)
    for name, mechanisms in (("all", "CRAM-MD5 PLAIN LOGIN"), ("plain", "PLAIN LOGIN")):
        (folder / f"{name}.conf").write_text(
            f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {passwords}\nmech_list: {mechanisms}\n"
        )


def said(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def password(tmp_path: Path) -> Path:
    return said(tmp_path / "password", PASSWORD + "\n")


@pytest.mark.parametrize(
    ("auth", "mechanism"),
    [({}, "CRAM-MD5"), ({"auth": "plain"}, "PLAIN"), ({"auth": "login"}, "LOGIN")],
    ids=["the strongest", "plain", "login"],
)
async def test_postfix_lets_us_in(
    postfix: Host, certificates: Certificates, password: Path, auth: dict[str, str], mechanism: str
) -> None:
    login = {"username": USER, "password": {"file": str(password)}, **auth}
    outcome = await send(postfix.login, **certificates.tls, **login)
    assert outcome.state is State.DELIVERED, outcome.reason
    line = rf"client=\S+, sasl_method={mechanism}, sasl_username={USER}@{REALM}"
    await until(lambda: postfix.count(line), lambda: f"the login; the log ends:\n{postfix.server.log[-2000:]}")


@pytest.mark.parametrize("auth", [{}, {"auth": "plain"}, {"auth": "login"}], ids=["what is offered", "plain", "login"])
async def test_a_refused_login_puts_mail_off_and_is_told_once(
    postfix: Host, certificates: Certificates, password: Path, auth: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "slip-relay")
    said(password, "wrong-and-secret")
    settings = {**certificates.tls, "username": USER, "password": {"file": str(password)}, **auth}
    async with letters_by("localhost", postfix.no_cram, **settings) as letters:
        for _ in range(2):
            outcome = await letters.send()
            assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
            assert outcome.reply is not None
            assert outcome.reply.code == 535
            assert outcome.reason.startswith("localhost[127.0.0.1] refused our login: 535 5.7.8 ")
            assert outcome.reason.endswith("; look at username and password of default")
        said(password, PASSWORD)
        assert (await letters.send()).state is State.DELIVERED
    refused, works = [line for line in caplog.text.splitlines() if "event=login" in line]
    assert 'next_hop=default host=localhost[127.0.0.1] what=refused why="535 5.7.8 ' in refused
    assert works.endswith("what=works")
    assert "secret" not in caplog.text


async def test_a_mechanism_that_is_not_offered_is_told(
    postfix: Host, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("ya29.token")
    settings = {"username": USER, "token": {"file": str(tmp_path / "token")}}
    outcome = await send(postfix.no_cram, **certificates.tls, **settings)
    assert outcome.state is State.DEFERRED
    assert re.fullmatch(
        r"there is no login at localhost\[127\.0\.0\.1\]: it offers (PLAIN LOGIN|LOGIN PLAIN), not XOAUTH2",
        outcome.reason,
    )


async def test_a_host_that_offers_auth_without_tls_hears_no_password(password: Path) -> None:
    host = FaultyHop(offers=(b"AUTH PLAIN LOGIN XOAUTH2",))
    async with host.listening() as port:
        outcome = await send(port, tls="required", username=USER, password={"file": str(password)})
    assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
    assert "STARTTLS" in outcome.reason
    assert [command[:4] for command in host.seen] == [b"EHLO"]


# --- client certificates


def shown(made: Made) -> dict[str, str]:
    return {"client_certificate": str(made.certificate), "client_key": str(made.key)}


async def test_a_client_certificate_lets_us_in(postfix: Host, certificates: Certificates) -> None:
    outcome = await send(postfix.certificate, **certificates.tls, **shown(certificates.client))
    assert outcome.state is State.DELIVERED, outcome.reason
    assert postfix.count("Trusted TLS connection established from localhost")


async def test_without_a_client_certificate_or_with_a_strange_one_mail_waits(
    postfix: Host, certificates: Certificates
) -> None:
    reasons = []
    for port, tls in ((postfix.certificate, "required"), (postfix.certificate_first, "implicit")):
        for settings in ({}, shown(certificates.stranger)):
            outcome = await send(port, **certificates.tls | {"tls": tls}, **settings)
            assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
            reasons.append(outcome.reason.removeprefix("localhost[127.0.0.1] "))
    ended = f"can't be reached: {ENDED}"
    refused = f"refused the session: 421 4.7.1 {REALM} Error: "
    missing, strange = f"{refused}No client certificate presented", f"{refused}Client certificate not trusted"
    assert reasons == [ended, ended, missing, strange]


async def test_a_host_that_breaks_off_for_want_of_a_client_certificate(certificates: Certificates) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.authority.certificate)
    context.load_cert_chain(certificates.host.certificate, certificates.host.key)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(lambda reader, writer: writer.close(), LOCALHOST, 0, ssl=context)
    async with server:
        outcome = await send(server.sockets[0].getsockname()[1], **certificates.tls | {"tls": "implicit"})
    assert outcome.reason == f"localhost[127.0.0.1] can't be reached: {ENDED}"


async def test_a_renewed_client_certificate_is_taken_and_a_broken_one_is_not(
    postfix: Host, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "slip-relay")
    ours = make(tmp_path, "relay.example")  # nobody has signed it
    settings = {**certificates.tls, **shown(ours), "idle_timeout": 0}
    async with letters_by("localhost", postfix.certificate, **settings) as letters:
        assert (await letters.send()).state is not State.DELIVERED
        make(tmp_path, "relay.example", signed_by=certificates.authority)
        assert (await letters.send()).state is State.DELIVERED
        ours.certificate.write_text("half a certif")
        for _ in range(2):
            assert (await letters.send()).state is State.DELIVERED
        ours.certificate.unlink()
        assert (await letters.send()).state is State.DELIVERED
    kept = [line for line in caplog.text.splitlines() if "event=next-hop-files-kept" in line]
    assert len(kept) == 2, "once for each change"
    assert "they are not PEM files of a certificate and its key" in kept[0]


async def test_a_client_certificate_that_can_t_be_used_from_the_start_puts_mail_off(
    certificates: Certificates, tmp_path: Path
) -> None:
    other = make(tmp_path, "other.example")
    settings = {"client_certificate": str(certificates.client.certificate), "client_key": str(other.key)}
    outcome = await send(free_ports(1), **certificates.tls, **settings)
    assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
    assert outcome.reason.endswith("can't be used: the key is that of another certificate")


# --- access tokens


@asynccontextmanager
async def cloud(certificates: Certificates, folder: Path, token: str) -> AsyncIterator[NextHop]:
    """A host that takes a token."""
    files = (certificates.host.certificate, certificates.host.key)
    async with NextHop(free_ports(1), folder / "cloud", certificate=files, user=MAILBOX, token=token) as hop:
        yield hop


class Program:
    """A program that prints tokens. It does what `does` says, a line of shell, and notes each time it was run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "get-token"
        self.runs = folder / "runs"
        self.runs.touch()
        self.says("")

    def says(self, text: str, *, does: str = "") -> None:
        """Prints this from now on."""
        (self.path.with_suffix(".out")).write_text(text)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(
            f'#!/bin/sh\necho run "$@" >> {self.runs}\necho $$ > {self.path}.pid\n{does}\ncat {self.path}.out\n'
        )
        fresh.chmod(0o755)
        os.replace(fresh, self.path)

    @property
    def left(self) -> list[str]:
        """What still runs of it, and of what it started."""
        group = self.path.with_suffix(".pid").read_text().strip()
        running = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, _, fields = stat.read_text().rpartition(") ")
                if fields.split()[2] == group and fields[0] != "Z":
                    running.append(name)
        return running

    @property
    def count(self) -> int:
        return len(self.runs.read_text().splitlines())

    def settings(self, certificates: Certificates, **more: Any) -> dict[str, Any]:
        token = {"command": [str(self.path), "for library; not a shell"], **more}
        return {**certificates.tls, "username": MAILBOX, "token": token, "idle_timeout": 0}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


async def test_a_token_from_a_file_is_read_for_each_login(certificates: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first.token\n")
    settings = {**certificates.tls, "username": MAILBOX, "token": {"file": str(file)}, "idle_timeout": 0}
    async with (
        cloud(certificates, tmp_path, "first.token") as hop,
        letters_by("localhost", hop.port, **settings) as out,
    ):
        assert (await out.send()).state is State.DELIVERED
        hop.token = "second.token"
        outcome = await out.send()
        assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
        assert outcome.reason.startswith("localhost[127.0.0.1] refused our login: 535 5.7.8 ")
        assert outcome.reason.endswith("; look at username and token of default")
        file.write_text(json.dumps({"access_token": "second.token", "expires_in": 3599, "token_type": "Bearer"}))
        assert (await out.send()).state is State.DELIVERED
        assert hop.logins == [("XOAUTH2", True), ("XOAUTH2", False), ("XOAUTH2", True)]
        assert {letter.user for letter in hop.taken} == {MAILBOX}
        file.unlink()
        outcome = await out.send()
        assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
        assert outcome.reason == f"the token can't be had: {file} can't be read: No such file or directory"


async def test_a_program_is_run_once_for_all_who_wait_and_again_when_its_token_ends(
    certificates: Certificates, program: Program, tmp_path: Path
) -> None:
    program.says(json.dumps({"access_token": "a.token", "expires_in": 3599}))
    async with cloud(certificates, tmp_path, "a.token") as hop:
        async with letters_by("localhost", hop.port, **program.settings(certificates)) as out:
            outcomes = await asyncio.gather(*(out.send() for _ in range(5)))
            assert {outcome.state for outcome in outcomes} == {State.DELIVERED}
            assert (hop.connections, program.count) == (5, 1)
            assert program.runs.read_text() == "run for library; not a shell\n"
        program.says("a.token\n")
        async with letters_by("localhost", hop.port, **program.settings(certificates, lifetime=0)) as out:
            for _ in range(2):
                assert (await out.send()).state is State.DELIVERED
        assert program.count == 3


async def test_a_token_is_had_from_an_authorisation_server_as_the_guide_says(
    certificates: Certificates, tmp_path: Path
) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", head)[0])))
        body = b'{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"a.token"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        writer.close()

    lines = [line.strip() for line in said_in_the_guide() if line.startswith("    data-urlencode = ")]
    server = await asyncio.start_server(answer, LOCALHOST, 0)
    async with server, cloud(certificates, tmp_path, "a.token") as hop:
        url = f"http://{LOCALHOST}:{server.sockets[0].getsockname()[1]}/TENANT/oauth2/v2.0/token"
        configuration = said(tmp_path / "m365.curl", "\n".join([f'url = "{url}"', *lines]))
        token = {"command": [curl, "-fsS", "--config", str(configuration)]}
        outcome = await send(hop.port, **certificates.tls, username=MAILBOX, token=token)
        assert outcome.state is State.DELIVERED, outcome.reason
    (form,) = asked
    assert set(parse_qs(form.decode())) == {"grant_type", "client_id", "client_secret", "scope"}


def said_in_the_guide() -> list[str]:
    return (Path(__file__).parents[2] / "docs" / "letters.md").read_text(encoding="utf-8").splitlines()


async def test_a_token_that_is_refused_is_had_anew_once(
    certificates: Certificates, program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    program.says("first.token")
    async with (
        cloud(certificates, tmp_path, "first.token") as hop,
        letters_by("localhost", hop.port, **program.settings(certificates)) as out,
    ):
        await out.send()
        hop.token = "second.token"
        program.says("second.token")
        assert (await out.send()).state is State.DELIVERED
        assert hop.logins == [("XOAUTH2", True), ("XOAUTH2", False), ("XOAUTH2", True)]
        assert "event=login" not in caplog.text, "nobody has to look at it"
        hop.token = "third.token"
        outcome = await out.send()
        assert outcome.state is State.DEFERRED
        assert "refused our login: 535 5.7.8 " in outcome.reason
        assert hop.logins[3:] == [("XOAUTH2", False), ("XOAUTH2", False)]
        assert program.count == 3
    assert caplog.text.count("event=login") == 1
    assert "second.token" not in caplog.text


@pytest.mark.parametrize(
    ("does", "prints", "reason"),
    [
        ("exit 3", "secret.token", "{program} ended with exit code 3; run it as the service does"),
        ("kill -9 $$", "secret.token", "{program} was ended by signal 9; run it as the service does"),
        ("sleep 60 & wait", "secret.token", "{program} took more than 0.3 s"),
        ("sleep 60 &", "secret.token", "{program} took more than 0.3 s"),
        ("echo secret.token >&2", "", "what {program} printed is no access token"),
        ("", "this is secret.token, is it not?", "what {program} printed is no access token"),
        ("", '{"error": "invalid_client secret.token"}', "what {program} printed is no access token"),
        ("", '{"access_token": "secret.tok', "what {program} printed is no access token"),
        ("", '{"access_token": ["secret.token"]}', "what {program} printed is no access token"),
        ("exec yes secret.token", "", "its program does not stop printing"),
    ],
    ids=["fails", "is killed", "hangs", "leaves a child", "nothing", "prose", "error", "half", "list", "endless"],
)
async def test_a_program_that_has_no_token_puts_mail_off(
    certificates: Certificates, program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    does: str, prints: str, reason: str,
) -> None:  # fmt: skip
    caplog.set_level("DEBUG")
    program.says(prints, does=does)
    timeout = 0.3 if "0.3" in reason else 20
    async with cloud(certificates, tmp_path, "secret.token") as hop:
        outcome = await send(hop.port, **program.settings(certificates, timeout=timeout))
        assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
        assert outcome.reason == f"the token can't be had: {reason.format(program=program.path)}"
        assert hop.connections == 0, "no host waits for it"
    await until(lambda: not program.left, lambda: f"the end of {program.left}")
    assert "secret" not in caplog.text + outcome.reason


async def test_a_program_that_fails_fails_once_for_all_who_wait(
    certificates: Certificates, program: Program, tmp_path: Path
) -> None:
    program.says("", does="exec sleep 60")
    async with (
        cloud(certificates, tmp_path, "a.token") as hop,
        letters_by("localhost", hop.port, **program.settings(certificates, timeout=0.5)) as out,
    ):
        outcomes = await asyncio.gather(*(out.send() for _ in range(5)))
        assert {outcome.reason.rpartition(" took ")[2] for outcome in outcomes} == {"more than 0.5 s"}
        assert program.count == 1
        program.says("a.token")
        assert (await out.send()).state is State.DELIVERED


async def test_a_program_that_is_gone_puts_mail_off(
    certificates: Certificates, program: Program, tmp_path: Path
) -> None:
    async with (
        cloud(certificates, tmp_path, "a.token") as hop,
        letters_by("localhost", hop.port, **program.settings(certificates)) as out,
    ):
        program.path.unlink()
        outcome = await out.send()
        reason = f"the token can't be had: {program.path} can't be run: No such file or directory"
        assert (outcome.state, outcome.reason) == (State.DEFERRED, reason)
        program.says("a.token")
        assert (await out.send()).state is State.DELIVERED

"""Scripted dialogues (tests/dialogs): the appliance says what it should, and Postfix the same where that is general."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness import toml
from tests.harness.appliance import Appliance
from tests.harness.institution import HOSTNAME, USER, Institution, Ports
from tests.harness.postfix import NO_POSTFIX, Postfix, can_run_postfix
from tests.harness.smtp_script import Client, read
from tests.harness.waiting import LOCALHOST, free_ports

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCRIPTS = [read(path) for path in sorted((Path(__file__).parents[1] / "dialogs").glob("*.smtp"))]
ON_POSTFIX = [script for script in SCRIPTS if script.runs_on_postfix]

ORDINARY: dict[str, Any] = {"max_message_size": "1MB"}
TIGHT = {
    "max_message_size": "1MB",
    "max_recipients": 100,
    "max_messages": 2,
    "max_commands": 60,
    "max_errors": 3,
    "idle_timeout": "1s",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clients(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Client]]:
    """Who talks to the appliance, by what a script is played at; without printers and without a next hop."""
    folder = tmp_path_factory.mktemp("dialogs")
    found: dict[str, Client] = {}
    running = []
    for name, intake in (("relay", ORDINARY), ("tight", TIGHT)):
        ports = Ports(free_ports(Ports.COUNT))
        institution = Institution(folder / name, ports)
        tables = {**institution.tables(), "printers": [], "intake": intake}
        institution.config.write_text(toml.dumps(tables), encoding="utf-8")
        appliance = Appliance(institution.config, ports.smtp, folder / name)
        running.append(appliance)
        await appliance.start()
        found[name] = Client(ports.smtp, is_ours=True)
        if name == "relay":
            words = _credentials(institution.password)
            found["submission"] = Client(ports.submission, is_ours=True, words=words)
    yield found
    for appliance in running:
        await appliance.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postfix(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Client]]:
    """Who talks to Postfix; it throws away what it takes."""
    if not can_run_postfix():
        pytest.skip(NO_POSTFIX)
    folder = tmp_path_factory.mktemp("postfix")
    institution = Institution(folder / "keys", Ports(0))
    first = free_ports(2)
    settings = {
        "myhostname": HOSTNAME,
        "mynetworks": f"{LOCALHOST}/32",
        "default_transport": "discard:",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": institution.certificate,
        "smtpd_tls_key_file": institution.certificate_key,
        "message_size_limit": 1000000,
        "disable_vrfy_command": "yes",
        "strict_rfc821_envelopes": "yes",
        "smtpd_helo_required": "yes",
        "smtpd_forbid_unauth_pipelining": "yes",
        "smtpd_relay_restrictions": "permit_mynetworks, reject",
        "smtpd_recipient_restrictions": "reject_non_fqdn_recipient",
        "smtputf8_enable": "no",
        "smtpd_error_sleep_time": 0,
        "smtpd_client_connection_count_limit": 0,
    }
    listeners = (
        f"{LOCALHOST}:{first} inet n - n - - smtpd\n"
        f"{LOCALHOST}:{first + 1} inet n - n - - smtpd -o smtpd_recipient_limit=100\n"
    )
    server = Postfix([first, first + 1], settings, listeners)
    await server.start()
    yield {"relay": Client(first, is_ours=False), "tight": Client(first + 1, is_ours=False)}
    await server.stop()


def _credentials(password: str) -> Mapping[str, str]:
    return {
        "plain": base64.b64encode(f"\0{USER}\0{password}".encode()).decode(),
        "user": base64.b64encode(USER.encode()).decode(),
        "password": base64.b64encode(password.encode()).decode(),
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.path.stem)
async def test_the_appliance_keeps_to_the_script(clients: dict[str, Client], script: Any) -> None:
    await clients[script.at].play(script)


@pytest.mark.parametrize("script", ON_POSTFIX, ids=lambda script: script.path.stem)
async def test_postfix_says_what_the_script_says_of_it(postfix: dict[str, Client], script: Any) -> None:
    await postfix[script.at].play(script)


async def test_there_is_a_script_for_each_corner() -> None:
    corners = {script.about.split(":")[0].split(" ")[1] for script in SCRIPTS if script.about.startswith("RFC ")}
    assert corners >= {"5321", "1870", "2920", "3030", "3207", "4954", "6531", "9422"}
    assert len(SCRIPTS) >= 80
    assert len(ON_POSTFIX) >= 45

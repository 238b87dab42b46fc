"""Wrong input at the start: one clear message, an exit code, no trace."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.outgoing.keys import public_record
from relay.outgoing.private_key import read_private_key
from tests.harness import toml
from tests.harness.appliance import command
from tests.harness.institution import Institution, Ports
from tests.harness.waiting import free_ports


@pytest.fixture
def institution(tmp_path: Path) -> Institution:
    """The demo's keys and configuration, without the neighbours."""
    return Institution(tmp_path, Ports(free_ports(Ports.COUNT)))


def run(institution: Institution, tables: toml.Table, what: str = "serve") -> subprocess.CompletedProcess[str]:
    institution.config.write_text(toml.dumps(tables), encoding="utf-8")
    result = subprocess.run(
        [*command(), what, "-c", str(institution.config)], capture_output=True, text=True, timeout=30, check=False
    )
    assert "Traceback" not in result.stderr
    return result


def without_printers(institution: Institution) -> toml.Table:
    return {**institution.tables(), "printers": []}


def wrong_key(tables: dict[str, Any]) -> None:
    tables["intake"] = {"max_mesage_size": 1}


def wrong_key_file(tables: dict[str, Any]) -> None:
    tables["institutions"][0]["dkim"][0]["key_file"] = "keys/nowhere.pem"


def wrong_rule(tables: dict[str, Any]) -> None:
    tables["rules"] = [{"name": "annex", "recipient": "*@annex.example", "print": "annex"}]


@pytest.mark.parametrize("what", ["serve", "check"])
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (wrong_key, "relay.toml: intake.max_mesage_size: is unknown; is max_message_size meant?"),
        (wrong_key_file, "keys/nowhere.pem does not exist; `slip-relay dkim keygen` makes one"),
        (
            wrong_rule,
            "relay.toml: rules[1].print ('annex'): there is no printer 'annex' (there are: a5, laser, receipt)",
        ),
    ],
)
def test_a_mistake_in_the_configuration(institution: Institution, what: str, spoil: Any, complaint: str) -> None:
    tables = institution.tables()
    spoil(tables)
    result = run(institution, tables, what)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert result.stderr.splitlines()[-1] == "slip-relay: the configuration has 1 mistake"


def test_a_right_configuration_is_said_to_be_right(institution: Institution) -> None:
    result = run(institution, institution.tables(), "check")
    assert result.returncode == 0
    assert "no mistakes; 1 institutions, 1 sources, 3 printers, 1 next hops" in result.stdout


def test_check_finds_keys_and_certificates_that_don_t_work(institution: Institution) -> None:
    tables: dict[str, Any] = institution.tables()
    institution.dkim_key.chmod(0o600)
    institution.dkim_key.write_text("not a key")
    institution.certificate.write_text("not a certificate")
    tables["profiles"] = [
        {"name": "own", "paper": "A4", "template": "missing.html"},
        {"name": "codes", "paper": "A4", "big": {"select": "p["}},
    ]
    result = run(institution, tables, "check")
    assert result.returncode == 1
    assert (
        "profiles[1].template ('own'): the template missing.html can't be used: there is no missing.html"
        in result.stderr
    )
    assert "profiles[2].big.select ('codes'): the selector 'p[' can't be used" in result.stderr
    assert "institutions[1].dkim[1].key_file ('demo'): the DKIM key" in result.stderr
    assert "listeners[1].tls_certificate ('relay'): the listener relay can't use the certificate" in result.stderr
    served = run(institution, tables)
    assert served.returncode == 1
    assert served.stderr.startswith("slip-relay: the DKIM key ")


def test_no_configuration_at_all(tmp_path: Path) -> None:
    result = subprocess.run(
        [*command(), "serve", "-c", str(tmp_path / "none.toml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert f"{tmp_path}/none.toml: can't be read: No such file or directory" in result.stderr


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use(institution: Institution, taken_port: int) -> None:
    tables: dict[str, Any] = without_printers(institution)
    tables["listeners"][0]["port"] = taken_port
    result = run(institution, tables)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"slip-relay: the listener relay can't use 127.0.0.1 port {taken_port}: Address already in use"
    )


def test_without_printers_cups_is_not_asked_for(institution: Institution) -> None:
    institution.config.write_text(toml.dumps(without_printers(institution)), encoding="utf-8")

    async def serve() -> str:
        process = await asyncio.create_subprocess_exec(
            *command(), "serve", "-c", str(institution.config), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(20):
                while "event=started" not in (line := (await process.stderr.readline()).decode()):
                    assert line, "it ended without having started"
        finally:
            process.terminate()
            await process.wait()
        return line

    assert "event=started" in asyncio.run(serve())


@pytest.mark.parametrize("kind", ["absent", "unwritable"])
def test_a_spool_that_can_t_be_written(institution: Institution, kind: str) -> None:
    tables: dict[str, Any] = without_printers(institution)
    folder = "/proc" if kind == "unwritable" else str(institution.folder / "nowhere")
    tables["spool"]["url"] = f"sqlite:///{folder}/spool.db"
    result = run(institution, tables)
    assert result.returncode == 1
    assert result.stderr.startswith(f"slip-relay: the spool folder {folder} can't be used: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path, kind: str) -> None:
    key = tmp_path / "dkim.pem"
    call = [*command(), "dkim", "keygen", "--domain", "lib.example", "--selector", "alma2026", "-o", str(key)]
    call += ["--type", kind] if kind != "rsa" else []
    result = subprocess.run(call, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0
    assert result.stdout.startswith('alma2026._domainkey.lib.example. IN TXT ( "v=DKIM1; k=' + kind + "; p=")
    assert public_record(read_private_key(key)) == "".join(result.stdout.split('"')[1::2])
    assert os.stat(key).st_mode & 0o777 == 0o600
    again = subprocess.run(call, capture_output=True, text=True, timeout=30, check=False)
    assert again.returncode == 1
    assert "exists already; a key in use is not overwritten" in again.stderr

"""The service and its next hops: a list with dead and unwilling hosts; a login that is refused until it is mended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.spool.engine import Place
from relay.spool.queries import list_deliveries
from tests.harness.certificates import make
from tests.harness.faulty_hop import FaultyHop
from tests.harness.letters_only import LettersOnly, letter
from tests.harness.next_hop import NextHop
from tests.harness.waiting import LOCALHOST, free_ports, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAILBOX = "library@lib.example"
QUICK = {"first": "0.3s", "longest": "0.5s"}


def states(letters: LettersOnly) -> list[str]:
    return [line.state for line in list_deliveries(Place.file(letters.spool))]


async def test_letters_go_out_by_the_host_that_is_well(tmp_path: Path) -> None:
    unwilling = FaultyHop("connect", b"554 5.7.1 go away", times=1000)
    async with unwilling.listening() as second, NextHop(free_ports(1), tmp_path / "third") as third:
        hosts = [f"{LOCALHOST}:{port}" for port in (free_ports(1), second, third.port)]
        hop = {"name": "list", "hosts": hosts, "tls": "none", "backoff_longest": "1h", "retry": {"first": "1h"}}
        rule = {"name": "list", "recipient": "*@list.example", "next_hop": "list"}
        async with LettersOnly(tmp_path / "relay", extra={"next_hops": [hop], "rules": [rule]}) as letters:
            for number in range(20):
                recipient = f"{number}@list.example"
                code, text = await letters.submit(letter(str(number), recipient), recipient)
                assert code == 250, text
            await third.wait_for(20)
            await until(lambda: states(letters) == ["delivered"] * 20, lambda: f"20 delivered; {states(letters)}")
        assert 1000 - unwilling.times <= 10, "it is not asked by each letter"


async def test_a_refused_login_loses_nothing_and_is_told(tmp_path: Path) -> None:
    authority = make(tmp_path, "authority", is_authority=True)
    shown = make(tmp_path, "localhost", signed_by=authority)
    token = tmp_path / "token"
    token.write_text("old.token")
    hop = {
        "name": "cloud", "host": "localhost", "port": free_ports(1), "tls": "required", "retry": QUICK,
        "ca_file": str(authority.certificate), "username": MAILBOX, "token": {"command": ["/bin/cat", str(token)]},
        "backoff_longest": "0.3s",
    }  # fmt: skip
    rule = {"name": "cloud", "recipient": "*@cloud.example", "next_hop": "cloud"}
    files = (shown.certificate, shown.key)
    async with (
        NextHop(int(str(hop["port"])), tmp_path / "cloud", certificate=files, user=MAILBOX, token="a.token") as cloud,
        LettersOnly(tmp_path / "relay", extra={"next_hops": [hop], "rules": [rule]}) as letters,
    ):
        for number in range(3):
            recipient = f"{number}@cloud.example"
            code, text = await letters.submit(letter(str(number), recipient), recipient)
            assert code == 250, text
        await until(lambda: len(cloud.logins) >= 3, lambda: f"three logins; {cloud.logins}")
        _, listed = await letters.queue("list", "--state", "deferred", "--json")
        assert "refused our login: 535 5.7.8 " in listed
        assert "look at username and token of cloud" in listed
        await asyncio.to_thread(token.write_text, "a.token")
        await cloud.wait_for(3)
        await until(lambda: states(letters) == ["delivered"] * 3, lambda: f"3 delivered; {states(letters)}")
        log = await asyncio.to_thread(letters.appliance.log.read_text)
    logins = [line.partition("event=login ")[2] for line in log.splitlines() if "event=login " in line]
    assert [line.partition(" why=")[0] for line in logins] == [
        f"next_hop=cloud host=localhost[127.0.0.1] what={what}" for what in ("refused", "works")
    ]
    assert "a.token" not in log
    assert "old.token" not in log
    assert MAILBOX not in log

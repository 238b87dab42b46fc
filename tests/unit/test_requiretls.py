"""REQUIRETLS (RFC 8689) to smarthosts: over verified TLS to one that offers it, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.spool.records import State
from tests.harness import certificates
from tests.harness.next_hop import NextHop
from tests.harness.waiting import free_ports
from tests.harness.way_out import letters_by

pytestmark = pytest.mark.asyncio


async def test_a_smarthost_without_verified_tls_is_not_even_connected_to(tmp_path: Path) -> None:
    async with NextHop(free_ports(1), tmp_path, requiretls=True) as hop:
        async with letters_by("127.0.0.1", hop.port, tls="opportunistic") as letters:
            outcome = await letters.send(requiretls=True)
        assert (outcome.state, str(outcome.reply)[:10]) == (State.FAILED, "550 5.7.30")
        assert outcome.reason == (
            'the mail may go over verified TLS only, and the next hop default has not tls = "required"'
        )
        assert hop.connections == 0


@pytest.mark.parametrize("offers", [True, False])
async def test_a_smarthost_has_to_offer_it(tmp_path: Path, offers: bool) -> None:
    made = certificates.make(tmp_path, "localhost")
    files = (made.certificate, made.key)
    async with NextHop(free_ports(1), tmp_path / "hop", certificate=files, requiretls=offers) as hop:
        settings = {"tls": "required", "ca_file": str(made.certificate)}
        async with letters_by("localhost", hop.port, **settings) as letters:
            outcome = await letters.send(requiretls=True)
            other = await letters.send()
    assert other.state is State.DELIVERED
    if offers:
        assert outcome.state is State.DELIVERED
        assert ["REQUIRETLS" in taken.mail_parameters for taken in hop.taken] == [True, False]
    else:
        assert (outcome.state, str(outcome.reply)[:10]) == (State.FAILED, "550 5.7.30")
        assert len(hop.taken) == 1

"""What large letters cost while they come in and go out."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

import pytest

from relay.spool.engine import Place
from relay.spool.queries import list_deliveries
from tests.harness.letters_only import LettersOnly, body, letter
from tests.harness.waiting import until

pytestmark = pytest.mark.asyncio

MIB = 1024 * 1024
EXTRA = {"intake": {"max_message_size": "64MiB"}, "delivery": {"retry_first": "1s"}}


class Peak:
    """The most memory that a process has had since it was last asked to begin anew, in bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def begin(self) -> int:
        """Forgets what was before; gives what it has now."""
        (self._folder / "clear_refs").write_text("5")
        return self._value("VmRSS")

    def value(self) -> int:
        """The peak."""
        return self._value("VmHWM")

    def _value(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def submit(port: int, message: bytes, recipient: str) -> str:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="x.example", timeout=60) as client:
        client.ehlo()
        client.mail("alma@exlibrisgroup.example", [f"size={len(message)}"])
        client.rcpt(recipient)
        code, text = client.data(message)
        assert code == 250, text
        return text.decode().split()[-1]


async def test_a_letter_of_50_mb_costs_no_100_mb(tmp_path: Path) -> None:
    async with LettersOnly(tmp_path / "large", extra=EXTRA) as letters:
        hop = letters.next_hop
        await letters.submit(letter("warm", "warm@patron.example"), "warm@patron.example")
        await hop.wait_for(1)
        # Behind one that could not be sent a letter waits in the spool: so there is time to look.
        hop.refuse_next(421, at="connect", times=1000)
        hop.drop_connections()
        await letters.submit(letter("first", "first@patron.example"), "first@patron.example")
        await until(
            lambda: any("421" in line.reason for line in list_deliveries(Place.file(letters.spool), limit=10)),
            "the first one to be put off",
        )
        large = letter("large", "large@patron.example", 50_000_000)
        peak = Peak(letters.appliance.pid)
        before = peak.begin()
        await asyncio.to_thread(submit, letters.appliance.port, large, "large@patron.example")
        accepted = peak.value() - before
        before = peak.begin()
        hop.take_again()
        await hop.wait_for(3, seconds=60)
        sent = peak.value() - before
        taken = next(each for each in hop.taken if "large@patron.example" in each.rcpt_to)
        assert body(taken.content) == body(large)
    assert accepted < 24 * MIB, "until its 250"
    assert sent < 90 * MIB, "until it was sent: as a whole, once"

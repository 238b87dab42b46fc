"""What the e-mail administrator does beside the running service: keys changed, test letters sent, printers by mail."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypdf
import pytest
import pytest_asyncio
from click.testing import CliRunner

from relay.cli import command
from relay.dns.dkim_record import key_text
from relay.errors import RelayError
from relay.outgoing.key_folder import read_folder
from relay.outgoing.private_key import new_private_key, pem, read_private_key
from tests.harness import samples
from tests.harness.appliance import Refused
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story, body

pytestmark = pytest.mark.asyncio(loop_scope="session")

OWN = "branch-printer@eprint.example"


def extra(keys: Path) -> dict[str, Any]:
    return {
        "institutions": [
            {
                "name": "law",
                "domains": ["law.example"],
                "envelope_from": "alma-bounces@law.example",
                "language": "de",
                "next_hop": "default",
                "dkim": [{"domain": "law.example", "key_folder": str(keys)}],
            }
        ],
        "sources": [{"name": "law", "institutions": ["law"], "networks": ["127.0.0.1/32"], "recipients": []}],
        "printers": [
            {
                "name": "branch",
                "institution": "demo",
                "mailboxes": ["branch@print.lib.example"],
                "forward_to": [OWN],
                "notify": "circulation@lib.example",
            },
            {
                "name": "hall",
                "institution": "demo",
                "mailboxes": ["hall@print.lib.example"],
                "queue": "laser",
                "profile": "a4",
                "forward_to": ["hall-printer@eprint.example"],
                "notify": "circulation@lib.example",
            },
        ],
        "rules": [
            {"name": "hold-it", "recipient": "held@*", "hold": "a person decides"},
            {"name": "drop-it", "recipient": "dropped@*", "discard": True},
        ],
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def office(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    keys = tmp_path_factory.mktemp("keys")
    (keys / "old.pem").write_bytes(pem(new_private_key("rsa")))
    folder = tmp_path_factory.mktemp("office") / "all"
    async with Playground(folder, extra=extra(keys)) as playground:
        playground.dns.add("old._domainkey.law.example", "TXT", record(keys / "old.pem"))
        yield Story(playground)


@pytest.fixture
def keys(office: Story) -> Path:
    return Path(
        office.playground.institution.config.read_text(encoding="utf-8").split('key_folder = "')[1].split('"')[0]
    )


def record(key: Path) -> str:
    return key_text(read_private_key(key).public_key())


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


async def run(story: Story, *arguments: str) -> Ran:
    """Runs a command beside the service, in this process: a new one takes a second to start."""
    config = ["-c", str(story.playground.institution.config)]
    ran = await asyncio.to_thread(CliRunner().invoke, command, [*arguments, *config])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        assert isinstance(ran.exception, RelayError), ran.exception  # `main` shows it, and no trace
        return Ran(1, ran.stdout, str(ran.exception))
    return Ran(ran.exit_code, ran.stdout, ran.stderr)


def whats(ran: Ran) -> list[str]:
    """The kinds of steps that were shown."""
    return [line[22:32].strip() for line in ran.stdout.splitlines()[:-1]]


async def law_letter(story: Story) -> str:
    letter = samples.patron_letter(recipient="judge@patron.example").replace(b"lib.example", b"law.example")
    return await story.submit(letter, "judge@patron.example")


async def test_a_key_is_changed_while_mail_goes_on(office: Story, keys: Path) -> None:
    begun = await run(office, "dkim", "rotate", "--begin", "--selector", "new")
    assert begun.returncode == 3, begun.stderr
    sent = await run(office, "send-test", "a@patron.example", "--institution", "law")
    assert sent.returncode == 0, sent.stderr
    assert "d=law.example s=old, verified" in sent.stdout
    office.playground.dns.add("new._domainkey.law.example", "TXT", record(keys / "new.pem"))
    ended = await run(office, "dkim", "rotate", "--wait", "10s")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the service signs with it now" in ended.stdout
    sent = await run(office, "send-test", "b@patron.example", "--institution", "law")
    assert "d=law.example s=new, verified" in sent.stdout
    for recipient, selector in (("a@patron.example", b"s=old;"), ("b@patron.example", b"s=new;")):
        (taken,) = office.taken_for(recipient)
        assert selector in taken.content
        assert taken.mail_from == "alma-bounces@law.example"
        assert await office.verdict(taken)
    assert "event=keys-taken institution=law" in office.appliance.log.read_text(encoding="utf-8")


async def test_a_key_that_the_service_can_t_use_changes_nothing(office: Story, keys: Path) -> None:
    """What the service can't read is not what it is told to sign with at its next start either."""
    await run(office, "dkim", "rotate", "--begin", "--selector", "third")
    office.playground.dns.add("third._domainkey.law.example", "TXT", record(keys / "third.pem"))
    demo_key = office.playground.institution.dkim_key
    good = demo_key.read_bytes()
    demo_key.write_text("no key any more", encoding="utf-8")
    failed = await run(office, "dkim", "rotate")
    assert failed.returncode == 1
    assert "the service does not take the new key, and signs with that of before" in failed.stderr
    assert read_folder(keys).signs == ("new",)
    demo_key.write_bytes(good)
    assert (await run(office, "dkim", "rotate")).returncode == 0
    assert read_folder(keys).signs == ("third",)


async def test_keys_that_can_t_be_read_are_left_out_and_told(office: Story, keys: Path) -> None:
    state = (keys / "signing.json").read_bytes()
    (keys / "signing.json").write_text("{", encoding="utf-8")
    office.appliance.hang_up()
    log = office.appliance.log
    await until(lambda: "event=keys-kept" in log.read_text(encoding="utf-8"), "the log to tell it")
    (keys / "signing.json").write_bytes(state)
    sent = await run(office, "send-test", "c@patron.example", "--institution", "law")
    assert sent.returncode == 0, sent.stderr


async def test_a_letter_to_the_world_shows_every_step(office: Story) -> None:
    sent = await run(office, "send-test", "reader@patron.example", "--institution", "demo")
    assert sent.returncode == 0, sent.stderr
    assert whats(sent) == ["accepted", "way", "envelope", "signed", "delivered", "next hop"]
    assert "/0 to reader@patron.example by default" in sent.stdout
    assert "rsa-sha256 d=lib.example s=demo, verified with our public key" in sent.stdout
    assert "taken by 127.0.0.1 (TLSv1.3, opportunistic)" in sent.stdout
    (taken,) = office.taken_for("reader@patron.example")
    assert f"MAIL FROM:<{taken.mail_from}> RCPT TO:<reader@patron.example>" in sent.stdout
    assert taken.mail_from.endswith("@bounces.lib.example")
    assert await office.verdict(taken)
    assert b"This is a test letter." in body(taken.content)
    assert sent.stdout.splitlines()[-1].startswith("delivered: in ")


async def test_a_letter_is_in_the_language_of_the_institution(office: Story) -> None:
    sent = await run(office, "send-test", "richter@patron.example", "--institution", "law", "--json")
    assert json.loads(sent.stdout)["verdict"] == "delivered"
    assert b"Dies ist ein Testbrief." in office.taken_for("richter@patron.example")[0].content


async def test_a_printer_prints_it_and_says_so(office: Story) -> None:
    sent = await run(office, "send-test", "--to-printer", "a5")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert whats(sent) == ["accepted", "way", "print job", "printer", "paper"]
    assert "device-confirmed" in sent.stdout
    (paper,) = office.printers["a5"].papers()
    assert "This is a test letter" in " ".join(pypdf.PdfReader(paper).pages[0].extract_text().split())


async def test_a_printer_with_an_address_of_its_own_gets_it_by_mail(office: Story) -> None:
    sent = await run(office, "send-test", "--to-printer", "branch")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert whats(sent) == ["accepted", "sorted", "way", "envelope", "signed", "delivered", "next hop"]
    assert f"to {OWN} by default" in sent.stdout
    assert await office.verdict(office.taken_for(OWN)[0])


async def test_slips_go_to_an_address_as_they_came_and_signed(office: Story) -> None:
    slip = samples.request_slip(recipient="branch@print.lib.example")
    before = len(office.taken_for(OWN))
    await office.settled(await office.submit(slip, "branch@print.lib.example"))
    taken = office.taken_for(OWN)[before]
    assert body(taken.content) == body(slip)
    assert await office.verdict(taken)
    assert taken.mail_from.endswith("@bounces.lib.example")


async def test_a_slip_that_is_handed_in_again_goes_to_the_address_once(office: Story) -> None:
    slip = samples.request_slip(recipient="branch@print.lib.example")
    before = len(office.taken_for(OWN))
    first = await office.submit(slip, "branch@print.lib.example")
    await office.settled(first)
    second = await office.submit(slip, "branch@print.lib.example")
    await until(lambda: len(office.deliveries(second)) == 2, "the second to be sorted")
    assert [(line.state, line.evidence, line.duplicate_of) for line in office.deliveries(second)] == [
        ("delivered", "", ""),
        ("cancelled", "duplicate", f"{first}/1"),
    ]
    shown = await run(office, "queue", "show", second)
    assert f"a duplicate of {first}/1, and no paper of its own" in shown.stdout
    log = office.appliance.log.read_text(encoding="utf-8")
    assert f"event=duplicate id={second} delivery=1 printer=branch of={first}/1 by=message-id" in log
    other = slip.replace(b"Message-ID: <", b"Message-ID: <x")
    await office.settled(await office.submit(other, "branch@print.lib.example"))
    assert len(office.taken_for(OWN)) == before + 2


async def test_the_desk_hears_of_a_slip_that_its_printer_s_address_does_not_take(office: Story) -> None:
    office.next_hop.refuse_next(550, at="rcpt", text="5.1.1 no printer of that name")
    slip = samples.request_slip(recipient="branch@print.lib.example")
    queue_id = await office.submit(slip, "branch@print.lib.example")
    await until(lambda: office.taken_for("circulation@lib.example"), "the DSN")
    (dsn,) = office.taken_for("circulation@lib.example")
    assert dsn.mail_from == ""
    assert b"no printer of that name" in dsn.content
    assert [line.state for line in office.deliveries(queue_id)] == ["delivered", "failed"]


async def test_a_slip_is_printed_and_sent_where_a_printer_has_both(office: Story) -> None:
    slip = samples.request_slip(recipient="hall@print.lib.example")
    before = len(office.printers["laser"].papers())
    lines = await office.settled(await office.submit(slip, "hall@print.lib.example"))
    assert [(line.route, line.evidence) for line in lines] == [("print:hall", "device-confirmed"), ("default", "")]
    assert len(office.printers["laser"].papers()) == before + 1
    assert len(office.taken_for("hall-printer@eprint.example")) == 1


async def test_a_printer_s_address_is_no_way_out_for_others(office: Story) -> None:
    """A source that may only print, of another institution, reaches neither the printer nor its address."""
    letter = samples.request_slip(recipient="branch@print.lib.example").replace(b"lib.example", b"law.example")
    for recipient in ("branch@print.lib.example", OWN):
        with pytest.raises(Refused):
            await office.submit(letter, recipient, sender="x@law.example")


async def test_the_table_of_printers_has_those_by_mail(office: Story) -> None:
    shown = await run(office, "printers")
    assert shown.returncode == 0, shown.stdout
    (row,) = [line for line in shown.stdout.splitlines() if line.startswith("branch ")]
    assert row.split() == ["branch", "by", "mail", OWN]
    assert "hall: its slips go to hall-printer@eprint.example as well" in shown.stdout
    shapes = json.loads((await run(office, "printers", "--json")).stdout)["printers"]
    assert [(each["queue"], each["state"], each["forward_to"]) for each in shapes if each["name"] == "branch"] == [
        (None, "by mail", [OWN])
    ]
    assert "nothing to change" in (await run(office, "printers", "setup")).stdout


async def test_what_is_refused_held_or_dropped_has_failed(office: Story) -> None:
    office.next_hop.refuse_next(550, at="rcpt", text="5.1.1 nobody of that name")
    sent = await run(office, "send-test", "nobody@patron.example", "--institution", "demo")
    assert sent.returncode == 1
    assert "550 5.1.1 nobody of that name" in sent.stdout
    assert sent.stdout.splitlines()[-1].startswith("failed: ")
    for recipient, why in (
        ("held@patron.example", "is held: a person decides"),
        ("dropped@patron.example", "discarded"),
    ):
        sent = await run(office, "send-test", recipient, "--institution", "demo")
        assert (sent.returncode, why in sent.stdout.splitlines()[-1]) == (1, True), sent.stdout


async def test_what_is_not_settled_in_time_goes_on(office: Story) -> None:
    office.next_hop.refuse_next(451, at="rcpt", text="4.2.0 later", times=2)
    sent = await run(office, "send-test", "later@patron.example", "--institution", "demo", "--wait", "0.5s")
    assert sent.returncode == 3, sent.stdout
    assert sent.stdout.splitlines()[-1].startswith("not settled: ")
    queue_id = sent.stdout.split("accepted")[1].split(",")[0].strip()
    await office.settled(queue_id)


async def test_what_can_t_be_sent_is_told(office: Story) -> None:
    for arguments, why in (
        (["x@patron.example"], "from whom? name the institution: demo, law"),
        (["x@patron.example", "--institution", "none"], "there is no institution 'none'"),
        (["not an address", "--institution", "demo"], "address"),
        (["a5@print.lib.example", "--institution", "law"], "belongs to a printer of demo"),
    ):
        sent = await run(office, "send-test", *arguments)
        assert (sent.returncode, why in sent.stderr) == (1, True), sent.stderr
    assert (await run(office, "send-test")).returncode == 2
    assert (await run(office, "send-test", "--to-printer", "none")).returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_only_who_gives_orders_sends_test_letters(office: Story) -> None:
    """Who neither is root nor the account of the service does not reach its socket."""
    path = office.playground.institution.spool.with_name("control.sock")
    asked = f"import os, socket; os.setuid(65534); socket.socket(socket.AF_UNIX).connect({str(path)!r})"
    path.parent.chmod(0o755)
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", asked], capture_output=True, text=True, check=False
    )
    assert "PermissionError" in ran.stderr

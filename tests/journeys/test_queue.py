"""The queue on the command line, beside the real service: looking, deciding, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from relay.control.protocol import MAX_REQUEST
from relay.spool.engine import Place
from relay.spool.queries import DeliveryLine, list_deliveries
from tests.harness import samples
from tests.harness.appliance import command
from tests.harness.letters_only import LettersOnly, letter
from tests.harness.next_hop import NextHop
from tests.harness.waiting import free_ports, until
from tests.journeys.story import Story, queue_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

SENDER = "alma@exlibrisgroup.example"


class Ran(NamedTuple):
    """What a command did."""

    code: int
    output: bytes
    complaint: str

    @property
    def text(self) -> str:
        """What it printed."""
        return self.output.decode()


async def queue(config: Path, *arguments: str) -> Ran:
    """Runs `slip-relay queue`."""
    child = await asyncio.create_subprocess_exec(
        *command(),
        "queue",
        *arguments[:1],
        "-c",
        str(config),
        *arguments[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await child.communicate()
    assert child.returncode is not None
    assert b"Traceback" not in complaint
    return Ran(child.returncode, output, complaint.decode())


class Desk:
    """A service whose letters to `*@one.example` and `*@two.example` find nobody at home, and somebody who decides."""

    def __init__(self, letters: LettersOnly, ports: dict[str, int]) -> None:
        self.letters = letters
        self.ports = ports

    async def submit(self, *recipients: str, message: bytes | None = None) -> str:
        """Hands a letter in; gives its queue id."""
        content = message or letter("1", recipients[0])
        return queue_id(await self.letters.appliance.submit(content, SENDER, recipients))

    async def queue(self, *arguments: str) -> Ran:
        """Runs `slip-relay queue`."""
        return await queue(self.letters.institution.config, *arguments)

    async def done(self, *arguments: str) -> list[dict[str, Any]]:
        """Gives an order that has to succeed; gives the deliveries that were changed."""
        ran = await self.queue(*arguments, "--json")
        assert ran.code == 0, ran
        done: list[dict[str, Any]] = json.loads(ran.output)["done"]
        return done

    def line(self, number: str) -> DeliveryLine:
        return next(line for line in list_deliveries(Place.file(self.letters.spool)) if line.queue_id == number)

    async def state(self, number: str, state: str) -> None:
        """Waits until the first delivery of a message is in a state."""
        await until(lambda: self.line(number).state == state, lambda: f"{state}; it is {self.line(number)}")

    def hop(self, name: str, folder: Path) -> NextHop:
        """The next hop that comes home at last."""
        return NextHop(self.ports[name], folder / name)

    def said(self, event: str) -> list[str]:
        """Lines of the mail log of an event."""
        log = self.letters.appliance.log.read_text(encoding="utf-8")
        return [line for line in log.splitlines() if f"event={event} " in line]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    ports = dict(zip(("one", "two"), (free_ports(1), free_ports(1)), strict=True))
    later = {"first": "1h", "longest": "1h"}
    extra = {
        "next_hops": [
            {"name": name, "host": "127.0.0.1", "port": port, "tls": "none", "retry": later, "backoff_longest": "1h"}
            for name, port in ports.items()
        ],
        "rules": [
            {"name": "hold-it", "recipient": "held*@*", "hold": "a person decides"},
            *({"name": name, "recipient": f"*@{name}.example", "next_hop": name} for name in ports),
        ],
    }
    async with LettersOnly(tmp_path_factory.mktemp("queue") / "desk", extra=extra) as letters:
        yield Desk(letters, ports)


@pytest_asyncio.fixture(loop_scope="session")
async def desk(shared_desk: Desk) -> Desk:
    """The desk, with a service that runs."""
    if not shared_desk.letters.appliance.alive:
        await shared_desk.letters.appliance.start()
    return shared_desk


async def test_a_letter_that_was_put_off_is_held_and_released_and_delivered(desk: Desk, tmp_path: Path) -> None:
    number = await desk.submit("a@one.example")
    await desk.state(number, "deferred")
    assert await desk.done("hold", number, "--reason", "the library is closed") == [
        {"id": f"{number}/0", "was": "deferred", "state": "held"}
    ]
    assert desk.line(number).reason == "held by root: the library is closed"
    async with desk.hop("one", tmp_path) as hop:
        assert (await desk.queue("release", f"{number}/0")).code == 0
        await desk.state(number, "delivered")
        assert [taken.rcpt_to for taken in hop.taken] == [["a@one.example"]]
    hold, release = desk.said("order")[-2:]
    assert f"id={number} delivery=0 verb=hold who=root was=deferred state=held route=one" in hold
    assert f"id={number} delivery=0 verb=release who=root was=held state=queued route=one" in release


async def test_a_letter_that_a_rule_held_is_sent_when_a_person_releases_it(desk: Desk) -> None:
    number = await desk.submit("held1@patron.example")
    await desk.state(number, "held")
    ran = await desk.queue("release", number)
    assert (ran.code, ran.text) == (0, f"{number}/0 was held and is released, by default\n")
    await desk.state(number, "delivered")
    assert [t.rcpt_to for t in desk.letters.next_hop.taken if "held1@patron.example" in t.rcpt_to] != []
    shown = (await desk.queue("show", number)).text
    assert "root said: release (it was held)" in shown
    assert "to <held1@patron.example> by default: delivered" in shown


async def test_a_retry_goes_now_though_its_destination_is_given_a_rest(desk: Desk, tmp_path: Path) -> None:
    numbers = [await desk.submit(f"{i}@two.example") for i in range(3)]
    await desk.state(numbers[0], "deferred")
    assert any("destination=two" in line for line in desk.said("backoff"))
    async with desk.hop("two", tmp_path) as hop:
        assert (await desk.queue("retry", numbers[0])).code == 0
        for number in numbers:
            await desk.state(number, "delivered")
        assert len(hop.taken) == 3, "what waits behind it goes too"


async def test_a_whole_route_is_held_released_and_retried(desk: Desk, tmp_path: Path) -> None:
    numbers = [await desk.submit(f"{i}@one.example") for i in range(4)]
    await desk.state(numbers[0], "deferred")
    other = await desk.submit("x@two.example")
    held = await desk.done("hold", "--route", "one")
    assert sorted(each["id"] for each in held) == [f"{number}/0" for number in numbers]
    nothing = await desk.queue("hold", "--route", "one")
    assert (nothing.code, nothing.text) == (1, "0 held\n")
    async with desk.hop("one", tmp_path) as hop:
        assert (await desk.queue("release", "--all")).text == "4 released\n"
        for number in numbers:
            await desk.state(number, "delivered")
        assert len(hop.taken) == 4
    assert desk.line(other).state != "delivered"


async def test_what_is_cancelled_is_never_sent_and_that_is_kept(desk: Desk) -> None:
    number = await desk.submit("held2@patron.example")
    await desk.state(number, "held")
    ran = await desk.queue("cancel", number, "--reason", "sent twice")
    assert (ran.code, ran.text) == (0, f"{number}/0 was held and is cancelled, by hold:hold-it\n")
    assert desk.line(number).reason == "cancelled by root: sent twice"
    assert f"event=order id={number} delivery=0 verb=cancel who=root was=held state=cancelled" in desk.said("order")[-1]
    again = await desk.queue("release", number)
    assert again.code == 1
    assert f"{number}/0 is left as it is: it is cancelled already" in again.complaint
    assert [t for t in desk.letters.next_hop.taken if "held2@patron.example" in t.rcpt_to] == []


async def test_orders_are_carried_out_while_the_service_is_stopped(desk: Desk) -> None:
    first, second = [await desk.submit(f"held{i}@patron.example") for i in (3, 4)]
    await desk.state(first, "held")
    await desk.state(second, "held")
    await desk.letters.end()
    assert not desk.letters.spool.with_name("control.sock").exists()
    ran = await desk.queue("release", first)
    assert ran.code == 0
    assert f"event=order id={first}" in ran.complaint, "the mail log of an order without a service"
    assert (await desk.queue("cancel", second)).code == 0
    await desk.letters.appliance.start()
    await desk.state(first, "delivered")
    assert desk.line(second).state == "cancelled"


async def test_what_is_no_order_leaves_the_service_as_it_was(desk: Desk) -> None:
    socket = desk.letters.spool.with_name("control.sock")
    for noise in (b"\n" * 100, b"HELO\r\n" * 10, b"\xff\0{" * 1000, b"x" * 2 * MAX_REQUEST, b'{"verb":"hold"}\n'):
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(noise)
        answer = (
            await asyncio.wait_for(reader.read(100), 10) if noise.endswith(b"\n") or len(noise) > MAX_REQUEST else b""
        )
        assert answer == b"" or answer.startswith(b'{"error":')
        writer.close()
    number = await desk.submit("held5@patron.example")
    await desk.state(number, "held")
    assert (await desk.queue("cancel", number)).code == 0
    assert desk.said("fault") == []


async def test_mail_is_traced_by_address_queue_id_and_message_id(desk: Desk) -> None:
    first = await desk.submit("anna@patron.example", "bert@patron.example", message=letter("t1", "anna@patron.example"))
    second = await desk.submit("Anna@patron.example", message=letter("t2", "anna@patron.example"))
    await desk.state(second, "delivered")

    async def traced(name: str) -> list[str]:
        return [each["queue_id"] for each in json.loads((await desk.queue("trace", name, "--json")).output)]

    assert await traced("ANNA@patron.example") == [first, second], "the oldest first"
    assert await traced("<t2@lib.example>") == await traced(f"{second.lower()}/0") == [second]
    told = (await desk.queue("trace", "bert@patron.example")).text
    assert f"delivery {first}/1" in told
    assert "anna@patron.example" not in told, "another recipient's mail is another story"
    nobody = await desk.queue("trace", "nobody@patron.example")
    assert (nobody.code, nobody.text) == (1, "")
    assert "nothing in the spool goes by nobody@patron.example" in nobody.complaint


async def test_export_gives_the_bytes_that_were_accepted(desk: Desk, tmp_path: Path) -> None:
    content = letter("e1", "held6@patron.example", size=5000) + b".dot\r\n\r\nend \xc3\xbc\r\n"
    number = await desk.submit("held6@patron.example", message=content)
    await desk.state(number, "held")
    assert (await desk.queue("export", number)).output == content
    file = tmp_path / "a.eml"
    assert (await desk.queue("export", f"{number}/0", "-o", str(file))).code == 0
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o777 == 0o600
    assert "exists already" in (await desk.queue("export", number, "-o", str(file))).complaint
    await desk.letters.end()
    with sqlite3.connect(desk.letters.spool) as spool:
        spool.execute("UPDATE bodies SET content = ? WHERE queue_id = ?", (content[:-1], number))
    corrupt = await desk.queue("export", number)
    assert (corrupt.code, corrupt.output) == (1, b"")
    assert "are not those that were accepted; --force writes them all the same" in corrupt.complaint
    forced = await desk.queue("export", number, "--force")
    assert (forced.code, forced.output) == (0, content[:-1])
    with sqlite3.connect(desk.letters.spool) as spool:
        spool.execute("DELETE FROM bodies WHERE queue_id = ?", (number,))
    gone = await desk.queue("export", number, "--force")
    assert gone.code == 1
    assert "are gone" in gone.complaint


async def test_corrupt_mail_is_kept_shown_and_given_up_by_a_person(desk: Desk) -> None:
    number = await desk.submit("a@one.example")
    await desk.state(number, "deferred")
    await desk.letters.end()
    with sqlite3.connect(desk.letters.spool) as spool:
        spool.execute("UPDATE bodies SET content = ? WHERE queue_id = ?", (b"x", number))
    assert (await desk.queue("retry", number)).code == 0
    await desk.letters.appliance.start()
    await desk.state(number, "corrupt")
    refused = await desk.queue("release", number)
    assert refused.code == 1
    assert "it is corrupt, and only what is held, uncertain can be released" in refused.complaint
    assert (await desk.queue("cancel", number)).code == 0


async def test_the_summary_and_the_list_say_how_it_stands(desk: Desk) -> None:
    for route in ("one", "two", "hold:hold-it"):  # what other tests left
        await desk.queue("cancel", "--route", route, "--yes")
    held = await desk.submit("held7@patron.example", "held8@patron.example")
    await until(lambda: desk.line(held).state == "held", "both")
    put_off = await desk.submit("a@one.example")
    await desk.state(put_off, "deferred")

    async def groups() -> list[tuple[str, str, int]]:
        found = json.loads((await desk.queue("--json")).output)
        assert found["unfinished"] == sum(group["count"] for group in found["groups"])
        return [(group["state"], group["route"], group["count"]) for group in found["groups"]]

    assert await groups() == [("deferred", "one", 1), ("held", "hold:hold-it", 2)]
    table = (await desk.queue()).text.splitlines()
    assert table[0].split() == ["state", "route", "count", "oldest", "age"]
    assert table[1].split()[:3] == ["deferred", "one", "1"]
    assert table[-1] == "3 not finished"

    async def listed(*options: str) -> list[str]:
        return [each["id"] for each in json.loads((await desk.queue("list", "--json", *options)).output)]

    both = [f"{held}/0", f"{held}/1"]
    assert await listed("--state", "held", "--state", "deferred") == [*both, f"{put_off}/0"]
    assert await listed("--state", "held", "--oldest", "--limit", "1") == both[:1]
    everything = ["--route", "hold:hold-it", "--recipient", "held8@*", "--reason", "PERSON", "--older-than", "0s"]
    assert await listed(*everything, "--state", "held", "--institution", "demo", "--sender", "alma@*") == both[1:]
    plain = (await desk.queue("list", "--state", "held")).text
    assert f"{held}/0" in plain
    assert "held7@patron.example" in plain
    assert "a person decides" in plain


async def test_the_envelope_is_shown_with_what_the_sender_asked(desk: Desk) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.letters.appliance.port)
    lines = [
        "EHLO app02.example",
        f"MAIL FROM:<{SENDER}> RET=HDRS ENVID=QQ314",
        "RCPT TO:<held9@patron.example> NOTIFY=NEVER ORCPT=rfc822;h@patron.example",
        "DATA",
    ]
    reply = await _reply(reader)
    for line in (*(line.encode() for line in lines), letter("d1", "held9@patron.example") + b"."):
        writer.write(line + b"\r\n")
        reply = await _reply(reader)
    writer.close()
    assert "queued as" in reply
    number = reply.split()[-1]
    await desk.state(number, "held")
    shown = (await desk.queue("show", number)).text
    assert f"reverse-path <{SENDER}>  RET=HDRS  ENVID=QQ314" in shown
    assert "NOTIFY=NEVER  ORCPT=rfc822;h@patron.example" in shown
    message = json.loads((await desk.queue("show", number, "--json")).output)
    assert (message["ret"], message["envid"], message["deliveries"][0]["notify"]) == ("HDRS", "QQ314", "NEVER")


async def _reply(reader: asyncio.StreamReader) -> str:
    """One reply; its last line."""
    while (line := (await asyncio.wait_for(reader.readline(), 10)).decode())[3:4] == "-":
        pass
    return line


async def test_a_failed_letter_is_shown_with_the_dsn_about_it(desk: Desk) -> None:
    number = await desk.submit("permfail1@patron.example")
    await desk.state(number, "failed")
    (delivery,) = json.loads((await desk.queue("show", number, "--json")).output)["deliveries"]
    (dsn,) = delivery["dsns"]
    assert dsn["recipient"] == SENDER
    assert f"told <{SENDER}> with the DSN {dsn['queue_id']}" in (await desk.queue("show", number)).text
    assert f"a DSN about {number}/0" in (await desk.queue("show", dsn["queue_id"])).text


async def test_what_is_not_there_is_said_so(desk: Desk) -> None:
    ran = await desk.queue("release", "0000000000000/3")
    assert ran.code == 1
    assert "there is no delivery 0000000000000/3" in ran.complaint


async def test_a_socket_that_may_not_be_used_says_whom_to_ask(desk: Desk, tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    text = desk.letters.institution.config.read_text(encoding="utf-8")
    config.write_text(f'{text}\n[control]\nsocket = "{tmp_path}/elsewhere.sock"\n', encoding="utf-8")
    number = await desk.submit("held10@patron.example")
    await desk.state(number, "held")
    ran = await queue(config, "cancel", number)
    assert ran.code == 1
    assert "another slip-relay is using the spool" in ran.complaint
    assert f"no service answers at {tmp_path}/elsewhere.sock" in ran.complaint
    assert desk.line(number).state == "held"


# --- paper


async def uncertain(story: Story) -> str:
    """A slip of which nobody knows whether it is on paper."""
    printer = story.printers["laser"]
    await printer.fault("media-empty")
    number = await story.submit(samples.transit_slip(recipient=story.mailbox("laser")), story.mailbox("laser"))
    await until(lambda: "media-empty" in story.deliveries(number)[0].reason, "CUPS to say what is wrong")
    config = story.playground.institution.config
    refused = await queue(config, "cancel", number)
    assert refused.code == 1
    assert "cancel it there, then it is held or uncertain, and can be cancelled" in refused.complaint
    await story.playground.cupsd.command("cancel", "-a", "laser")
    await story.settled(number, state="uncertain")
    await printer.mend()
    return number


async def test_a_person_says_what_became_of_an_uncertain_slip(story: Story) -> None:
    config = story.playground.institution.config
    printer = story.printers["laser"]
    before = len(printer.papers())
    number = await uncertain(story)
    ran = await queue(config, "printed", number)
    assert (ran.code, ran.text) == (0, f"{number}/0 was uncertain and is recorded as printed, by print:laser\n")
    line = story.deliveries(number)[0]
    assert (line.state, line.evidence) == ("delivered", "operator-confirmed")
    assert len(printer.papers()) == before


async def test_an_uncertain_slip_is_printed_again_only_on_a_person_s_word(story: Story) -> None:
    config = story.playground.institution.config
    printer = story.printers["laser"]
    before = len(printer.papers())
    number = await uncertain(story)
    many = await queue(config, "release", "--route", "print:laser")
    assert (many.code, many.text) == (1, "0 released\n"), "not along with others"
    assert story.deliveries(number)[0].state == "uncertain"
    assert (await queue(config, "release", number)).code == 0
    await story.settled(number)
    await printer.wait_for_papers(before + 1)
    assert printer.job_names()[-1] == f"slip-{number}-0-2", "a job of its own"
    assert len(printer.papers()) == before + 1


async def test_a_slip_whose_job_ended_before_it_was_printed_is_released_and_printed(story: Story) -> None:
    config, cupsd = story.playground.institution.config, story.playground.cupsd
    before = len(story.printers["laser"].papers())
    await cupsd.command("cupsdisable", "laser")
    number = await story.submit(samples.transit_slip(recipient=story.mailbox("laser")), story.mailbox("laser"))
    await until(lambda: story.deliveries(number)[0].state == "pending", "the slip to be with CUPS")
    await cupsd.command("cancel", "-a", "laser")
    await story.settled(number, state="held")
    await cupsd.command("cupsenable", "laser")
    assert (await queue(config, "release", number)).code == 0
    await story.settled(number)
    assert len(story.printers["laser"].papers()) == before + 1


async def test_slips_wait_no_longer_than_a_person_wants(story: Story) -> None:
    cupsd, printer = story.playground.cupsd, story.printers["a5"]
    config = story.playground.institution.config
    before = len(printer.papers())
    await cupsd.command("cupsreject", "a5")
    numbers = [
        await story.submit(samples.request_slip(recipient=story.mailbox("a5")), story.mailbox("a5")) for _ in range(3)
    ]
    await until(lambda: "not accepting jobs" in story.deliveries(numbers[0])[0].reason, "the reason")
    assert (await queue(config, "hold", numbers[1])).code == 0
    await cupsd.command("cupsaccept", "a5")
    await queue(config, "retry", numbers[0])
    await story.settled(numbers[0], numbers[2])
    assert len(printer.papers()) == before + 2
    assert story.deliveries(numbers[1])[0].state == "held"
    assert (await queue(config, "release", numbers[1])).code == 0
    await story.settled(numbers[1])
    assert len(printer.papers()) == before + 3

"""One message in is one message out ("SMTP smuggling"), whatever in it looks like an end of data, however TCP cuts it.

The next hop shows the bytes on the wire. They are read as strictly as RFC 5321 wants it and as loosely as any server
is known to do: in both readings there is one message.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dkim
import pytest

from tests.harness import samples
from tests.harness.faulty_hop import FaultyHop
from tests.harness.letters_only import LettersOnly
from tests.harness.segment_client import SegmentClient
from tests.harness.waiting import until
from tests.journeys.story import Story

ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\0\n",
    b"\r\0\n.\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n..\r\n",
    b"\r\n.\x1a\r\n",
]
"""What ends the data for somebody, or did so once; and what might."""

ANY_END = re.compile(rb"(?:\r\n|\r|\n)\0*\.\0*(?:\r\n|\r|\n)")
"""What the loosest reader would take for the end."""

HIDDEN = (
    b"MAIL FROM:<evil@lib.example>\r\nRCPT TO:<victim@patron.example>\r\nDATA\r\n"
    b"From: evil@lib.example\r\nSubject: smuggled\r\n\r\nsmuggled"
)
END = b"\r\n.\r\n"


def as_kept(content: bytes) -> bytes:
    """What becomes of content after its end mark and its dots were taken off."""
    lines = content.split(b"\r\n")
    return normalised(b"\r\n".join(line.removeprefix(b".") for line in lines)) + b"\r\n"


def normalised(content: bytes) -> bytes:
    """Content with the one treatment of what has no place in it."""
    text = content.replace(b"\0", b"")
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


@asynccontextmanager
async def relay(folder: Path, hop: FaultyHop) -> AsyncIterator[LettersOnly]:
    """The appliance before a next hop that keeps what it hears."""
    async with hop.listening() as port:
        extra = {"next_hops": [{"name": "default", "port": port}]}
        async with LettersOnly(folder / "relay", extra=extra) as letters:
            yield letters


def commands(hop: FaultyHop) -> list[bytes]:
    """The verbs that the next hop heard, without those that begin and end sessions."""
    return [line.split()[0] for line in hop.seen if line.split()[0] not in (b"EHLO", b"STARTTLS", b"QUIT", b"RSET")]


def header(number: int) -> bytes:
    return (
        b"From: circulation@lib.example\r\nTo: reader@patron.example\r\nSubject: Your item\r\n"
        b"Message-ID: <%d@lib.example>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\n" % number
    )


def cut(content: bytes, place: int, length: int) -> list[list[bytes]]:
    """Content in two segments, cut at each byte around a place; and byte by byte there."""
    at = range(place - 2, place + length + 3)
    twice = [[content[:i], content[i:]] for i in at]
    return [*twice, [content[: at[0]], *(content[i : i + 1] for i in at), content[at[-1] + 1 :]]]


@pytest.mark.asyncio
async def test_one_message_in_is_one_message_out(tmp_path: Path) -> None:
    hop = FaultyHop(offers=(b"PIPELINING",))
    sent: dict[bytes, bytes] = {}
    async with relay(tmp_path, hop) as letters:
        record = letters.institution.dkim_record.replace('"', "").encode()

        async def send(end: bytes, first: int) -> None:
            async with SegmentClient.greeted(letters.appliance.port) as client:
                ways = cut(header(0) + b"first" + end + HIDDEN + END, len(header(0)) + 5, len(end))
                for number, _ in enumerate(ways, first):
                    head = header(number)
                    content = head + b"first" + end + HIDDEN
                    segments = cut(content + END, len(head) + 5, len(end))[number - first]
                    reply = await client.letter(b"reader@patron.example", segments)
                    assert reply.startswith(b"250 2.0.0 queued as "), (end, segments, reply)
                    sent[b"<%d@lib.example>" % number] = as_kept(content)

        await asyncio.gather(*(send(end, 1000 * place) for place, end in enumerate(ENDS, 1)))
        await until(lambda: len(hop.taken) >= len(sent), lambda: f"{len(sent)} letters, there are {len(hop.taken)}")
        assert len(hop.taken) == len(sent) > 150
        assert commands(hop).count(b"MAIL") == commands(hop).count(b"DATA") == len(sent)
        assert set(commands(hop)) == {b"MAIL", b"RCPT", b"DATA"}
        assert not any(b"evil" in line or b"victim" in line for line in hop.seen)
        for raw in hop.taken:
            assert [found.end() for found in ANY_END.finditer(raw)] == [len(raw)], raw
            assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
            content = (b"\r\n" + raw[:-3]).replace(b"\r\n.", b"\r\n")[2:]
            (number_of_it,) = re.findall(rb"\r\nMessage-ID: (\S+)\r\n", content)
            assert content.endswith(sent.pop(number_of_it)), "and below our fields nothing else was changed"
            assert dkim.verify(content, dnsfunc=lambda name, timeout=5: record)
        assert not sent


@pytest.mark.asyncio
async def test_a_message_in_chunks_is_one_message_out(tmp_path: Path) -> None:
    """BDAT has no end mark: there CRLF.CRLF is content, and has to be stuffed for a next hop that takes DATA."""
    hop = FaultyHop()
    ends = [END, *ENDS]
    async with relay(tmp_path, hop) as letters, SegmentClient.greeted(letters.appliance.port) as client:
        wanted = set()
        for number, end in enumerate(ends):
            content = header(number) + b"first" + end + HIDDEN + b"\r\n"
            place = len(header(number)) + 5 + number % (len(end) + 1)
            reply = await client.chunks(b"reader@patron.example", [content[:place], content[place:]])
            assert reply.startswith(b"250 2.0.0 queued as "), (end, reply)
            wanted.add(normalised(content))
        await until(lambda: len(hop.taken) >= len(ends), "the letters")
        assert len(hop.taken) == commands(hop).count(b"MAIL") == len(ends)
        for raw in hop.taken:
            assert [found.end() for found in ANY_END.finditer(raw)] == [len(raw)], raw
            content = (b"\r\n" + raw[:-3]).replace(b"\r\n.", b"\r\n")[2:]
            wanted.remove(content[content.index(b"From: ") :])
        assert not any(b"evil" in line or b"victim" in line for line in hop.seen)


@pytest.mark.asyncio
async def test_a_header_is_no_way_in_either(tmp_path: Path) -> None:
    hop = FaultyHop()
    async with relay(tmp_path, hop) as letters, SegmentClient.greeted(letters.appliance.port) as client:
        taken = 0
        for number, end in enumerate(ENDS):
            head = header(number).removesuffix(b"\r\n\r\n")
            reply = await client.letter(b"reader@patron.example", [head + end + HIDDEN + END])
            taken += reply.startswith(b"250 2.0.0 queued as ")
            assert reply.startswith((b"250 2.0.0 queued as ", b"550 5.6.0 ")), (end, reply)
        await until(lambda: len(hop.taken) >= taken, "what was taken")
        assert len(hop.taken) == commands(hop).count(b"MAIL") == taken
        for raw in hop.taken:
            assert [found.end() for found in ANY_END.finditer(raw)] == [len(raw)], raw
        assert not any(b"evil" in line for line in hop.seen)


@pytest.mark.asyncio
@pytest.mark.parametrize("ret", [b"RET=HDRS", b"RET=FULL"])
async def test_a_dsn_that_quotes_it_is_one_message_too(tmp_path: Path, ret: bytes) -> None:
    hop = FaultyHop("rcpt", b"550 5.1.1 no such mailbox", only=b"permfail")
    async with relay(tmp_path, hop) as letters, SegmentClient.greeted(letters.appliance.port) as client:
        for number, end in enumerate(ENDS):
            head = header(number).removesuffix(b"\r\n\r\n") + b"\r\nX-Odd: a\r\n\r\n first"
            reply = await client.letter(b"permfail@patron.example", [head + end + HIDDEN + END], ret)
            assert reply.startswith(b"250 2.0.0 queued as "), (end, reply)
        await until(lambda: len(hop.taken) >= len(ENDS), "the DSNs")
        assert len(hop.taken) == len(ENDS)
        assert commands(hop).count(b"MAIL") == 2 * len(ENDS)
        for raw in hop.taken:
            assert b"Auto-Submitted: auto-replied" in raw
            assert [found.end() for found in ANY_END.finditer(raw)] == [len(raw)], raw
        assert not any(b"evil" in line or b"victim" in line for line in hop.seen)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_slip_is_one_slip(story: Story) -> None:
    mailbox = story.mailbox("a5")
    before = len(story.printers["a5"].papers())
    letter = samples.request_slip(recipient=mailbox)
    assert letter.count(b"</body>") == 1
    for end in ENDS:
        letter = letter.replace(b"</body>", b"<p>first" + end + HIDDEN + b"</p></body>")
    async with SegmentClient.greeted(story.appliance.port) as client:
        reply = await client.letter(mailbox.encode(), [letter.removesuffix(b"\r\n") + END])
    number = reply.split()[-1].decode()
    (line,) = await story.settled(number)
    assert line.evidence == "device-confirmed"
    assert len(story.printers["a5"].papers()) == before + 1
    assert story.taken_for("victim@patron.example") == []

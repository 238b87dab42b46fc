"""Content on the wire: the end of DATA, dots, line ends; however a message is cut, and whatever is in it."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.config.settings import Intake
from relay.errors import Goodbye, Refusal
from relay.intake.content import Pace, read_chunk, read_data
from relay.intake.staging import Staging
from relay.mail import headers
from relay.maillog import MailLog
from relay.spool.contents import PART, LargeContent, parts
from relay.transports.smtp import stuffed as stuffed_out
from relay.transports.smtp import stuffed_blocks

PIECES = st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b" ", b".\r\n", b"line\r\n", b"\r\n.", b"\x00"])
WIRES = st.lists(PIECES, max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 120), max_size=8)


def staging(*, on_disk: bool = False, room: bool = True, **settings: Any) -> Staging:
    if on_disk:
        settings["max_memory"] = 0
    return Staging(Intake(**settings), None, lambda size: room, MailLog())


async def no_more(wire: bytes, cuts: list[int], place: Staging, octets: int | None = None) -> tuple[bytes, bytes]:
    """Has a client say `wire` in pieces, DATA or `octets` of BDAT; gives what is kept and what is left to be read."""
    reader = asyncio.StreamReader(limit=64)
    sink = place.sink()
    pace = Pace(256, asyncio.get_running_loop().time)
    reading = (
        read_data(reader, sink, pace, lambda: None)
        if octets is None
        else read_chunk(reader, octets, sink, pace, lambda: None)
    )
    task = asyncio.create_task(reading)
    last = 0
    for cut in sorted({min(c, len(wire)) for c in cuts} | {len(wire)}):
        reader.feed_data(wire[last:cut])
        last = cut
        await asyncio.sleep(0)
    reader.feed_eof()
    try:
        await task
        arrived = await sink.finish()
        content = b"".join(parts(arrived.content))
        assert arrived.sha256 == hashlib.sha256(content).hexdigest()
        assert arrived.header == headers.split(content)[0]
        arrived.close()
    finally:
        sink.discard()
        place.close()
        assert (place.in_memory, place.on_disk) == (0, 0), "nothing is left"
    return content, await reader.read()


def read(wire: bytes, cuts: list[int] | None = None, place: Staging | None = None) -> tuple[bytes, bytes]:
    return asyncio.run(no_more(wire, cuts or [], place or staging()))


# What it should be, said as simply as can be.


def expected(wire: bytes) -> tuple[bytes, bytes]:
    content, mark, rest = (b"\r\n" + wire).partition(b"\r\n.\r\n")
    assert mark, "the client comes to its end"
    lines = (content + b"\r\n").split(b"\r\n")[1:]
    if not content:
        return b"", rest
    return normalised(b"\r\n".join(line.removeprefix(b".") for line in lines)), rest


def normalised(content: bytes) -> bytes:
    text = content.replace(b"\0", b"").replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return text + b"\r\n" if text and not text.endswith(b"\r\n") else text


@pytest.mark.parametrize("on_disk", [False, True])
@given(wire=WIRES, cuts=CUTS)
@example(wire=b"", cuts=[])
@example(wire=b"\r\n.\r\nMAIL", cuts=[1, 2, 3, 4, 5, 6])
@example(wire=b"a\r\n.\r\nb\r\n", cuts=[3, 4])
@example(wire=b"\r\0\n", cuts=[1, 2])
def test_data_is_what_the_reference_says_however_it_is_cut(on_disk: bool, wire: bytes, cuts: list[int]) -> None:
    wire += b"\r\n.\r\nQUIT\r\n"
    assert read(wire, cuts, staging(on_disk=on_disk)) == expected(wire)


@given(wire=WIRES, cuts=CUTS)
def test_chunks_are_what_the_reference_says_however_they_are_cut(wire: bytes, cuts: list[int]) -> None:
    """BDAT has neither end mark nor stuffing (RFC 3030)."""
    said = asyncio.run(no_more(wire + b"BDAT 0 LAST\r\n", cuts, staging(), len(wire)))
    assert said == (normalised(wire), b"BDAT 0 LAST\r\n")


def test_an_empty_message_is_one() -> None:
    assert read(b".\r\nQUIT\r\n") == (b"", b"QUIT\r\n")


TRICKS = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n"]


@pytest.mark.parametrize("trick", TRICKS)
def test_smuggling_nothing_else_ends_the_data_however_it_is_cut(trick: bytes) -> None:
    hidden = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nSubject: y\r\n\r\ny"
    wire = b"Subject: x\r\n\r\nfirst" + trick + hidden + b"\r\n.\r\n"
    for cut in range(len(wire)):
        message, rest = read(wire, [cut])
        assert b"MAIL FROM:<evil@x.example>\r\n" in message
        assert rest == b""
        assert message.count(b"\r") == message.count(b"\n") == message.count(b"\r\n")


@given(WIRES)
def test_what_is_stuffed_on_the_way_out_is_what_was_taken_in(body: bytes) -> None:
    content = normalised(body + b"\r\n")
    assert read(stuffed_out(content) + b"QUIT\r\n") == (content, b"QUIT\r\n")


@given(WIRES, st.integers(2, 9))
def test_a_large_message_is_stuffed_as_a_small_one_is(body: bytes, block: int) -> None:
    for content in (body, normalised(body)):
        assert b"".join(stuffed_blocks(b"Received: x\r\n", content, block)) == stuffed_out(b"Received: x\r\n" + content)


def refused(wire: bytes, cuts: list[int] | None = None, **settings: Any) -> str:
    """The reply to a message. What comes after it is read, and is no part of it."""

    async def story() -> str:
        place = staging(**settings)
        reader = asyncio.StreamReader()
        sink = place.sink()
        reader.feed_data(wire + b"NOOP\r\n")
        reader.feed_eof()
        await read_data(reader, sink, Pace(0, asyncio.get_running_loop().time), lambda: None)
        with pytest.raises(Refusal) as refusal:
            await sink.finish()
        assert await reader.read() == b"NOOP\r\n"
        assert (place.in_memory, place.on_disk) == (0, 0)
        place.close()
        return str(refusal.value.reply)

    return asyncio.run(story())


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (b"a\rb", "550 5.6.0 the message has a CR or LF that is not part of a CRLF"),
        (b"a\nb", "550 5.6.0 the message has a CR or LF that is not part of a CRLF"),
        (b"a\0b", "550 5.6.0 the message has a NUL"),
        (b"a" * 999, "550 5.6.0 the message has a line of more than 998 octets"),
        (b"b\r\n" + b"a" * 999 + b"\r\nb", "550 5.6.0 the message has a line of more than 998 octets"),
    ],
)
def test_irregular_bytes_are_refused_where_that_is_wanted(body: bytes, reply: str, on_disk: bool) -> None:
    assert refused(b"From: a@b.example\r\n\r\n" + body + b"\r\n.\r\n", malformed="refuse", on_disk=on_disk) == reply


@given(st.lists(st.integers(0, 2500), max_size=8))
@example([997, 998, 999])
def test_lines_are_measured_however_they_are_cut(cuts: list[int]) -> None:
    longest = b"a" * 998 + b"\r\n"
    wire = longest + b"From: x\r\n" + longest
    assert read(wire + b".\r\n", cuts, staging(malformed="refuse")) == (wire, b"")
    assert read(longest + b"b" + longest + b".\r\n", cuts) == (longest + b"b" + longest, b""), "taken as it is"
    place = staging(malformed="refuse")
    with pytest.raises(Refusal, match="998"):
        read(longest + b"b" + longest + b".\r\n", cuts, place)


MIB = 1024 * 1024


@pytest.mark.parametrize("size", [PART - 2, PART, PART + 2, 3 * PART, 5 * PART - 100])
def test_a_large_message_is_on_disk_and_the_same(size: int) -> None:
    content = b"From: a@b.example\r\n\r\n" + b"0123456789abcdefghijklmnopqrstu\n" * (size // 32)
    content = content[: size - 2].replace(b"u\n", b"\r\n") + b"\r\n"
    kept, rest = read(stuffed_out(content) + b"QUIT\r\n", list(range(0, size, 70_001)))
    assert kept == content
    assert rest == b"QUIT\r\n"


def test_a_message_over_the_limit_is_read_to_its_end_but_not_kept() -> None:
    limit = 64 * 1024
    too_big = f"552 5.3.4 message is larger than the {limit} bytes taken here"
    assert refused(b"x" * (limit + 1) + b"\r\n.\r\n", max_message_size=limit) == too_big
    assert refused(b"\n" * (limit - 10) + b"\r\n.\r\n", max_message_size=limit) == too_big, "as it is kept"
    assert len(read(b"x" * (limit - 2) + b"\r\n.\r\n", [], staging(max_message_size=limit))[0]) == limit


def test_nobody_waits_for_the_end_of_a_message_that_has_none() -> None:
    with pytest.raises(Goodbye, match=r"552 5\.3\.4"):
        read(b"x" * (2 * MIB), [], staging(max_message_size=64 * 1024))


def test_a_header_that_is_too_large_is_refused_before_the_body_has_come() -> None:
    async def story() -> None:
        place = staging()
        sink = place.sink()
        for _ in range(5):
            await sink.take(b"X-Field: " + b"x" * 65_000 + b"\r\n")
        assert str(sink.refusal) == "550 5.6.0 the header is larger than 262144 bytes"
        assert (place.in_memory, place.on_disk) == (0, 0)
        place.close()

    asyncio.run(story())


def test_a_header_with_too_many_fields_is_refused() -> None:
    fields = b"From: a@b.example\r\n" + b"X: y\r\n" * 999
    assert read(fields + b"\r\nbody\r\n.\r\n")[0].endswith(b"body\r\n")
    folded = b"From: a@b.example\r\n" + b"X: y\r\n\ty\r\n y\r\n" * 500
    assert read(folded + b"\r\nbody\r\n.\r\n")[0].endswith(b"body\r\n")
    assert refused(b"Z: z\r\n" + fields + b"\r\nbody\r\n.\r\n") == "550 5.6.0 the header has more than 1000 fields"


def test_a_client_that_goes_away_leaves_nothing() -> None:
    for on_disk in (False, True):
        with pytest.raises(asyncio.IncompleteReadError):
            read(b"half a mess", [3], staging(on_disk=on_disk))
    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(no_more(b"half", [], staging(), 10))


def test_a_client_that_is_too_slow_is_sent_away() -> None:
    now = 1000.0
    pace = Pace(256, lambda: now)
    pace.came(10)
    now += 29
    pace.came(10)
    now += 2
    with pytest.raises(Goodbye, match=r"421 4\.4\.2"):
        pace.came(10)
    steady = Pace(256, lambda: now)
    for _ in range(100):
        now += 10
        steady.came(2570)
    now += 31
    with pytest.raises(Goodbye):
        steady.came(2570)  # what it was before does not help it


def test_without_room_a_large_message_is_put_off() -> None:
    assert refused(b"\r\n" + b"x" * MIB + b"\r\n.\r\n", room=False).startswith("452 4.3.1 ")


def test_all_messages_together_hold_no_more_in_memory_than_is_allowed() -> None:
    async def story() -> None:
        place = staging(max_memory=MIB)
        sinks = [place.sink() for _ in range(100)]
        for _ in range(3):
            for sink in sinks:
                await sink.take(b"x" * 60_000)
                assert place.in_memory <= MIB
        assert place.in_memory + place.on_disk == 100 * 3 * 60_000
        for sink in sinks:
            sink.discard()
        assert (place.in_memory, place.on_disk) == (0, 0)
        place.close()

    asyncio.run(story())


def test_a_file_is_gone_with_the_message(tmp_path: Path) -> None:
    content = LargeContent(tmp_path)
    content.append(b"x" * 10)
    assert list(tmp_path.iterdir()) == [], "it has no name"
    assert content.read(2, 8) == b"x" * 8
    with pytest.raises(OSError, match="shorter"):
        content.read(2, 9)
    content.close()
    content.close()
    with pytest.raises(ValueError, match="closed"):
        content.read(2, 8)

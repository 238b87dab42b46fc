"""Reading DATA."""

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.intake.content import normalised, read_data, unstuffed
from relay.transports.smtp import stuffed as stuffed_out

PIECES = st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b" ", b".\r\n", b"line\r\n", b"\r\n.", b"\x00"])


async def read(wire: bytes, cuts: list[int], limit: int = 10_000, buffer: int = 64) -> tuple[bytes | None, bytes]:
    """Reads from a client that sends `wire` in pieces; gives the message and what is left of the stream."""
    reader = asyncio.StreamReader(limit=buffer)
    task = asyncio.create_task(read_data(reader, limit, lambda: None))
    last = 0
    for cut in sorted({min(c, len(wire)) for c in cuts} | {len(wire)}):
        reader.feed_data(wire[last:cut])
        last = cut
        await asyncio.sleep(0)
    reader.feed_eof()
    return await task, await reader.read()


def stuffed(content: bytes) -> bytes:
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


@given(st.lists(PIECES, max_size=40).map(b"".join), st.lists(st.integers(0, 120), max_size=5))
@example(b"", [])
@example(b".\r\n", [1, 2, 3])
@example(b"a\r\n.\r\nb\r\n", [3, 4])
def test_any_message_comes_through_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    content = body + b"\r\n"
    message, rest = asyncio.run(read(stuffed(content) + b".\r\nQUIT\r\n", cuts))
    assert message == normalised(content)
    assert rest == b"QUIT\r\n"


def test_an_empty_message_is_one() -> None:
    assert asyncio.run(read(b".\r\nQUIT\r\n", [])) == (b"", b"QUIT\r\n")


@pytest.mark.parametrize("trick", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\n.\r"])
def test_smuggling_nothing_else_ends_the_data(trick: bytes) -> None:
    wire = b"Subject: x\r\n\r\nfirst" + trick + b"MAIL FROM:<evil@x.example>\r\n.\r\n"
    message, rest = asyncio.run(read(wire, []))
    assert message is not None
    assert b"MAIL FROM" in message
    assert rest == b""


def test_a_message_over_the_limit_is_read_to_its_end_but_not_kept() -> None:
    assert asyncio.run(read(b"x" * 500 + b"\r\n.\r\nNOOP\r\n", [], limit=100)) == (None, b"NOOP\r\n")
    message, _ = asyncio.run(read(b"x" * 98 + b"\r\n.\r\n", [], limit=100))
    assert message is not None
    assert len(message) == 100


def test_a_client_that_goes_away_leaves_nothing() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(read(b"half a mess", []))


def test_line_ends_become_crlf_once() -> None:
    assert normalised(b"a\nb\rc\r\nd\r\r\n") == b"a\r\nb\r\nc\r\nd\r\n\r\n"
    assert normalised(normalised(b"a\nb")) == normalised(b"a\nb")
    assert unstuffed(b"..a\r\n..\r\n.b") == b".a\r\n.\r\nb"


@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_what_is_stuffed_on_the_way_out_is_what_was_taken_in(body: bytes) -> None:
    content = normalised(body) + b"\r\n"
    assert asyncio.run(read(stuffed_out(content) + b"QUIT\r\n", [])) == (content, b"QUIT\r\n")

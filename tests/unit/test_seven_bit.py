"""Letters for hosts that take less: everything in ASCII, and every reader gets the same out of it."""

from __future__ import annotations

import time
import tracemalloc
from base64 import b64encode
from email import message_from_bytes
from email.message import Message
from email.policy import compat32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import Unconvertible
from relay.mail import headers
from relay.outgoing import transfer
from relay.outgoing.brought import BODY
from relay.outgoing.seven_bit import MAX_DEPTH, Converted, converted

HEADER = b"From: circ@lib.example\r\nSubject: due\r\nMIME-Version: 1.0\r\n"
TEXT = "Größe: 5 ½\r\n.\r\n.x\r\n\r\ntrailing \t \r\n=3D long ".encode() + b"w" * 200 + b"\r\nend"


MIXED = b"multipart/mixed; boundary=b"


def letter(content_type: bytes, body: bytes, encoding: bytes = b"8bit", header: bytes = HEADER) -> bytes:
    label = b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""
    return header + b"Content-Type: " + content_type + b"\r\n" + label + b"\r\n" + body


def run(content: bytes, *, bodies: bool = True) -> Converted:
    header = headers.section(content)
    return converted(content, header, len(header) + 2, bodies=bodies)


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    """Type and decoded body of each leaf part, as the standard library reads them."""
    message = message_from_bytes(content, policy=compat32)
    return [(part.get_content_type(), _body(part)) for part in message.walk() if not part.is_multipart()]


def _body(part: Message) -> bytes:
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body


def is_fit(content: bytes) -> bool:
    return (
        content.isascii()
        and all(len(line) <= 998 for line in content.split(b"\r\n"))
        and b"\n" not in content.replace(b"\r\n", b"")
    )


def test_text_becomes_quoted_printable_and_all_else_of_it_stays() -> None:
    content = letter(b'text/plain;\r\n charset="utf-8"', TEXT)
    made = run(content)
    assert is_fit(made.message)
    assert leaves(made.message) == [("text/plain", TEXT)]
    assert headers.section(made.message) == headers.section(content).replace(b"8bit", b"quoted-printable")
    assert {change.what for change in made.changes} == {BODY, "content-transfer-encoding"}


@pytest.mark.parametrize("encoding", [b"", b"7bit", b" 8BIT ", b"(c)\r\n binary"])
def test_whatever_it_was_called_before(encoding: bytes) -> None:
    content = letter(b"text/html", TEXT, encoding, b"From: circ@lib.example\r\n")
    made = run(content)
    assert is_fit(made.message)
    assert leaves(made.message) == [("text/html", TEXT)]
    header = headers.section(made.message)
    assert header.startswith(b"From: circ@lib.example\r\nContent-Type: text/html\r\n")
    assert headers.count(header, "content-transfer-encoding") == headers.count(header, "mime-version") == 1


@pytest.mark.parametrize(
    ("content_type", "body", "encoding"),
    [
        (b"text/plain; charset=utf-8", "איחור בהחזרה".encode() * 20, b"base64"),
        (b"text/plain", b"caf\xe9 au lait\r\n" * 20, b"quoted-printable"),
        (b"application/octet-stream", b"\xe9PNG mostly text" * 20, b"base64"),
    ],
)
def test_the_encoding_that_is_shorter(content_type: bytes, body: bytes, encoding: bytes) -> None:
    made = run(letter(content_type, body))
    assert b"Content-Transfer-Encoding: " + encoding + b"\r\n" in made.message
    assert leaves(made.message)[0][1] == body
    assert max(map(len, made.message.split(b"\r\n"))) <= 78


MULTIPART = (
    b"preamble, byte for byte\r\n--a b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain\r\n\r\n--a b \t\r\n"
    b'Content-Type: multipart/related; boundary="a bc"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--a bc\r\n'
    b"Content-Type: text/html; charset=utf-8\r\nX-Odd :  kept \r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"<p>Gr\xc3\xb6\xc3\x9fe</p>\r\n--a bcd is no delimiter\r\n\r\n--a bc\r\n"
    b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--a bc--\r\nepilogue\r\n"
    b"--a b\r\n\r\n\xc3\xa4 without a header\r\n--a b\r\n--a b--\r\nepilogue\r\n--a b\r\n\r\nno part\r\n"
)


def test_only_the_leaves_of_a_structure_are_changed() -> None:
    content = letter(b'multipart/mixed; boundary="a b"', MULTIPART)
    made = run(content)
    assert is_fit(made.message)
    readable = (text.replace(b"X-Odd :", b"X-Odd:") for text in (made.message, content))  # for the standard library
    assert leaves(next(readable)) == leaves(next(readable))
    expected = content.replace(
        b"Transfer-Encoding: 8bit\r\n\r\n<p>Gr\xc3\xb6\xc3\x9fe",
        b"Transfer-Encoding: quoted-printable\r\n\r\n<p>Gr=C3=B6=C3=9Fe",
    )
    expected = expected.replace(b"-Encoding: 8bit", b"-Encoding: 7bit")
    expected = expected.replace(
        b"--a b\r\n\r\n\xc3\xa4 without a header",
        b"--a b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A4 without a header",
    )
    assert made.message == expected


def test_what_nobody_reads_gets_question_marks() -> None:
    content = letter(MIXED, "für\r\n--b\r\n\r\nx\r\n--b--\r\nähnlich\r\n".encode())
    assert run(content).message.endswith(b"f??r\r\n--b\r\n\r\nx\r\n--b--\r\n??hnlich\r\n")


def test_a_message_within_the_message() -> None:
    inner = letter(b"text/plain; charset=utf-8", TEXT, header="Subject: für\r\nMIME-Version: 1.0\r\n".encode())
    wrapped = (
        b"--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inner + b"\r\n--b--\r\n"
    )
    made = run(letter(MIXED, wrapped))
    assert is_fit(made.message)
    assert leaves(made.message) == [("text/plain", TEXT)]
    assert (
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: =?utf-8?q?f=C3=BCr?="
        in made.message
    )


def test_the_parts_of_a_digest_are_messages() -> None:
    content = letter(b"multipart/digest; boundary=d", b"--d\r\n\r\n" + letter(b"text/plain", TEXT) + b"\r\n--d--\r\n")
    made = run(content)
    assert leaves(made.message) == leaves(content) == [("text/plain", TEXT)]
    assert made.message.count(b"quoted-printable") == 1


@pytest.mark.parametrize(
    ("encoding", "body", "after"),
    [
        (b"quoted-printable", b"caf=C3=A9 caf\xc3\xa9=\r\n", b"caf=C3=A9 caf=C3=A9=\r\n"),
        (b"quoted-printable", b"=\xe9 =\xe9=\r\n", b"=3D=E9 =3D=E9=\r\n"),
        (b"base64", b"aGVs\xe9bG8=\r\n", b"aGVsbG8=\r\n"),
    ],
)
def test_what_was_encoded_badly_decodes_to_the_same(encoding: bytes, body: bytes, after: bytes) -> None:
    content = letter(b"text/plain", body, encoding)
    assert run(content).message == content.replace(body, after)


def test_text_that_someone_signed_is_named() -> None:
    part = (
        b"--b\r\nContent-Type: text/plain\r\n\r\n\xe9\r\n"
        b"--b\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n"
    )
    assert run(letter(b"multipart/signed; boundary=b", part)).has_signed_part
    assert not run(letter(MIXED, part)).has_signed_part
    inner = b"--o\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n" + part + b"--o--\r\n"
    assert run(letter(b"multipart/mixed; boundary=o", inner)).has_signed_part
    untouched = letter(b"multipart/signed; boundary=b", part, header="Subject: für\r\n".encode())
    assert not run(untouched, bodies=False).has_signed_part
    ascii_only = inner.replace(b"\xe9", b"e") + b"\xe9"
    assert not run(letter(b"multipart/mixed; boundary=o", ascii_only)).has_signed_part, "nothing of it was changed"


def test_headers_alone_for_a_host_that_takes_8_bit_bodies() -> None:
    body = "--b\r\nContent-Type: text/plain; name=ü.txt\r\n\r\nüber\r\n--b--\r\n".encode()
    content = letter(MIXED, body, header="Subject: für\r\nMIME-Version: 1.0\r\n".encode())
    made = run(content, bodies=False)
    expected = content.replace("für".encode(), b"=?utf-8?q?f=C3=BCr?=").replace(
        "=ü.txt".encode(), b"*=utf-8''%C3%BC.txt"
    )
    assert made.message == expected
    assert {change.what for change in made.changes} == {"subject", BODY}


def nested(depth: int) -> bytes:
    body = b"\xe9\r\n"
    for level in range(depth):
        body = b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n%b--b%d--\r\n" % (
            level + 1,
            level,
            body,
            level + 1,
        )
    return letter(b"multipart/mixed; boundary=b%d" % depth, body)


@pytest.mark.parametrize(
    ("content", "why", "enhanced"),
    [
        (letter(b"text/plain", TEXT, b"x-uuencode"), "8-bit text or long lines in x-uuencode", "5.6.3"),
        (letter(b"message/partial", TEXT), "8-bit text or long lines in", "5.6.3"),
        (letter(b"multipart/mixed", TEXT), "has no boundary", "5.6.3"),
        (letter(MIXED, TEXT), "has no part", "5.6.3"),
        (letter(MIXED, TEXT + b"\r\n--b--\r\n"), "has no part", "5.6.3"),
        (letter(MIXED, b"--b\r\nno field\r\n\r\n\xe9\r\n--b--\r\n"), "a line that is not a field", "5.6.3"),
        (letter(MIXED, b"--b\r\nno header nor body \xe9\r\n--b--\r\n"), "a line that is not a field", "5.6.3"),
        (letter(MIXED, b"--b\r\n\r\n\xe9\r\n" * 10_001), "too many parts", "5.6.3"),
        (nested(MAX_DEPTH + 1), "too many parts", "5.6.3"),
        (letter(b"text/plain", TEXT, header="Message-ID: <ö@x>\r\n".encode()), "message-id is not ASCII", "5.6.9"),
    ],
)  # fmt: skip
def test_what_has_no_such_form(content: bytes, why: str, enhanced: str) -> None:
    with pytest.raises(Unconvertible) as error:
        run(content)
    assert why in str(error.value)
    assert error.value.enhanced == enhanced


LONG = b"long " * 400


@pytest.mark.parametrize(
    ("content_type", "body", "encoding", "after"),
    [
        (b"text/xml", b"<x>" + LONG + b"</x>\r\n", b"7bit", b"quoted-printable"),
        (b"text/plain", "für ".encode() + LONG, b"8bit", b"quoted-printable"),
        (b"application/json", LONG, b"7bit", b"base64"),
        (b"image/png", b64encode(LONG) + b"\r\n", b"base64", b"base64"),
        (b"image/png", b64encode(LONG), b"base64", b"base64"),
        (b"text/html", b"=C3=A4 " + b"x" * 1000 + b"=\r\n\xe9 end\r\n", b"quoted-printable", b"quoted-printable"),
    ],
)
@pytest.mark.parametrize("bodies", [True, False])
def test_a_long_line_is_kept_by_an_encoding(
    content_type: bytes, body: bytes, encoding: bytes, after: bytes, *, bodies: bool
) -> None:
    content = letter(content_type, body, encoding)
    made = run(content, bodies=bodies)
    assert is_fit(made.message)
    assert b"Content-Transfer-Encoding: " + after + b"\r\n" in made.message
    assert leaves(made.message) == leaves(content)
    part = b"--b\r\n" + content + b"\r\n--b\r\n\r\nshort \xe9\r\n--b--\r\n"
    inner = run(letter(b"multipart/mixed; boundary=b", part), bodies=False)
    assert (b"short \xe9" in inner.message) is (b"\xe9" in inner.message), "what has no long line is left alone"
    assert leaves(inner.message)[0] == leaves(letter(b"multipart/mixed; boundary=b", part))[0]


@pytest.mark.parametrize("space", [b" ", b"\t", b"  "])
def test_a_long_header_line_is_folded_where_it_has_space(space: bytes) -> None:
    value = space.join([b"word%d" % number for number in range(500)])
    content = letter(
        b"text/plain", b"x", header=HEADER + b"X-Long: " + value + b"\r\nX-Whole: " + b"w" * 1000 + b"\r\n"
    )
    made = run(content, bodies=False)
    assert made.message.replace(b"\r\n" + space[-1:], space[-1:]) == content
    assert [len(line) > 998 for line in made.message.split(b"\r\n")].count(True) == 1, "that of one word"
    assert [(change.what, change.is_folding) for change in made.changes] == [("x-long", True)]


@pytest.mark.parametrize(
    "field", [b"Subject :" + b"w" * 1100, b"X :  " + b"w" * 1100, b"X:" + b" " * 1100, b"X" * 999 + b": a b"]
)
def test_a_long_line_that_can_not_be_folded_stays(field: bytes) -> None:
    content = letter(b"text/plain", b"x", header=HEADER + field + b"\r\n")
    made = run(content)
    assert made.message == content
    assert made.changes == ()


PIECES = st.lists(
    st.sampled_from(
        [b"\r\n", b" ", b"\t", b".", b"=", b"text", "ß".encode(), b"\xff", b"x" * 100, b"--b", b"--b--", b"From "]
    )
).map(b"".join)


@given(PIECES, st.integers(1, 200), st.sampled_from([b"", b"\r\n"]))
def test_transfer_encodings_decode_to_the_same(piece: bytes, repeated: int, line_end: bytes) -> None:
    text = (piece + line_end) * repeated
    for name in (b"quoted-printable", b"base64"):
        encode = transfer.quoted_printable if name.startswith(b"q") else transfer.base64_lines
        body = b"".join(encode(text, 0, len(text)))
        assert is_fit(body)
        assert all(len(line) <= 76 and not line.endswith((b" ", b"\t")) for line in body.split(b"\r\n"))
        assert leaves(b"Content-Transfer-Encoding: " + name + b"\r\n\r\n" + body)[0][1] == text


@st.composite
def entities(draw: st.DrawFn, level: int = 0) -> bytes:
    kind = draw(st.sampled_from([b"text/plain", b"application/pdf", b"message/rfc822", b"multipart/mixed"]))
    label = draw(st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n"]))
    if kind == b"message/rfc822" and level < 3:
        return b"Content-Type: message/rfc822\r\n" + label + b"\r\n" + draw(entities(level=level + 1))
    if kind == b"multipart/mixed" and level < 3:
        boundary = b"level%d" % level
        parts = draw(st.lists(entities(level=level + 1), min_size=1, max_size=3))
        body = draw(PIECES) + b"".join(b"\r\n--%b\r\n%b" % (boundary, part) for part in parts)
        return (
            b"Content-Type: multipart/mixed; boundary="
            + boundary
            + b"\r\n"
            + label
            + b"\r\n"
            + body
            + b"\r\n--"
            + boundary
            + b"--"
        )
    kind = kind if kind.startswith((b"text", b"app")) else b"text/html"
    return b"Content-Type: " + kind + b"\r\n" + label + b"\r\n" + draw(PIECES)


@given(entities())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_structure_reads_as_before(entity: bytes) -> None:
    content = HEADER + entity
    made = run(content)
    assert made.message.isascii()
    assert run(made.message).message == made.message
    before, after = leaves(content), leaves(made.message)
    assert [kind for kind, _ in after] == [kind for kind, _ in before]
    at_end = (body.rstrip(b"\r\n") for _, body in before[-1:]), (body.rstrip(b"\r\n") for _, body in after[-1:])
    assert after[:-1] == before[:-1]
    assert list(at_end[0]) == list(at_end[1])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_25_mb_take_less_than_four_times_their_size(share: float) -> None:
    text = ("ö" * int(60 * share / 2) + "x" * int(60 * (1 - share))).encode() + b"\r\n"
    body = text * (25_000_000 // len(text))
    content = letter(MIXED, b"--b\r\nContent-Type: text/plain\r\n\r\n" + body + b"\r\n--b--\r\n")
    del body
    started = time.process_time()
    made = run(content)
    assert time.process_time() - started < 10
    assert is_fit(made.message[:100_000])
    del made
    tracemalloc.start()
    try:
        run(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak + len(content) < 4 * len(content)

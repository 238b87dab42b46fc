"""Header fields in UTF-8 as fields in ASCII: readers see the same."""

from __future__ import annotations

from contextlib import suppress
from email import message_from_bytes, message_from_string, policy
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import Unconvertible
from relay.mail import headers
from relay.outgoing.ascii_fields import ascii_field
from relay.outgoing.encoded_words import LONGEST, encoded_words, phrase


def made(field: str) -> bytes:
    name = field.partition(":")[0].lower()
    return ascii_field(name, field.encode() + b"\r\n")


def shown(field: bytes) -> str:
    """What a reader sees of a field, by the standard library."""
    return str(make_header(decode_header(headers.unfold(headers.value_of(field)))))


@pytest.mark.parametrize(
    ("field", "ascii_form"),
    [
        ("Subject: Größe", "Subject: =?utf-8?b?R3LDtsOfZQ==?="),
        ("Subject:\tfür a b Größe, c", "Subject:\t=?utf-8?q?f=C3=BCr?= a b\r\n =?utf-8?b?R3LDtsOfZSw=?= c"),
        ("Subject: für zwei für drei", "Subject: =?utf-8?q?f=C3=BCr?= zwei\r\n =?utf-8?q?f=C3=BCr?= drei"),
        ("Subject: a\r\n für\r\n  über b", "Subject: a\r\n =?utf-8?b?ZsO8ciAgw7xiZXI=?= b"),
        ("Subject: =?utf-8?q?=C3=A4?= ö", "Subject: =?utf-8?q?=C3=A4?= =?utf-8?b?IMO2?="),
        ("X-Odd: ö", "X-Odd: =?utf-8?b?w7Y=?="),
        ("To: Jörg <j@lib.example>, b@lib.example", "To: =?utf-8?b?SsO2cmc=?= <j@lib.example>, b@lib.example"),
        (
            "To: a@b.example,\r\n\tJörg v. A <j@b.example>",
            "To: a@b.example,\r\n\t=?utf-8?b?SsO2cmc=?= v. A <j@b.example>",
        ),
        ('From: "Jörg \\"K\\", x" <j@lib.example>', "From: =?utf-8?b?SsO2cmcgIksiLCB4?= <j@lib.example>"),
        ('From: "Jörg"<j@lib.example>', "From: =?utf-8?b?SsO2cmc=?= <j@lib.example>"),
        (
            "Cc: Größen: a@b.example, Ö <c@d.example>;",
            "Cc: =?utf-8?b?R3LDtsOfZW4=?=: a@b.example, =?utf-8?b?w5Y=?= <c@d.example>;",
        ),
        ("Cc: j@lib.example (Jörg von A)", "Cc: j@lib.example (=?utf-8?b?SsO2cmc=?= von A)"),
        ("Reply-To: <j@bücherei.example>", "Reply-To: <j@xn--bcherei-n2a.example>"),
        ("Reply-To: j@bücherei.example", "Reply-To: j@xn--bcherei-n2a.example"),
        (
            'Content-Disposition: attachment; filename="Größe 1.pdf"; size=3',
            "Content-Disposition: attachment; filename*=utf-8''Gr%C3%B6%C3%9Fe%201.pdf; size=3",
        ),
        ("Content-Type: image/png; name=ö.png", "Content-Type: image/png; name*=utf-8''%C3%B6.png"),
        ("Content-Description: Öffnung", "Content-Description: =?utf-8?q?=C3=96ffnung?="),
    ],
)
def test_a_field_in_ascii(field: str, ascii_form: str) -> None:
    found = made(field)
    assert found == ascii_form.encode("ascii") + b"\r\n"
    before = message_from_string(field + "\r\n\r\n", policy=policy.default)
    after = message_from_bytes(found + b"\r\n", policy=policy.default)
    name = field.partition(":")[0]
    if name in ("To", "From", "Cc", "Reply-To"):
        with_a_labels = [str(each).replace("bücherei", "xn--bcherei-n2a") for each in before[name].addresses]
        assert [str(each) for each in after[name].addresses] == with_a_labels
    elif name in ("Content-Type", "Content-Disposition"):
        assert after.get_filename() == before.get_filename()
    else:
        assert str(after[name]).split() == str(before[name]).split()


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ("From: <größe>", "from has an address that is not ASCII"),
        ("From: größe@lib.example", "From has an address that is not ASCII"),
        ("From: <größe@lib.example>", "from has an address that is not ASCII"),
        ("To: a@b.example, G <größe@lib.example>", "to has an address that is not ASCII"),
        ('To: "größe"@lib.example', "to has an address that is not ASCII"),
        ("Message-ID: <ö@lib.example>", "message-id is not ASCII, and has no other form"),
        ("Received: from ö by x", "received is not ASCII"),
        ("To: (a (ö) b) x@lib.example", "to is not ASCII, and can't be read"),
        ("Content-Type: text/ö", "content-type is not ASCII outside of a parameter"),
        ("Content-Type: text/plain; name*0=ö", "content-type is not ASCII outside of a parameter"),
        ("Content-Type: text/plain; ö=x", "content-type is not ASCII outside of a parameter"),
    ],
)
def test_what_has_no_form_in_ascii(field: str, why: str) -> None:
    with pytest.raises(Unconvertible) as error:
        made(field)
    assert why.lower() in str(error.value).lower()
    assert error.value.enhanced == "5.6.9"


def test_what_is_no_utf8_is_refused() -> None:
    with pytest.raises(Unconvertible, match="subject is neither ASCII nor UTF-8"):
        ascii_field("subject", b"Subject: gr\xf6\xdfe\r\n")


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=300)


@given(TEXT)
def test_encoded_words_say_what_they_were_made_of(text: str) -> None:
    words = encoded_words(text)
    assert all(len(word) <= LONGEST and word.isascii() and b" " not in word for word in words)
    assert all(decode_header(word.decode())[0][0].decode() for word in words), "no character is cut in two"
    assert str(make_header(decode_header("\r\n ".join(word.decode() for word in words)))) == text


@given(st.lists(st.text('aß é=?"(),;<>@\u05d0_-', min_size=1, max_size=40), min_size=1, max_size=6))
def test_free_text_shows_the_same(parts: list[str]) -> None:
    words = [word for part in parts for word in part.split()]
    if "".join(words).isascii() or "=?" in "".join(words):
        return
    field = ("Subject: " + " ".join(words) + "\r\n").encode()
    found = ascii_field("subject", field)
    assert found.isascii()
    assert all(len(line) <= 78 for line in found.split(b"\r\n") if b"=?utf-8" in line and line.count(b" ") < 2)
    assert " ".join(shown(found).split()) == " ".join(words)


@given(st.text('ab ß"\\(),;<>@.\u05d0', min_size=1, max_size=60))
def test_a_name_before_an_address_reads_as_what_it_was(name: str) -> None:
    if not name.strip():
        return
    made = phrase(name)
    (address,) = message_from_bytes(b"From: " + made + b" <a@lib.example>\r\n\r\n", policy=policy.default)[
        "From"
    ].addresses
    assert address.addr_spec == "a@lib.example"
    if made.startswith(b"=?"):  # the standard library shows a space between encoded words in a name; nobody else does
        assert str(make_header(decode_header(made.decode()))) == name
    else:
        assert address.display_name.split() == name.split()


@pytest.mark.parametrize(
    "piece",
    [
        b"(" * 50_000,
        b'"' * 50_001,
        b'"\\' * 50_000,
        b"<" * 50_000,
        b" ;" * 50_000,
        b"= " * 50_000,
        "ö a ".encode() * 50_000,
        "ö ".encode() * 50_000,
    ],
)
@pytest.mark.parametrize("name", ["to", "subject", "content-type"])
def test_hostile_fields_take_no_time(name: str, piece: bytes) -> None:
    with suppress(Unconvertible):
        assert ascii_field(name, name.encode() + b": " + piece + "ö\r\n".encode()).isascii()

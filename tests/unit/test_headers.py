import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.errors import HeaderError
from relay.mail import headers


@pytest.mark.parametrize("message", [b"A: 1\r\n\r\nb\r\n", b"\r\nb\r\n", b"A: 1\r\n", b"A: 1", b"", b"\r\n\r\n\r\n"])
def test_the_section_is_the_first_half_of_the_split(message: bytes) -> None:
    assert headers.section(message) == headers.split(message)[0]


def test_a_message_is_split_at_its_first_empty_line() -> None:
    assert headers.split(b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nmore\r\n") == (b"A: 1\r\nB: 2\r\n", b"body\r\n\r\nmore\r\n")
    assert headers.split(b"\r\nbody\r\n") == (b"", b"body\r\n")
    assert headers.split(b"A: 1\r\n") == (b"A: 1\r\n", b"")


def test_fields_keep_their_raw_value() -> None:
    header = b"Subject: one\r\n two\r\nX-Odd :\tv\r\n"
    assert list(headers.fields(header)) == [("subject", b" one\r\n two"), ("x-odd", b"\tv")]


def test_a_line_that_is_no_field_is_an_error() -> None:
    with pytest.raises(HeaderError):
        list(headers.fields(b"Subject: one\r\nno field here\r\n"))


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        (b"circ@lib.example", ["lib.example"]),
        (b"Library <circ@Lib.Example>", ["lib.example"]),
        (b'"Doe, Jane" <jane@lib.example>', ["lib.example"]),
        (b"=?UTF-8?B?8J+Tmg==?= <circ@lib.example>", ["lib.example"]),
        (b"a@one.example, B <b@two.example>", ["one.example", "two.example"]),
        (b"circ@lib.example (a comment, with <evil@x.example>)", ["lib.example"]),
        (b"Library\r\n <circ@lib.example>", ["lib.example"]),
        (b"circ@lib.example (a\\(b)", ["lib.example"]),
        (b'(") ceo@evil.example, (") y@lib.example', ["evil.example", "lib.example"]),
        (b"([) <ceo@evil.example>, (]) y@lib.example", ["evil.example", "lib.example"]),
        (b"Biblioth\xc2\xa0que\xe3\x80\x80<circ@lib.example>", ["lib.example"]),
        (b'"circ desk"@lib.example', ["lib.example"]),
        (b"Gr\xc3\xb6\xc3\x9fe <circ@lib.example>", ["lib.example"]),
    ],
)
def test_from_domains(value: bytes, domains: list[str]) -> None:
    assert headers.from_domains(b"From: " + value + b"\r\n") == domains


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: no from\r\n",
        b"From: a@lib.example\r\nFrom: b@evil.example\r\n",
        b"From: \r\n",
        b"From: lib.example\r\n",
        b"From: a@lib.example <b@evil.example>\r\n",
        b"From: <a@lib.example> <b@evil.example>\r\n",
        b"From: a@lib.example b\r\n",
        b"From: a@library.exa mple\r\n",
        b"From: friends: a@lib.example;\r\n",
        b"From: (unclosed a@lib.example\r\n",
        b"From: @lib.example\r\n",
        b"From: <a@lib.example\r\n",
        b"From: [<ceo@evil.example>] y@lib.example\r\n",
        b"From: a b c@lib.example\r\n",
        b"From: a..b@lib.example\r\n",
        b"From: a@[192.0.2.1]\r\n",
    ],
)
def test_a_from_field_that_is_not_clear_is_an_error(header: bytes) -> None:
    with pytest.raises(HeaderError):
        headers.from_domains(header)


PIECES = st.sampled_from(
    ["<", ">", "@", ".", ",", " ", '"', "\\", "a", "Doe", "lib.example", "a@lib.example", "<b@x.example>"]
)


@given(st.lists(PIECES, max_size=9).map("".join))
@example('"Doe" <b@x.example>')
@example("Doe a <b@x.example>")
def test_from_fields_of_the_usual_form_read_as_they_do_token_by_token(text: str) -> None:
    def read(value: str) -> list[str] | None:
        try:
            return headers.from_domains(f"From: {value}\r\n".encode())
        except HeaderError:
            return None

    assert read(text) == read(f"{text} (no usual form)")


def test_message_id_is_found_or_empty() -> None:
    assert headers.message_id(b"Message-ID:\r\n <1@x>\r\n") == "<1@x>"
    assert headers.message_id(b"Subject: x\r\n") == ""
    assert headers.message_id(b"Subject: x\r\n message-id: <1@x>\r\nmessage-id : <2@x>\r\n") == "<2@x>"
    assert headers.message_id(b"Message-ID: <a\0\xffb@x>\r\n") == "<a?\ufffdb@x>"  # PostgreSQL stores no NUL
    assert headers.message_id(b"not a header\r\n") == ""

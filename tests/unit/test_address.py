import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import AddressError
from relay.mail.address import Address, ascii_domain, parse_address, parse_domain, parse_path


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("desk@lib.example", "desk", "lib.example"),
        ("Desk+a.b@Lib.Example", "Desk+a.b", "lib.example"),
        ('"two words"@lib.example', "two words", "lib.example"),
        (r'"say \"hi\""@lib.example', 'say "hi"', "lib.example"),
        ("desk@[192.0.2.1]", "desk", "[192.0.2.1]"),
        ("desk@[IPv6:2001:db8::1]", "desk", "[IPv6:2001:db8::1]"),
        ("größe@bücher.example", "größe", "bücher.example"),
        ("a=b/c!d%e@lib.example", "a=b/c!d%e", "lib.example"),
    ],
)
def test_addresses_are_read(text: str, local: str, domain: str) -> None:
    assert parse_address(text) == Address(local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "desk",
        "@lib.example",
        "desk@",
        "a b@lib.example",
        ".desk@lib.example",
        "desk.@lib.example",
        "de..sk@lib.example",
        "desk@library..example",
        "desk@-lib.example",
        "desk@lib.example>",
        "desk@lib\r\nrary.example",
        "de\x00sk@lib.example",
        '"a\nb"@lib.example',
        "desk@[300.1.1.1]",
        "desk@[not-an-address]",
        "=?utf-8?q?a=0Ab?=@x.example\r\n",
        "a@b@lib.example",
        "desk\u202e@lib.example",
        "desk@lib.example.",
        "desk@\uff4cib.example",
        "desk@\u2603.example",
        "x" * 65 + "@lib.example",
        "desk@" + "a" * 64 + ".example",
        "desk@" + ".".join(["abcdefgh"] * 32),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


def test_paths_and_their_parameters() -> None:
    assert parse_path("<desk@lib.example> SIZE=10 BODY=8BITMIME") == (
        Address("desk", "lib.example"),
        "SIZE=10 BODY=8BITMIME",
    )
    assert parse_path("<>", null_allowed=True) == (None, "")


@pytest.mark.parametrize(
    "text",
    ["<>", "desk@lib.example", "<@hop.example:desk@lib.example>", "<desk@lib.example", "<a@b>SIZE=1"],
)
def test_paths_that_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text)


@given(st.text(max_size=80))
def test_whatever_is_read_is_clean_and_reads_back(text: str) -> None:
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert str(address).isprintable()
    assert "\r" not in str(address)
    assert "\n" not in str(address)
    assert parse_address(str(address)) == address


@given(st.from_regex(r'"([ !#-\[\]-~]|\\[ -~]){1,20}"@[a-z]{1,10}\.example', fullmatch=True))
def test_quoted_local_parts_read_back(text: str) -> None:
    address = parse_address(text)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("local", ["anna%elsewhere.example", "elsewhere.example!anna", "anna@elsewhere.example"])
def test_a_route_in_a_local_part_is_seen(local: str) -> None:
    assert Address(local, "lib.example").has_route
    assert not Address("o'hara+news=x", "lib.example").has_route


LOCALS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=70)
DOMAINS = st.text(st.sampled_from("abz09-.[]:IPvüß\uff41\u202e @<>\r\n\0"), min_size=1, max_size=40)


@given(LOCALS, DOMAINS, st.sampled_from(["", " SIZE=1", " ", "x", ">"]))
def test_a_path_gives_an_address_that_reads_back_or_is_refused(local: str, domain: str, rest: str) -> None:
    for path in (f"<{local}@{domain}>{rest}", f'<"{local}"@{domain}>{rest}'):
        try:
            address, parameters = parse_path(path)
        except AddressError:
            continue
        assert address is not None
        assert parse_path(f"<{address}>{rest}") == (address, parameters)
        assert str(address).isprintable()
        assert len(address.local.encode()) <= 64
        assert len(str(address.domain).encode()) <= 255
        assert ascii_domain(address.domain).isascii()


def test_domains_have_an_ascii_form() -> None:
    assert ascii_domain("straße.example") == "xn--strae-oqa.example", "IDNA 2003 would make it another domain"
    assert ascii_domain(parse_domain("Bücher.Example")) == "xn--bcher-kva.example"
    assert parse_domain("lib.example.") == "lib.example"

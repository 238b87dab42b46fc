"""Whatever stands in a TXT record, and whatever is taken off from whatever."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from relay.config.kinds import Network
from relay.dns.spf import joined, minus
from relay.dns.spf_record import Record, parse
from relay.errors import SpfError

PIECES = ["a", "mx", "ip4:", "ip6:", "include:", "redirect=", "exp=", "exists:", "ptr", "all", "-", "~", "?", "+"]
PIECES += ["/", "//", ":", "=", ".", "_", "%", "%{i}", "24", "128", "0", "192.0.2.0", "::1", "x.example"]
TEXTS = st.lists(st.sampled_from([*PIECES, " ", "  ", "\0", "\xe9"]), max_size=30).map("".join) | st.text(max_size=200)


def read(text: str) -> Record | None:
    """What a text is; None when it is no record, or a wrong one."""
    try:
        return parse(text)
    except SpfError:
        return None


@given(TEXTS)
def test_what_is_read_can_be_evaluated_and_nothing_else_escapes(text: str) -> None:
    record = read("v=spf1 " + text)
    for term in record.terms if record is not None else ():
        assert (term.network is not None) == (term.kind in ("ip4", "ip6"))
        assert term.domain or term.kind not in ("include", "exists")
        assert 0 <= term.prefix4 <= 32
        assert 0 <= term.prefix6 <= 128
        assert term.text in text


@given(TEXTS)
def test_what_does_not_begin_like_a_record_is_none(text: str) -> None:
    if not text.lower().startswith("v=spf1"):
        assert parse(text) is None


def _network(address: int, prefix: int) -> Network:
    return ip_network((address, prefix), strict=False)


SMALL = st.builds(_network, st.integers(0, 2**10 - 1), st.integers(20, 32))


@given(st.lists(SMALL, max_size=5), st.lists(SMALL, max_size=5))
def test_taking_off_is_exact(some: list[Network], off: list[Network]) -> None:
    left = joined(minus(some, off))
    for number in range(0, 2**10, 7):
        address = IPv4Address(number)
        wanted = any(address in each for each in some) and not any(address in each for each in off)
        assert any(address in each for each in left) == wanted


def test_addresses_of_one_kind_take_nothing_off_the_other() -> None:
    both: list[Network] = [IPv4Network("0.0.0.0/0"), IPv6Network("::/0")]
    left = minus(both, [IPv6Network("::/1")])
    assert any(IPv4Address("192.0.2.1") in each for each in left)
    assert not any(IPv6Address("::1") in each for each in left)
    assert any(IPv6Address("8000::") in each for each in left)

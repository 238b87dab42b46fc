"""The header of a load balancer: what it says, and what is none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.intake.proxy_protocol import FIXED, MAX_HEADER, SIGNATURE, NotAHeader, client_address, rest_length

CLIENT4 = bytes([192, 0, 2, 7]) + bytes([10, 0, 0, 1]) + (4711).to_bytes(2, "big") + (25).to_bytes(2, "big")
CLIENT6 = ipaddress.IPv6Address("2001:db8::7").packed + ipaddress.IPv6Address("2001:db8::1").packed + b"\x12\x34\0\x19"


def header(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


@pytest.mark.parametrize(
    ("whole", "address"),
    [
        (header(0x21, 0x11, CLIENT4), "192.0.2.7"),
        (header(0x21, 0x21, CLIENT6), "2001:db8::7"),
        (header(0x21, 0x11, CLIENT4 + b"\x04\x00\x02ab"), "192.0.2.7"),
        (header(0x20, 0x00, b""), None),
        (header(0x20, 0x11, CLIENT4), None),
    ],
)
def test_what_a_header_says(whole: bytes, address: str | None) -> None:
    assert rest_length(whole[:FIXED]) == len(whole) - FIXED
    assert client_address(whole) == address


@pytest.mark.parametrize(
    ("whole", "why"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 25\r\n", "no PROXY header of version 2"),
        (b"EHLO somebody.example\r\n", "no PROXY header of version 2"),
        (header(0x11, 0x11, CLIENT4), "version and command 0x11"),
        (header(0x22, 0x11, CLIENT4), "version and command 0x22"),
        (header(0x21, 0x00, b""), "without a TCP address"),
        (header(0x21, 0x12, CLIENT4), "without a TCP address"),
        (header(0x21, 0x31, b"\0" * 216), "without a TCP address"),
        (header(0x21, 0x11, CLIENT4[:11]), "without a TCP address"),
        (header(0x21, 0x21, CLIENT6[:35]), "without a TCP address"),
        (header(0x21, 0x11, CLIENT4)[:-1], "cut off"),
        (header(0x21, 0x11, CLIENT4) + b"x", "cut off"),
        (header(0x21, 0x11, b"\0" * (MAX_HEADER - FIXED + 1)), "a PROXY header of 2049 bytes"),
        (b"", "no PROXY header of version 2"),
    ],
)
def test_what_is_no_header(whole: bytes, why: str) -> None:
    with pytest.raises(NotAHeader, match=why):
        client_address(whole)


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda start, command, family, length, rest: (
            start + bytes([command, family]) + length.to_bytes(2, "big") + rest
        ),
        st.sampled_from([SIGNATURE, SIGNATURE[:11] + b"\r", b"PROXY TCP4 1"]),
        st.sampled_from([0x20, 0x21, 0x11, 0x2F]) | st.integers(0, 255),
        st.sampled_from([0x11, 0x21, 0x12, 0x31, 0]) | st.integers(0, 255),
        st.integers(0, 300) | st.integers(0, 65535),
        st.binary(max_size=300),
    )
)
def test_whatever_comes_is_an_address_or_none_or_no_header(whole: bytes) -> None:
    try:
        address = client_address(whole)
    except NotAHeader:
        return
    assert whole.startswith(SIGNATURE)
    assert len(whole) <= MAX_HEADER
    assert address is None or ipaddress.ip_address(address).packed == whole[FIXED:][: 4 if ":" not in address else 16]

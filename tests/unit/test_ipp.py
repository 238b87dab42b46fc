"""IPP as bytes: what is written can be read, and nothing that comes harms."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import PrintError
from relay.printing import ipp
from relay.printing.device import Device, speaks_ipp


def attribute(tag: int, name: str, value: bytes) -> bytes:
    head = struct.pack(">bH", tag, len(name)) + name.encode()
    return head + struct.pack(">H", len(value)) + value


def response(*groups: bytes, status: int = 0) -> bytes:
    head = b"\x02\x00" + struct.pack(">H", status) + b"\x00\x00\x00\x01"
    charset = attribute(0x47, "attributes-charset", b"utf-8") + attribute(0x48, "attributes-natural-language", b"en")
    return head + b"\x01" + charset + b"".join(groups) + b"\x03"


def job(number: int, name: bytes, state: int) -> bytes:
    return (
        b"\x02"
        + attribute(0x21, "job-id", struct.pack(">i", number))
        + attribute(0x42, "job-name", name)
        + attribute(0x23, "job-state", struct.pack(">i", state))
    )


def test_jobs_of_an_answer_are_kept_apart() -> None:
    groups = ipp.answer(response(job(1, b"slip-a", 9), job(2, b"slip-b", 5)))
    assert [(group["job-id"], group["job-name"], group["job-state"]) for group in groups] == [
        ([1], ["slip-a"], [9]),
        ([2], ["slip-b"], [5]),
    ]


def test_values_of_all_kinds_are_read_or_left_out() -> None:
    first = attribute(0x44, "reasons", b"none") + attribute(0x44, "", b"media-empty-error")
    collection = attribute(0x34, "media-col", b"") + attribute(0x4A, "", b"size") + attribute(0x21, "", b"\0\0\0\1")
    named = attribute(0x36, "job-name", b"\0\x02de\0\x06slip-\xc3")
    rest = attribute(0x22, "accepts", b"\1") + attribute(0x13, "nothing", b"") + attribute(0x33, "range", b"12345678")
    number = attribute(0x23, "state", struct.pack(">i", -5))
    (group,) = ipp.answer(response(b"\x04" + first + collection + attribute(0x37, "", b"") + named + rest + number))
    assert group["reasons"] == ["none", "media-empty-error"]
    assert (group["job-name"], group["accepts"], group["state"]) == (["slip-\ufffd"], [True], [-5])
    assert not any(group.get(name) for name in ("media-col", "size", "nothing", "range"))


def test_reading_answers_takes_no_memory() -> None:
    content = response(job(1, b"slip-a", 9), job(2, b"slip-b", 5))
    for _ in range(100):
        ipp.answer(content)
    before = resident()
    for _ in range(4000):
        ipp.answer(content)
    assert resident() - before < 2_000_000, "pycups kept some 5 KB of each"


def resident() -> int:
    """The memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_an_answer_without_jobs_has_none() -> None:
    assert ipp.answer(response()) == []


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (b"", "not an IPP answer"),
        (b"<html>no printer</html>", "not an IPP answer"),
        (response()[:-1], "not an IPP answer"),
        (response(b"\x02" + attribute(0x21, "job-id", b"1")), "not an IPP answer"),
        (response(status=0x0406), "IPP status 0x0406"),
    ],
)
def test_what_is_no_answer_is_an_error(content: bytes, meaning: str) -> None:
    with pytest.raises(PrintError, match=meaning):
        ipp.answer(content)


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_are_an_answer_or_an_error(garbage: bytes, cut: int) -> None:
    whole = response(job(1, b"slip-a", 9), b"\x02" + garbage)
    for content in (garbage, whole, whole[:cut] + garbage):
        try:
            ipp.answer(content)
        except PrintError:
            continue


def test_a_request_names_operation_and_printer() -> None:
    content = ipp.request(ipp.GET_JOBS, [("printer-uri", ipp.URI, "ipp://[::1]:631/ipp/print")])
    assert content[2:4] == b"\x00\x0a"
    assert b"ipp://[::1]:631/ipp/print" in content


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("ipp://10.0.0.5/ipp/print?contimeout=4", "ipp://10.0.0.5:631/ipp/print"),
        ("ipps://p.example:443/ipp/print", "ipps://p.example:443/ipp/print"),
        ("ipp://user:secret@[2001:db8::5]/x", "ipp://[2001:db8::5]:631/x"),
    ],
)
def test_the_uri_of_a_queue_s_device_becomes_that_of_the_printer(uri: str, asked: str) -> None:
    assert speaks_ipp(uri)
    assert Device(uri).uri == asked


@pytest.mark.parametrize("uri", ["socket://10.0.0.5", "usb://EPSON/TM", "dnssd://x._ipp._tcp.local/", "ipp://", ""])
def test_what_is_no_ipp_uri_can_t_be_asked(uri: str) -> None:
    assert not speaks_ipp(uri)

"""The numbers of system calls are those of the kernel's headers, where these are installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.slips import seccomp

HEADERS = (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h"))
NEWER = {"fchmodat2"}
"""Calls that may be missing from the headers of an older Debian."""


def numbers(header: Path) -> dict[str, int]:
    """The calls of a header. The generic one names 64-bit variants of some as `__NR3264_`."""
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize("column", [0, 1], ids=["x86-64", "aarch64"])
def test_numbers_are_those_of_the_headers(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("the header is not installed")
    known = numbers(HEADERS[column])
    ours = {
        **seccomp.REFUSED,
        **seccomp.MISSING,
        **seccomp.WRITING,
        "clone": seccomp.CLONE,
        "prlimit64": seccomp.PRLIMIT,
    }
    wrong = {
        name: (both[column], known.get(name))
        for name, both in ours.items()
        if both[column] is not None and both[column] != known.get(name) and not (name in NEWER and name not in known)
    }
    assert wrong == {}
    absent = {name for name, both in ours.items() if both[column] is None and name in known}
    assert absent <= {"renameat"}

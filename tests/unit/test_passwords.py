"""Passwords that are tried out cost time, and lock an address out; the right one is let in."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from relay.config.settings import Config
from relay.config.sources import Auth
from relay.errors import Refusal
from relay.intake import lockout, passwords
from relay.intake.lockout import Lockout
from relay.intake.passwords import Passwords
from relay.maillog import MailLog

pytestmark = pytest.mark.filterwarnings("error")

Make = Callable[..., Config]
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make_passwords(make_config: Make) -> Callable[..., Passwords]:
    def make(**auth: Any) -> Passwords:
        source = {"name": "alma", "institutions": ["demo"], "username": "alma", "password_hash": CHEAP.hash("right")}
        return Passwords(make_config(sources=[source], auth={"delay": 0, **auth}), MailLog())

    return make


@pytest.mark.asyncio
async def test_a_name_and_its_password_are_a_source(make_passwords: Callable[..., Passwords]) -> None:
    checked = make_passwords()
    found = await checked.source_of("192.0.2.1", "alma", "right")
    assert found is not None
    assert found.name == "alma"
    for name, password in (("alma", "wrong"), ("nobody", "right"), ("alma", ""), ("", ""), ("nobody", "no such user")):
        assert await checked.source_of("192.0.2.1", name, password) is None


@pytest.mark.asyncio
async def test_too_many_wrong_ones_lock_the_address_out_and_no_other(make_passwords: Callable[..., Passwords]) -> None:
    checked = make_passwords(max_failures=3)
    for _ in range(3):
        assert await checked.source_of("192.0.2.1", "alma", "wrong") is None
    with pytest.raises(Refusal) as refusal:
        await checked.source_of("192.0.2.1", "alma", "right")
    assert str(refusal.value.reply).startswith("421 4.7.0 ")
    with pytest.raises(Refusal):
        checked.check_open_to("::ffff:192.0.2.1")
    assert await checked.source_of("192.0.2.2", "alma", "right") is not None


@pytest.mark.asyncio
async def test_what_is_tried_at_once_is_not_tried_all(
    make_passwords: Callable[..., Passwords], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = make_passwords(max_failures=3)
    tried = itertools.count()
    monkeypatch.setattr(checked, "_verified", lambda name, password: next(tried) and None)
    answers = await asyncio.gather(
        *(checked.source_of("192.0.2.1", "alma", str(n)) for n in range(50)), return_exceptions=True
    )
    assert sum(isinstance(answer, Refusal) for answer in answers) >= 50 - 3 - passwords.CONCURRENT
    assert next(tried) <= 3 + passwords.CONCURRENT


@pytest.mark.asyncio
async def test_hashes_are_computed_two_at_a_time_and_the_rest_is_told_to_come_again(
    make_passwords: Callable[..., Passwords], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = make_passwords(max_failures=1000)
    lock, running, most = threading.Lock(), 0, 0

    def verified(name: str, password: str) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    monkeypatch.setattr(checked, "_verified", verified)
    answers = await asyncio.gather(
        *(checked.source_of(f"192.0.2.{n}", "alma", "x") for n in range(200)), return_exceptions=True
    )
    assert most == passwords.CONCURRENT
    busy = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(busy) == 200 - passwords.MAX_WAITING
    assert str(busy[0].reply).startswith("454 4.7.0 ")


def test_a_name_that_does_not_exist_takes_as_long(make_config: Make) -> None:
    slow = PasswordHasher(time_cost=4, memory_cost=8192, parallelism=1)
    sources = [
        {"name": "a", "institutions": ["demo"], "username": "a", "password_hash": CHEAP.hash("x")},
        {"name": "b", "institutions": ["demo"], "username": "b", "password_hash": slow.hash("x")},
    ]
    checked = Passwords(make_config(sources=sources), MailLog())
    assert "$m=8192,t=4,p=1$" in checked._decoy


def test_each_failure_takes_longer_up_to_a_limit() -> None:
    locked = Lockout(Auth(max_failures=1000), Clock())
    assert [locked.failed("192.0.2.1") for _ in range(7)] == [1, 2, 4, 8, 16, 16, 16]
    assert locked.failed("192.0.2.2") == 1
    locked.succeeded("192.0.2.1")
    assert locked.failed("192.0.2.1") == 1


def test_it_is_open_again_after_a_while() -> None:
    clock = Clock()
    locked = Lockout(Auth(max_failures=2, within=60, lock_for=300), clock)
    locked.failed("192.0.2.1")
    clock.now += 61
    locked.failed("192.0.2.1")
    assert not locked.is_locked("192.0.2.1"), "the first one counts no more"
    locked.failed("192.0.2.1")
    assert locked.is_locked("192.0.2.1")
    clock.now += 301
    assert not locked.is_locked("192.0.2.1")


def test_an_ipv6_client_is_its_network() -> None:
    locked = Lockout(Auth(max_failures=2), Clock())
    locked.failed("2001:db8:0:1::1")
    locked.failed("2001:db8:0:1:ffff::2")
    assert locked.is_locked("2001:db8:0:1::3")
    assert not locked.is_locked("2001:db8:0:2::1")
    assert len(locked) == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200))
def test_the_table_is_bounded(tried: list[tuple[int, bool]]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockout, "MAX_ADDRESSES", 10)
        locked = Lockout(Auth(max_failures=3), clock)
        for number, right in tried:
            clock.now += 1
            if right:
                locked.succeeded(f"192.0.2.{number}")
            else:
                assert 0 < locked.failed(f"192.0.2.{number}") <= 16
            assert len(locked) <= 10

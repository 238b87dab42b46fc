"""Queue ids and VERP addresses."""

import re
import time

import pytest

from relay.mail import queue_id
from relay.mail.address import Address
from relay.mail.queue_id import new_queue_id
from relay.mail.verp import read_verp, verp_address

KEY = b"a key of sixteen"


def test_queue_ids_sort_by_time_and_do_not_repeat() -> None:
    ids = [new_queue_id(1_800_000_000 + i / 1000) for i in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-9A-HJKMNP-TV-Z]{13}", each) for each in ids)


def test_queue_ids_keep_their_order_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_id, "_clock", queue_id._Clock())  # the other tests keep theirs
    before = [new_queue_id() for _ in range(3)]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3 * 3600)
    after = [new_queue_id() for _ in range(300)]
    assert [*before, *after] == sorted({*before, *after})
    monkeypatch.setattr(time, "time", lambda: now() - 3 * 86_400)
    assert new_queue_id() < before[0], "a clock that was wrong by days is not followed for days"


def test_a_verp_address_names_its_delivery() -> None:
    queue_id = new_queue_id()
    address = verp_address(KEY, queue_id, 7, "bounces.lib.example")
    assert len(address.local) <= 64
    assert read_verp(KEY, address) == (queue_id, 7)
    assert read_verp(KEY, Address(address.local.upper(), address.domain)) == (queue_id, 7)


def test_a_verp_address_that_we_did_not_sign_names_nothing() -> None:
    address = verp_address(KEY, new_queue_id(), 7, "bounces.lib.example")
    assert read_verp(b"another key 1234", address) is None
    assert read_verp(KEY, Address(address.local, "other.example")) is None
    assert read_verp(KEY, Address(address.local.replace("-7-", "-8-"), address.domain)) is None
    assert read_verp(KEY, Address("b-x-1-y", address.domain)) is None

"""Test letters: their words in each language, whose they are, and what is remembered of them."""

from __future__ import annotations

import email
import email.policy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from relay.bounces.own_mail import SOURCE
from relay.config.institutions import Language
from relay.config.settings import Config
from relay.control import trials
from relay.control.trials import Trials, WatchedAssembler
from relay.errors import BadSignature, OrderError
from relay.maillog import MailLog
from relay.outgoing.private_key import new_private_key, pem
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, NewMessage, State

Make = Callable[..., Config]

LAW = {"name": "law", "domains": ["law.example"], "envelope_from": "a@law.example"}


@pytest.mark.parametrize("language", get_args(Language))
def test_a_letter_says_what_it_is_in_each_language(make_config: Make, language: str) -> None:
    base = make_config().institutions[0].model_dump(exclude_none=True)
    config = make_config(institutions=[base | {"language": language, "dsn_from": "büro@lib.example"}])
    new = Trials(config).write("Reader@patron.example", "")
    message = email.message_from_bytes(new.content, policy=email.policy.default)
    text = message.get_content()
    assert new.message.queue_id in text
    assert "Reader@patron.example" in text
    assert "slip-relay" in str(message["Subject"])
    assert (message["Auto-Submitted"], message["Message-ID"]) == ("auto-generated", new.message.message_id)
    assert (new.message.size, new.message.sha256) == (len(new.content), hashlib.sha256(new.content).hexdigest())
    assert (new.message.source, new.message.reverse_path) == (SOURCE, "büro@lib.example")


def test_the_texts_differ_by_language(make_config: Make) -> None:
    base = make_config().institutions[0].model_dump(exclude_none=True)
    configs = [make_config(institutions=[base | {"language": each}]) for each in get_args(Language)]
    assert len({Trials(config).write("a@b.example", "").content.split(b"\r\n\r\n")[1][:40] for config in configs}) == 6


def test_it_goes_the_way_that_the_rules_choose_and_nobody_is_told(make_config: Make) -> None:
    rules = [
        {"name": "held", "recipient": "held@*", "hold": "no"},
        {"name": "read", "recipient": "read@*", "text": "x", "discard": True},
    ]
    made = Trials(make_config(rules=rules))
    routes = {"a@b.example": "default", "held@b.example": "hold:held", "read@b.example": "sort:demo"}
    routes["desk@print.lib.example"] = "print:desk"
    for to, route in routes.items():
        (delivery,) = made.write(to, "").deliveries
        assert (delivery.route, delivery.notify) == (route, "NEVER")


@pytest.mark.parametrize(
    ("to", "institution", "why"),
    [
        ("no address", "demo", "has no @"),
        ("a@b.example", "", "from whom? name the institution: demo, law"),
        ("a@b.example", "none", "there is no institution 'none'; there are: demo, law"),
        ("desk@print.lib.example", "law", "belongs to a printer of demo, which prints nothing of law"),
    ],
)
def test_what_can_t_be_sent_is_refused(make_config: Make, to: str, institution: str, why: str) -> None:
    base = make_config().institutions[0].model_dump(exclude_none=True)
    with pytest.raises(OrderError, match=why.replace("?", r"\?")):
        Trials(make_config(institutions=[base, LAW])).write(to, institution)


def test_a_printer_s_letter_is_its_institution_s(make_config: Make) -> None:
    base = make_config().institutions[0].model_dump(exclude_none=True)
    made = Trials(make_config(institutions=[LAW, base]))
    assert made.write("desk@print.lib.example", "").message.institution == "demo"


def delivery_of(new: NewMessage) -> Delivery:
    to = new.deliveries[0]
    return Delivery(new.message, 0, to.recipient, to.route, to.destination, State.ACTIVE, 1, 0.0)


def test_what_leaves_is_remembered_of_test_letters_only(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_bytes(pem(new_private_key("rsa")))
    key = {"domain": "lib.example", "selector": "s1", "key_file": str(tmp_path / "key.pem")}
    base = make_config().institutions[0].model_dump(exclude_none=True)
    config: Any = make_config(institutions=[base | {"dkim": [key]}])
    made, other = Trials(config), Trials(config)
    assembler = WatchedAssembler(config, Signer(config.institutions), MailLog(), made)
    new = made.write("a@b.example", "")
    assembler.assemble(delivery_of(new), new.content)
    stranger = other.write("c@d.example", "")  # of ours, but not ordered here: a DSN, say
    assembler.assemble(delivery_of(stranger), stranger.content)
    (page,) = made.seen()[new.message.queue_id]
    assert list(made.seen()) == [new.message.queue_id]
    assert page["signatures"] == [{"algorithm": "rsa-sha256", "domain": "lib.example", "selector": "s1"}]
    assert page["envelope_from"].endswith("@bounces.lib.example")
    assert (page["to"], page["verified"], page["fault"]) == ("a@b.example", True, "")

    def broken(*_: object) -> None:
        raise BadSignature("it does not verify")

    monkeypatch.setattr(Signer, "verify", broken)
    with pytest.raises(BadSignature):
        assembler.assemble(delivery_of(new), new.content)
    assert made.seen()[new.message.queue_id][1]["fault"] == "it does not verify"


def test_only_the_last_are_remembered(make_config: Make) -> None:
    made = Trials(make_config())
    ids = [made.write("a@b.example", "").message.queue_id for _ in range(trials.KEPT + 2)]
    assert list(made.seen()) == ids[2:]

"""Nobody relays, signs or prints who may not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from relay.config.kinds import Network
from relay.config.settings import Config
from relay.config.sources import Source
from relay.errors import Refusal
from relay.intake.caller import Caller
from relay.intake.policy import Policy
from relay.mail.address import parse_address
from relay.mail.envelope import Envelope

LAW = {"name": "law", "domains": ["law.example", "books.lib.example"], "bounce_domain": "b.law.example"}
DEMO = {"name": "demo", "domains": ["lib.example"], "bounce_domain": "bounces.lib.example"}
LAW_PRINTER = {
    "name": "law",
    "institution": "law",
    "mailboxes": ["law@print.law.example"],
    "queue": "law",
    "profile": "a4",
}

Make = Callable[..., Config]


class NoNames:
    """No source is known by an SPF name."""

    def networks_of(self, source: Source) -> tuple[Network, ...]:
        return ()

    def is_unknown(self, source: Source) -> bool:
        return False


def make_policy(config: Config) -> Policy:
    return Policy(config, NoNames())


def both(make_config: Make, *sources: dict[str, Any]) -> Policy:
    """A policy for two institutions with a printer each."""
    printers = [make_config().printers[0].model_dump(), LAW_PRINTER]
    return make_policy(make_config(institutions=[DEMO, LAW], printers=printers, sources=list(sources)))


ALMA = {"name": "alma", "institutions": ["demo"], "networks": ["192.0.2.0/24"]}
BOTH = {"name": "both", "institutions": ["demo", "law"], "networks": ["192.0.2.0/24"]}


def admit(policy: Policy, sender: str, *recipients: str, null: bool = False, client: str = "192.0.2.1") -> str:
    envelope = Envelope(
        None if null else parse_address("alma@exlibrisgroup.com"), tuple(parse_address(each) for each in recipients)
    )
    sources = policy.sources_of(policy._config.listeners[0], Caller(client))
    return policy.admit(sources, envelope, f"From: {sender}\r\n".encode()).institution


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(Refusal) as refusal:
        call()
    return str(refusal.value.reply)


def test_who_a_client_is(make_config: Make) -> None:
    policy = make_policy(make_config())
    listener = make_config().listeners[0]
    assert [source.name for source in policy.sources_of(listener, Caller("192.0.2.9"))] == ["alma"]
    assert [source.name for source in policy.sources_of(listener, Caller("::ffff:192.0.2.9"))] == ["alma"]
    assert policy.sources_of(listener, Caller("198.51.100.1")) == ()
    assert policy.sources_of(listener, Caller("2001:db8::1")) == ()
    submission = listener.model_copy(update={"kind": "submission"})
    assert policy.sources_of(submission, Caller("192.0.2.9")) == ()


def test_a_client_without_a_source_gets_nothing_not_even_paper(make_config: Make) -> None:
    policy = make_policy(make_config())
    for recipient in ("reader@patron.example", "desk@print.lib.example", "circ@lib.example"):
        reply = refused(partial(policy.addressee, (), parse_address(recipient)))
        assert reply.startswith("550 5.7.1 ")


def test_a_source_that_may_only_print(make_config: Make) -> None:
    policy = make_policy(make_config(sources=[{**ALMA, "recipients": []}]))
    sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
    policy.addressee(sources, parse_address("DESK@print.lib.example"))
    assert refused(lambda: policy.addressee(sources, parse_address("a@patron.example"))).startswith("550 5.7.1 ")


def test_a_source_that_may_only_print_may_use_the_mailboxes_that_rules_print(make_config: Make) -> None:
    rules = [{"name": "old", "recipient": "old@print.lib.example", "print": "desk"}]
    policy = make_policy(make_config(sources=[{**ALMA, "recipients": []}], rules=rules))
    sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
    policy.addressee(sources, parse_address("old@print.lib.example"))


def test_a_rule_that_prints_some_letters_opens_no_way_out_for_the_others(make_config: Make) -> None:
    conditions = ({"letter_type": ["*"]}, {"hours": "00:00-24:00"}, {"sender": "*@*"}, {"smaller_than": "1GiB"})
    for condition in conditions:
        rules = [{"name": "some", "recipient": "*", "print": "desk", **condition}]
        policy = make_policy(make_config(sources=[{**ALMA, "recipients": []}], rules=rules))
        sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
        reply = refused(lambda: policy.addressee(sources, parse_address("a@patron.example")))  # noqa: B023
        assert reply.startswith("550 5.7.1 "), condition


@pytest.mark.parametrize(
    "action",
    [{"forward": ["branch@lib.example"]}, {"hold": "look"}, {"discard": True}, {"copy_to": ["branch@lib.example"]}],
)
def test_a_source_that_may_only_print_may_use_its_mailboxes_whatever_rules_make_of_them(
    make_config: Make, action: dict[str, object]
) -> None:
    rules = [{"name": "all", "recipient": "*", **action}]
    policy = make_policy(make_config(sources=[{**ALMA, "recipients": []}], rules=rules))
    sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
    policy.addressee(sources, parse_address("desk@print.lib.example"))
    reply = refused(lambda: policy.addressee(sources, parse_address("a@patron.example")))
    assert reply.startswith("550 5.7.1 ")


def test_recipients_are_limited_by_pattern(make_config: Make) -> None:
    policy = make_policy(make_config(sources=[{**ALMA, "recipients": ["*@lib.example"]}]))
    sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
    policy.addressee(sources, parse_address("anybody@lib.example"))
    reply = refused(lambda: policy.addressee(sources, parse_address("a@evil.lib.example")))
    assert reply.startswith("550 5.7.1 ")


def test_the_from_domain_says_which_institution(make_config: Make) -> None:
    policy = both(make_config, BOTH)
    assert admit(policy, "circ@lib.example", "a@x.example") == "demo"
    assert admit(policy, "circ@sub.lib.example", "a@x.example") == "demo"
    assert admit(policy, "circ@law.example", "a@x.example") == "law"
    assert admit(policy, "circ@books.lib.example", "a@x.example") == "law"


@pytest.mark.parametrize(
    "sender",
    ["circ@law.example", "circ@evil.example", "circ@notlib.example", "a@lib.example, b@evil.example"],
)
def test_a_from_domain_of_somebody_else_is_refused(make_config: Make, sender: str) -> None:
    reply = refused(lambda: admit(both(make_config, ALMA), sender, "a@x.example"))
    assert reply.startswith("550 5.7.1 the From domain ")


def test_from_domains_of_two_institutions_are_refused(make_config: Make) -> None:
    assert "550 5.7.1" in refused(lambda: admit(both(make_config, BOTH), "a@lib.example, b@law.example", "a@x.example"))


def test_another_institutions_printer_is_refused(make_config: Make) -> None:
    policy = both(make_config, ALMA)
    sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
    assert "550 5.7.1" in refused(lambda: policy.addressee(sources, parse_address("law@print.law.example")))
    reply = refused(lambda: admit(both(make_config, BOTH), "circ@lib.example", "law@print.law.example"))
    assert reply == "550 5.7.1 the institution demo may not send to one of the recipients from here"


def test_an_extra_from_domain_is_taken_for_the_sources_institution(make_config: Make) -> None:
    alma = {**ALMA, "from_domains": ["exlibrisgroup.com"]}
    assert admit(both(make_config, alma), "donotreply@exlibrisgroup.com", "desk@print.lib.example") == "demo"
    shared = {**BOTH, "from_domains": ["exlibrisgroup.com"]}
    assert admit(both(make_config, shared), "donotreply@exlibrisgroup.com", "law@print.law.example") == "law"
    assert "550 5.7.1" in refused(
        lambda: admit(both(make_config, shared), "donotreply@exlibrisgroup.com", "a@x.example")
    )


def test_returned_mail_goes_to_the_institution_it_is_addressed_to_and_nowhere_else(make_config: Make) -> None:
    policy = both(make_config, BOTH)
    assert admit(policy, "MAILER-DAEMON@mx.example", "alma-bounces@lib.example", null=True) == "demo"
    for recipients in (["a@x.example"], ["a@lib.example", "a@x.example"], ["a@lib.example", "b@law.example"]):
        assert "550 5.7.1" in refused(partial(admit, policy, "MAILER-DAEMON@mx.example", *recipients, null=True))


def test_a_loop_is_ended_for_good(make_config: Make) -> None:
    policy = make_policy(make_config())
    header = b"From: a@lib.example\r\n" + b"Received: by x; y\r\n" * 51
    sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
    reply = refused(lambda: policy.admit(sources, Envelope(None, ()), header))
    assert reply.startswith("554 5.4.6 ")


def test_a_header_that_is_not_clear_is_refused(make_config: Make) -> None:
    policy = make_policy(make_config())
    sources = policy.sources_of(make_config().listeners[0], Caller("192.0.2.1"))
    header = b"From: a@lib.example\r\nFrom: b@lib.example\r\n"
    assert refused(lambda: policy.admit(sources, Envelope(None, ()), header)).startswith("550 5.6.0 ")


def test_a_domain_within_anothers_belongs_to_the_nearest(make_config: Make) -> None:
    nested = {**LAW, "domains": ["law.lib.example"]}
    policy = make_policy(make_config(institutions=[DEMO, nested], sources=[ALMA]))
    assert "550 5.7.1" in refused(lambda: admit(policy, "dean@law.lib.example", "a@x.example"))


def test_the_rights_of_one_source_are_not_spent_by_another(make_config: Make) -> None:
    full = {**ALMA, "name": "full", "institutions": ["demo"], "recipients": ["*"]}
    print_only = {**ALMA, "name": "print-only", "institutions": ["law"], "recipients": []}
    policy = both(make_config, full, print_only)
    assert admit(policy, "circ@lib.example", "a@x.example") == "demo"
    assert admit(policy, "circ@law.example", "law@print.law.example") == "law"
    assert "550 5.7.1" in refused(lambda: admit(policy, "circ@law.example", "a@x.example"))


def test_what_one_institution_prints_another_does_not_relay(make_config: Make) -> None:
    rules = [{"name": "all", "institution": "demo", "recipient": "*@desk.example", "print": "desk"}]
    printers = [make_config().printers[0].model_dump(), LAW_PRINTER]
    sources = [{**BOTH, "recipients": []}]
    policy = make_policy(make_config(institutions=[DEMO, LAW], printers=printers, sources=sources, rules=rules))
    assert admit(policy, "circ@lib.example", "any@desk.example") == "demo"
    assert "550 5.7.1" in refused(lambda: admit(policy, "circ@law.example", "any@desk.example"))


# --- sandboxes

SANDBOX = {**ALMA, "sandbox": True, "recipients": ["*@test.lib.example"]}


def sandbox(make_config: Make, **more: Any) -> tuple[Policy, tuple[Source, ...]]:
    config = make_config(sources=[{**SANDBOX, **more}])
    policy = make_policy(config)
    return policy, policy.sources_of(config.listeners[0], Caller("192.0.2.1"))


def test_a_sandbox_writes_to_nobody_but_those_who_are_named(make_config: Make) -> None:
    policy, sources = sandbox(make_config)
    assert policy.addressee(sources, parse_address("a@test.lib.example")).diverted_by == ""
    for other in ("patron@patron.example", "circ@lib.example", "desk@print.lib.example", "a@xtest.lib.example"):
        assert refused(partial(policy.addressee, sources, parse_address(other))).startswith("550 5.7.1 "), other


def test_a_sandbox_prints_where_the_printer_is_named(make_config: Make) -> None:
    policy, sources = sandbox(make_config, recipients=["desk@print.*"])
    assert str(policy.addressee(sources, parse_address("desk@print.lib.example")).address) == "desk@print.lib.example"


def test_all_other_mail_of_a_sandbox_is_diverted(make_config: Make) -> None:
    policy, sources = sandbox(make_config, divert_to="tests@lib.example")
    for other in ("patron@patron.example", "desk@print.lib.example"):
        to = policy.addressee(sources, parse_address(other))
        assert (str(to.address), to.diverted_by) == ("tests@lib.example", "alma")
    assert policy.addressee(sources, parse_address("a@test.lib.example")).diverted_by == ""
    assert admit(policy, "circ@lib.example", "tests@lib.example") == "demo"
    assert "550 5.7.1" in refused(lambda: admit(policy, "circ@lib.example", "patron@patron.example"))
    assert "550 5.7.1" in refused(lambda: admit(policy, "circ@evil.example", "tests@lib.example"))


def test_who_logs_in_as_a_sandbox_is_nothing_else(make_config: Make) -> None:
    config = make_config(sources=[ALMA, {**SANDBOX, "name": "sandbox", "networks": ["198.51.100.0/24"]}])
    policy = make_policy(config)
    login = config.sources[1]
    sources = policy.sources_of(config.listeners[0], Caller("192.0.2.1"), login)
    assert sources == (login,)
    assert "550 5.7.1" in refused(lambda: policy.addressee(sources, parse_address("patron@patron.example")))


def test_an_institution_that_refuses_letters_from_elsewhere(make_config: Make) -> None:
    strict = DEMO | {"header_from": "refuse"}
    alma = ALMA | {"from_domains": ["exlibrisgroup.com"]}
    config = make_config(institutions=[strict, LAW], sources=[alma])
    policy = make_policy(config)
    printer = str(config.printers[0].mailboxes[0])
    no = "550 5.7.1 letters of demo are from its own domains, and exlibrisgroup.com is none of them"
    stranger, ours = "Alma <noreply@exlibrisgroup.com>", "circ@branch.lib.example"
    assert refused(lambda: admit(policy, stranger, "reader@patron.example")) == no
    assert refused(lambda: admit(policy, stranger, printer, "reader@patron.example")) == no
    assert admit(policy, stranger, printer) == "demo", "a slip may be from wherever its source may be"
    assert admit(policy, ours, "reader@patron.example") == "demo"
    assert admit(policy, "mailer-daemon@patron.example", "circ@lib.example", null=True) == "demo", "returned mail"
    for kept in ("keep", "rewrite"):
        settings = strict | {"header_from": kept, "from_mailbox": "library@lib.example"}
        open_policy = make_policy(make_config(institutions=[settings, LAW], sources=[alma]))
        assert admit(open_policy, stranger, "reader@patron.example") == "demo"
